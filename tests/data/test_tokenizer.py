"""Tokenizers: ids are stable, text survives, files are read back as the same tokenizer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.token_tables import TokenTables, TokenType, tokenizer_from
from rankitect.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer, byte_level_bpe, load_tokenizer
from rankitect.errors import AssetError, DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The 256 characters of byte-level vocabularies in the order of the bytes, from the byte tokenizer's file."""
    folder = tmp_path_factory.mktemp("bytes")
    ByteTokenizer().save(folder)
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(vocab, key=vocab.get)


@pytest.fixture(scope="module")
def small(alphabet: list[str]) -> BPETokenizer:
    tokens = [*alphabet, "Ġt", "he", "Ġthe", "12", "<|end|>"]
    return byte_level_bpe(
        tokens,
        ["Ġ t", "h e", "Ġt he", "1 2"],
        pre="smollm",
        source="test",
        control_ids=[260],
        special_ids={"eos": 260},
        chat_template="{{ messages }}",
    )


@given(text=TEXTS)
def test_byte_tokenizer_is_utf8(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(text.encode())
    assert tokenizer.decode(ids) == text


def test_byte_tokenizer_shows_what_is_no_text() -> None:
    assert ByteTokenizer().decode([104, 0xC3, 105, 299]) == "h\ufffdi\ufffd"
    assert ByteTokenizer().vocab_size == 256
    assert ByteTokenizer().encode("").shape == (0,)


@given(text=TEXTS)
def test_bpe_returns_the_text(small: BPETokenizer, text: str) -> None:
    assert small.decode(small.encode(text)) == text


def test_a_continuation_keeps_the_space_that_sentence_piece_drops_where_a_text_begins(
    small: BPETokenizer,
) -> None:
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b"]
    kinds = [*([TokenType.BYTE] * 256), *([TokenType.NORMAL] * 5)]
    tables = TokenTables("llama", pieces, kinds, scores=[-float(i) for i in range(261)], space_prefix=True)
    tokenizer = tokenizer_from(tables, "test", {})
    before, after = tokenizer.encode("a b").tolist(), tokenizer.encode("b a").tolist()
    assert tokenizer.decode(after) == "b a"
    assert tokenizer.decode_after(before, after) == " b a"
    assert tokenizer.decode_after([], after) == "b a"
    halves = small.encode("né").tolist()
    assert small.decode_after(halves[:2], halves[2:]) == "\ufffd", "of a divided character, what its bytes are alone"


def test_bpe_merges_and_sets_digits_apart(small: BPETokenizer, alphabet: list[str]) -> None:
    assert small.encode("the the").tolist() == [ord("t"), 257, 258]
    assert small.encode("12").tolist() == [ord("1"), ord("2")]
    joined = byte_level_bpe([*alphabet, "12"], ["1 2"], pre="gpt-2", source="test")
    assert joined.encode("12").tolist() == [256]


def test_special_tokens_in_text_are_plain_text(small: BPETokenizer) -> None:
    ids = small.encode("a<|end|>")
    assert 260 not in ids
    assert small.decode(ids) == "a<|end|>"
    assert small.decode([97, 260]) == "a<|end|>"
    assert small.vocab_size == 261
    assert small.special_ids == {"eos": 260}


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), "small"], ids=["byte", "bpe"])
def test_batch_equals_one_by_one(tokenizer: Tokenizer | str, small: BPETokenizer) -> None:
    chosen = small if isinstance(tokenizer, str) else tokenizer
    texts = ["", "the 12 thé", "\n\n  x", "a" * 500]
    batch = chosen.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [chosen.encode(text).tolist() for text in texts]
    assert all(ids.dtype == np.int32 and ids.ndim == 1 for ids in batch)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), "small"], ids=["byte", "bpe"])
def test_lone_surrogate_is_named(tokenizer: Tokenizer | str, small: BPETokenizer) -> None:
    chosen = small if isinstance(tokenizer, str) else tokenizer
    with pytest.raises(DataError, match=r"lone surrogate \(U\+D800\) at character 2"):
        chosen.encode_batch(["fine", "ab\ud800"])


def test_saved_tokenizers_come_back_as_themselves(tmp_path: Path, small: BPETokenizer) -> None:
    for name, tokenizer in {"byte": ByteTokenizer(), "bpe": small}.items():
        folder = tmp_path / name
        folder.mkdir()
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert type(again) is type(tokenizer)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.vocab_size == tokenizer.vocab_size
        assert again.special_ids == tokenizer.special_ids
        assert again.encode("the 12 naïve").tolist() == tokenizer.encode("the 12 naïve").tolist()
        assert sorted(file.name for file in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert json.loads((tmp_path / "bpe" / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


def test_saved_byte_tokenizer_gives_bytes_in_the_tokenizers_library(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend

    ByteTokenizer().save(tmp_path)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    text = "café 𝄞\x00\t1234"
    assert backend.encode(text).ids == list(text.encode())


def test_fingerprint_tells_tokenizers_apart(small: BPETokenizer, alphabet: list[str]) -> None:
    tokens = [*alphabet, "12"]
    first = byte_level_bpe(tokens, ["1 2"], pre="gpt-2", source="test")
    same = byte_level_bpe(tokens, ["1 2"], pre="gpt-2", source="elsewhere")
    digits = byte_level_bpe(tokens, ["1 2"], pre="smollm", source="test")
    assert first.fingerprint == same.fingerprint
    assert len({first.fingerprint, digits.fingerprint, small.fingerprint, ByteTokenizer().fingerprint}) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", t.fingerprint) for t in (first, ByteTokenizer()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre": "cl100k"}, r"f.gguf: pre-tokenizer 'cl100k' is not supported. Supported: gpt-2, "),
        ({"merges": ["a b"]}, r"f.gguf: the merge 'a b' is not made of two tokens"),
        ({"merges": ["a b c"]}, r"f.gguf: the merge 'a b c' is not made of two tokens"),
        ({"tokens": ["a", "a"]}, r"f.gguf: the token table names 1 tokens twice"),
        ({"control_ids": [2]}, r"f.gguf: special token id 2 is outside the token table of 2 tokens"),
    ],
)
def test_contradicting_tables_are_refused(change: dict[str, object], message: str) -> None:
    given_tables: dict[str, object] = {"tokens": ["a", "b"], "merges": [], "pre": "gpt-2", "source": "f.gguf"} | change
    with pytest.raises(AssetError, match=message):
        byte_level_bpe(**given_tables)  # type: ignore[arg-type]


# Files from elsewhere


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with the byte tokenizer's file, changed."""
    ByteTokenizer().save(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def added(token: str, token_id: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": token, "special": True, **flags}


def charsmap(data: bytes) -> dict[str, str]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(normalizer=charsmap(b"")), "cannot be read as a tokenizer.* .*Precompiled"),
        (lambda t: t["model"].update(vocab={}, merges=[]), "has no tokens"),
        (lambda t: t["model"]["vocab"].update(x=255), "gives 1 ids to more than one token each"),
        (lambda t: t["model"]["vocab"].update(x=2**32 - 1), "has a token of id 4294967295; ids must be below"),
        (lambda t: t.update(added_tokens=[added("<x>", 9)]), "says that '<x>' has id 9, .* would give it 256"),
        (lambda t: t.update(added_tokens="x"), "cannot be read as a tokenizer"),
        (lambda t: t.update(model=None), "cannot be read as a tokenizer"),
        (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}}), "cannot be read as a tok"),
    ],
)
def test_broken_tokenizer_files_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(AssetError, match=message) as caught:
        load_tokenizer(changed(tmp_path, change))
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(normalizer=charsmap(b"\x08\0\0\0" + b"\xff" * 8 + b"x\0")),
        lambda t: t.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}),
        lambda t: t.update(model={"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}),
    ],
    ids=["a panic in Rust", "no word for the unknown", "no piece for the unknown"],
)
def test_a_text_that_a_tokenizer_cannot_encode_is_an_error_that_names_it(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    tokenizer = load_tokenizer(changed(tmp_path, change))
    with pytest.raises(AssetError, match=r"tokenizer\.json cannot encode a text"):
        tokenizer.encode_batch(["an é"])


def test_a_tokenizer_of_256_bytes_that_adds_a_blank_is_not_taken_for_the_byte_tokenizer(tmp_path: Path) -> None:
    def add_prefix(content: dict[str, Any]) -> None:
        for part in content["pre_tokenizer"]["pretokenizers"]:
            part["add_prefix_space"] = True

    assert load_tokenizer(changed(tmp_path, lambda content: None)).encode("a").tolist() == [97]
    assert load_tokenizer(changed(tmp_path, add_prefix)).encode("a").tolist() == [32, 97]


def test_tokens_that_text_is_searched_for_stay_whole(alphabet: list[str]) -> None:
    tokenizer = byte_level_bpe([*alphabet, "<tab>"], [], pre="gpt-2", source="test", added_ids=[256])
    assert tokenizer.encode("a<tab>b").tolist() == [97, 256, 98]
    assert tokenizer.decode([97, 256, 98]) == "a<tab>b"


@pytest.mark.slow
def test_smollm2_tokenizer_reproduces_known_ids() -> None:
    from rankitect.models.checkpoints import load_checkpoint

    tokenizer = load_checkpoint("smollm2-135m").tokenizer
    assert tokenizer.vocab_size == 49152
    assert tokenizer.special_ids == {"bos": 1, "eos": 2, "unk": 0, "pad": 2}
    ids = tokenizer.encode("Hello 1234 world's café").tolist()
    assert ids == [19556, 216, 33, 34, 35, 36, 905, 506, 37366]
    assert tokenizer.decode(ids) == "Hello 1234 world's café"
