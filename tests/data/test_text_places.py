"""Texts in packed files, folders, globs and stores: the same text gives the same documents."""

from __future__ import annotations

import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pytest
from pyarrow import fs

from rankitect.data.splits import SHARES, assign_splits
from rankitect.data.text import Document, FirstBytes, PydocTopics, open_text
from rankitect.errors import DataError

BOOK = "\n\n".join(" ".join(f"w{i}x{k}" for k in range(80)) for i in range(400))
ROWS = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(9))


def zipped(path: Path, name: str, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, text)
    return path


def test_packed_text_gives_the_documents_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    book, rows = list(open_text(tmp_path / "book.txt")), list(open_text(tmp_path / "rows.jsonl"))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "book.txt.gz").write_bytes(gzip.compress(BOOK.encode()))
    (packed / "book.txt.xz").write_bytes(lzma.compress(BOOK.encode()))
    zipped(packed / "book.txt.zip", "book.txt", BOOK)
    for name in ("book.txt.gz", "book.txt.xz", "book.txt.zip"):
        assert list(open_text(packed / name)) == book, name
    (packed / "rows.jsonl.gz").write_bytes(gzip.compress(ROWS.encode()))
    assert list(open_text(packed / "rows.jsonl.gz")) == rows
    (packed / "cut.txt.gz").write_bytes(gzip.compress(BOOK.encode())[:-20])
    with pytest.raises(DataError, match=r"cut\.txt\.gz.*(damaged|Truncated)"):
        list(open_text(packed / "cut.txt.gz"))


def test_a_folder_with_one_long_file_is_cut_as_the_bare_file(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for path in (tmp_path / "book.txt", folder / "book.txt"):
        path.write_text(BOOK)
    assert list(open_text(folder)) == list(open_text(tmp_path / "book.txt"))


@pytest.mark.parametrize("between", [" ", ""])
def test_a_text_of_one_line_is_cut_between_words(between: str, tmp_path: Path) -> None:
    text = between.join(f"word{i:05d}" for i in range(20_000))
    (tmp_path / "one.txt").write_text(text)
    pieces = list(open_text(tmp_path / "one.txt"))
    assert "".join(piece.text for piece in pieces) == text
    assert 10 < len(pieces) < 50
    assert not between or all(piece.text.startswith("word") for piece in pieces)
    assert set(assign_splits(pieces)[0].values()) == set(SHARES)


def test_a_file_that_would_be_most_of_a_folder_is_cut_and_short_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "license.txt").write_text("free\n" * 500)
    (tmp_path / "book.txt").write_text(BOOK)
    documents = list(open_text(tmp_path))
    assert [d.id for d in documents if d.id.startswith("license")] == ["license.txt"]
    assert sum(d.id.startswith("book.txt#") for d in documents) > 30
    assert set(assign_splits(documents)[0].values()) == set(SHARES)
    for i in range(12):  # as one of many files it is a document like the others
        (tmp_path / f"book{i}.txt").write_text(BOOK.replace("w", f"v{i}"))
    assert {d.id for d in open_text(tmp_path)} >= {"book.txt", "book3.txt"}


def test_globs_and_stores_give_what_the_folder_gives(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "one.txt").write_text("one")
    (tmp_path / "a" / "deep" / "rows.jsonl").write_text(ROWS)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    folder = list(open_text(tmp_path / "a"))
    assert [d.id for d in folder][:2] == ["deep/rows.jsonl#1", "deep/rows.jsonl#2"]
    assert list(open_text(f"{tmp_path}/a/**")) == folder
    assert list(open_text((tmp_path / "a").as_uri())) == folder
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    assert list(open_text("a/deep", filesystem=store)) == list(open_text(tmp_path / "a" / "deep"))
    assert [d.text for d in open_text("a/*.txt", filesystem=store)] == ["one"]


def test_the_first_bytes_of_a_text(tmp_path: Path) -> None:
    whole = list(PydocTopics())
    some = list(FirstBytes(PydocTopics(), 50_000))
    assert some == whole[: len(some)]
    assert 20_000 < sum(len(d.text.encode()) for d in some) <= 50_000
    assert len(list(open_text("pydoc-topics", limit=1))) == 1, "never nothing"
    assert list(open_text("pydoc-topics", limit=10**9)) == whole


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b.txt", r"task\.text: a path cannot hold the character NUL"),
        ("x" * 300 + ".txt", "File name too long"),
        ("/dev/zero", "neither a file nor a folder, but a device"),
        ("s3://key:secret@bucket/a.txt", "holds credentials"),
        ("ftp://example.org/a.txt", "cannot be opened: Unrecognized filesystem"),
    ],
)
def test_places_of_text_that_cannot_be(path: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_text(path)
    assert len(str(error.value)) <= 500


def test_other_files_than_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("text\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.txt is UTF-16 text"):
        list(open_text(tmp_path / "a.txt"))
    (tmp_path / "a.parquet").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(DataError, match="packed by gzip, which Parquet does by itself"):
        list(open_text(tmp_path / "a.parquet"))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"text"))
    with pytest.raises(DataError, match=r"cannot read text from a \.gz file; supported are .*\.txt\.gz"):
        open_text(tmp_path / "b.gz")
    (tmp_path / "long.jsonl").write_text('{"text": ' + "9" * 5000 + "}")
    with pytest.raises(DataError, match="expected text, found int"):
        list(open_text(tmp_path / "long.jsonl"))
    (tmp_path / "deep.jsonl").write_text('{"text": ' + "[" * 100_000)
    with pytest.raises(DataError, match="row 1: not valid JSON"):
        list(open_text(tmp_path / "deep.jsonl"))
    assert Document("a", "b") == Document("a", "b", markup=False, own=None)
