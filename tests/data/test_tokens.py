"""The token cache: what it holds, that it is used again, and that damage is repaired."""

import numpy as np
import pytest

from rankitect.data.text import Document
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.data.tokens import tokenize
from rankitect.errors import DataError


class Texts:
    """A source in memory that counts how often it is read."""

    def __init__(self, texts):
        self.texts, self.reads, self.name = texts, 0, "texts"

    def __iter__(self):
        self.reads += 1
        return iter([Document(f"d{i}", text) for i, text in enumerate(self.texts)])


class WordTokenizer:
    """Words of a big vocabulary: ids need four bytes."""

    vocab_size = 100_000

    def __init__(self, fingerprint="words", bad=False):
        self.fingerprint, self.bad, self.calls = fingerprint, bad, 0

    def encode_batch(self, texts):
        self.calls += len(texts)
        return [
            np.array([100_000 if self.bad else 70_000 + len(word) for word in text.split()], dtype=np.int32)
            for text in texts
        ]


@pytest.fixture
def texts():
    return Texts([" ".join(f"é{i}-{j}" for j in range(30)) for i in range(12)])


def test_tokens_documents_and_bytes_come_back_as_they_went_in(tmp_path, texts):
    text = tokenize(texts, ByteTokenizer(), cache=tmp_path)
    seen = {}
    for split in text.splits.values():
        assert split.ids.dtype == np.uint16
        assert split.tokens == split.bytes == len(split.ids)
        for i, name in enumerate(split.documents):
            low, high = split.token_offsets[i : i + 2]
            seen[name] = bytes(split.ids[low:high].astype(np.uint8)).decode()
            assert split.bytes_between(low, high) == len(seen[name].encode())
            assert (split.document_of(np.arange(low, high)) == i).all()
    assert seen == {f"d{i}": value for i, value in enumerate(texts.texts)}


def test_windows_follow_each_other_and_share_one_token(tmp_path, texts):
    split = tokenize(texts, ByteTokenizer(), cache=tmp_path).split("train")
    count = split.windows(50)
    windows = split.read(np.arange(count), 50)
    assert windows.shape == (count, 51)
    assert windows.dtype == np.int64
    assert (windows[:-1, -1] == windows[1:, 0]).all()
    assert (windows[:, :-1].ravel() == split.ids[: count * 50]).all()
    assert count * 50 + 1 <= split.tokens < (count + 1) * 50 + 1


def test_second_opening_does_not_tokenise_and_is_read_only(tmp_path, texts):
    tokenizer = WordTokenizer()
    first = tokenize(texts, tokenizer, cache=tmp_path)
    calls = tokenizer.calls
    again = tokenize(texts, tokenizer, cache=tmp_path)
    assert (tokenizer.calls, texts.reads) == (calls, 3)
    assert first.fingerprint == again.fingerprint
    assert again.split("test").ids.dtype == np.uint32
    with pytest.raises(ValueError, match="read-only"):
        again.split("test").ids[0] = 1
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_fingerprint_changes_with_content_tokenizer_seed_and_shares(tmp_path, texts):
    other = Texts([*texts.texts[:-1], texts.texts[-1] + "!"])
    found = {
        tokenize(texts, WordTokenizer(), cache=tmp_path).fingerprint,
        tokenize(other, WordTokenizer(), cache=tmp_path).fingerprint,
        tokenize(texts, WordTokenizer("other"), cache=tmp_path).fingerprint,
        tokenize(texts, WordTokenizer(), seed=1, cache=tmp_path).fingerprint,
        tokenize(texts, WordTokenizer(), shares={"train": 0.5, "test": 0.5}, cache=tmp_path).fingerprint,
    }
    assert len(found) == 5


@pytest.mark.parametrize("damage", ["truncate", "remove", "meta"])
def test_damaged_entry_is_made_again(tmp_path, texts, damage):
    text = tokenize(texts, ByteTokenizer(), cache=tmp_path)
    want = np.array(text.split("train").ids)
    file = text.folder / "train.ids"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "remove":
        file.unlink()
    else:
        (text.folder / "meta.json").write_text("{")
    assert (tokenize(texts, ByteTokenizer(), cache=tmp_path).split("train").ids == want).all()


def test_failure_while_writing_leaves_nothing_behind(tmp_path, texts):
    with pytest.raises(DataError, match="gave id 100000, but its vocabulary has 100000 ids"):
        tokenize(texts, WordTokenizer(bad=True), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_that_cannot_be_written_says_what_to_do(tmp_path, texts):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        DataError, match=r"cannot be kept in .*file.*set RANKITECT_CACHE to a folder that can be written"
    ):
        tokenize(texts, ByteTokenizer(), cache=tmp_path / "file")


def test_unknown_split_names_the_ones_there_are(tmp_path, texts):
    with pytest.raises(DataError, match="no split 'valid'; it has train, calibration, search, test"):
        tokenize(texts, ByteTokenizer(), cache=tmp_path).split("valid")
