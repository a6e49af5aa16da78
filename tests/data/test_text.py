"""Text sources: what they give, and the error for each kind of bad input, with its place."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.splits import SHARES, assign_splits
from rankitect.data.text import Document, TextFile, open_text
from rankitect.errors import DataError


def words(seed, count=60):
    """A text that shares no paragraph with another seed's."""
    return " ".join(f"w{seed}x{i}" for i in range(count))


def test_pydoc_topics_are_documents_and_come_in_a_fixed_order():
    first, again = list(open_text("pydoc-topics")), list(open_text("pydoc-topics"))
    assert first == again
    assert len(first) > 70
    assert {"assert", "lambda"} <= {document.id for document in first}


def test_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    text = "\n\n".join(words(i) for i in range(40))
    (tmp_path / "book.txt").write_text(text)
    pieces = list(TextFile(tmp_path / "book.txt", piece_bytes=1000))
    assert "".join(piece.text for piece in pieces) == text
    assert len(pieces) > 5
    assert pieces[0].id == "book.txt#1"
    assert all(len(piece.text) >= 1000 for piece in pieces[:-1])
    assert [piece.text for piece in TextFile(tmp_path / "book.txt", whole=True)] == [text]


def test_small_text_file_and_one_without_blank_lines_still_fill_every_split(tmp_path):
    for name, between in (("blank.txt", "\n\n"), ("lines.txt", "\n")):
        (tmp_path / name).write_text(between.join(words(i, 10) for i in range(60)))
        pieces = list(open_text(tmp_path / name))
        assert 15 < len(pieces) <= 41
        assert set(assign_splits(pieces)[0].values()) == set(SHARES)


def test_folder_reads_every_supported_file_in_order_of_path(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "three"}) + "\n\n" + json.dumps({"text": "four"}))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    assert list(open_text(tmp_path)) == [
        Document("a.txt", "one"),
        Document("b/two.md", "two"),
        Document("c.jsonl#1", "three"),
        Document("c.jsonl#3", "four"),
    ]


def test_windows_line_ends_and_byte_order_mark_are_removed(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert "".join(document.text for document in open_text(tmp_path / "a.txt")) == "one\ntwo\n"


def test_parquet_gives_one_column(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "body": ["one", "  ", "three"]}), path)
    want = [Document("t.parquet#1", "one"), Document("t.parquet#3", "three")]
    assert list(open_text(path, field="body")) == want
    pq.write_table(pa.table({"body": pa.array(["one", "  ", "three"]).dictionary_encode()}), path)
    assert list(open_text(path, field="body")) == want


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": ', "a.jsonl, row 2, column 10: not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n[1]', "a.jsonl, row 2: expected a JSON object, found a list"),
        ("a.jsonl", '{"title": "x", "body": "y"}', "a.jsonl, row 1: no field 'text'; its fields are body, title"),
        ("a.jsonl", '{"text": null}', "a.jsonl, row 1, field 'text': expected text, found null"),
        ("a.jsonl", '{"text": 5}', "a.jsonl, row 1, field 'text': expected text, found int"),
        ("a.jsonl", '{"text": "x\\ud800"}', "row 1, field 'text', character 2: half of a surrogate pair"),
        ("a.txt", b"fine\nca\xe9", "a.txt, row 2, byte 3: not UTF-8 text \\(0xe9\\)"),
        ("a.parquet", b"PAR1 no", "a.parquet: cannot be read as parquet"),
        ("a.pdf", b"%PDF", "a.pdf: cannot read text from a .pdf file; supported are .txt"),
    ],
)
def test_bad_text_names_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        list(open_text(path))


def test_bad_parquet_columns_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"number": [1, 2], "text": ["one", None]}), path)
    with pytest.raises(DataError, match="no column 'body'; its columns are number, text"):
        list(open_text(path, field="body"))
    with pytest.raises(DataError, match="column 'number': expected strings, found int64"):
        list(open_text(path, field="number"))
    with pytest.raises(DataError, match="row 2, column 'text': expected text, found null"):
        list(open_text(path))


def test_missing_or_empty_places_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*an existing one with task\.text, or 'pydoc-topics'"):
        open_text(tmp_path / "nothing.txt")
    with pytest.raises(DataError, match=r"has no file that ends with \.txt"):
        open_text(tmp_path)


@given(sizes=st.lists(st.integers(min_value=20, max_value=400), min_size=60, max_size=80), seed=st.integers(0, 1000))
def test_splits_have_their_shares_and_depend_on_the_seed_alone(sizes, seed):
    documents = [Document(str(i), words(i, size)) for i, size in enumerate(sizes)]
    assigned, content = assign_splits(documents, seed=seed)
    assert (assigned, content) == assign_splits(documents, seed=seed)
    total = sum(len(document.text) for document in documents)
    largest = max(len(document.text) for document in documents) / total
    for split, share in SHARES.items():
        size = sum(len(document.text) for document in documents if assigned[document.id] == split)
        assert size > 0
        assert abs(size / total - share) <= largest


def test_another_seed_gives_another_division_of_the_same_content():
    documents = [Document(str(i), words(i)) for i in range(40)]
    (first, content), (second, same) = assign_splits(documents, seed=0), assign_splits(documents, seed=1)
    assert first != second
    assert content == same


@given(st.integers(0, 50))
def test_copies_and_documents_that_contain_others_stay_together(seed):
    documents = [Document(str(i), words(i)) for i in range(30)]
    documents.append(Document("copy", documents[3].text))
    documents.append(Document("spaced", documents[3].text.replace(" ", "\n")))
    documents.append(Document("chapter", words(99) + "\n\n" + documents[5].text + "\n \n" + words(98, 300)))
    assigned, _ = assign_splits(documents, seed=seed)
    assert assigned["copy"] == assigned["spaced"] == assigned["3"]
    assert assigned["chapter"] == assigned["5"]


def test_no_pydoc_chapter_is_apart_from_its_sections():
    assigned, _ = assign_splits(open_text("pydoc-topics"))
    assert assigned["compound"] == assigned["if"] == assigned["else"] == assigned["while"]
    assert assigned["specialnames"] == assigned["customization"]
    assert set(assigned.values()) == set(SHARES)


@pytest.mark.parametrize("seed", range(5))
def test_no_chapter_dominates_a_held_out_split_of_the_default_text(seed):
    sizes = {document.id: len(document.text.encode()) for document in open_text("pydoc-topics")}
    assigned, _ = assign_splits(open_text("pydoc-topics"), seed=seed)
    for split, share in SHARES.items():
        members = [size for name, size in sizes.items() if assigned[name] == split]
        assert abs(sum(members) / sum(sizes.values()) - share) < 0.002
        assert split == "train" or max(members) <= 0.34 * sum(members)


def test_few_documents_still_fill_every_split_and_too_few_are_refused():
    documents = [Document(str(i), words(i)) for i in range(4)]
    assert sorted(assign_splits(documents)[0].values()) == sorted(SHARES)
    with pytest.raises(DataError, match=r"has 4 document\(s\), of which 3 independent .* 4 splits"):
        assign_splits([*documents[:3], Document("copy", documents[0].text)])
    with pytest.raises(DataError, match="the same id '1'"):
        assign_splits([*documents, documents[1]])
