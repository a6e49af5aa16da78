"""Tokenizers of GGUF files: SentencePiece agrees, every way of cutting text is the model's own, tables come back."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest

from rankitect.data.pre_tokenizers import PRE_TOKENIZERS, spelled
from rankitect.data.table_writing import adds, tables_of
from rankitect.data.token_tables import TokenTables, TokenType, tokenizer_from
from rankitect.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer, byte_level_bpe, load_tokenizer
from rankitect.errors import AssetError

TRAINING = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "She sells sea shells by the sea shore; the shells she sells are surely sea shells.",
    "How much wood would a woodchuck chuck if a woodchuck could chuck wood?",
    "1 23 456 7890 12345, and 3.14159",
] * 8
TEXTS = [*TRAINING[:4], "  two  spaces ", "héllo 漢字 \n\n new", "</s> <s> <0x0A>", "a" * 30, " ", "the\tsea\r\n"]


def sentence_piece(kind: str, prefix: bool, **options: Any) -> tuple[Any, TokenTables]:
    """A small SentencePiece model, and its tables as llama.cpp's converter writes them."""
    library = pytest.importorskip("sentencepiece")
    written, collapse = io.BytesIO(), options.get("remove_extra_whitespaces", False)
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING),
        model_writer=written,
        vocab_size=320 if options.get("byte_fallback") else 64,
        model_type={"llama": "bpe", "t5": "unigram"}[kind],
        minloglevel=2,
        normalization_rule_name="identity",
        add_dummy_prefix=prefix,
        **{"remove_extra_whitespaces": False, **options},
    )
    model = library.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = range(model.get_piece_size())
    own = options.get("user_defined_symbols", ())
    kinds = {
        TokenType.UNKNOWN: model.is_unknown,
        TokenType.BYTE: model.is_byte,
        TokenType.USER_DEFINED: lambda i: model.id_to_piece(i) in own,
        TokenType.CONTROL: model.is_control,
    }
    return model, TokenTables(
        kind,  # type: ignore[arg-type]
        [model.id_to_piece(i) for i in pieces],
        [next((one for one, holds in kinds.items() if holds(i)), TokenType.NORMAL) for i in pieces],
        scores=[model.get_score(i) for i in pieces],
        space_prefix=prefix,
        collapse=collapse,
    )


SENTENCE_PIECES = [
    ("llama", True, {"byte_fallback": True}),
    ("llama", False, {"user_defined_symbols": ["\n\n", "<mask>"], "byte_fallback": True}),
    ("t5", True, {"remove_extra_whitespaces": True}),
    ("t5", False, {}),
]


@pytest.mark.parametrize(("kind", "prefix", "options"), SENTENCE_PIECES)
def test_sentence_piece_gives_the_same_ids(kind: str, prefix: bool, options: dict[str, Any]) -> None:
    model, tables = sentence_piece(kind, prefix, **options)
    tokenizer = tokenizer_from(tables, "test", {"bos": 1, "eos": 2})
    for text in TEXTS:
        if kind == "t5" and "</s>" in text:  # what spells a special token is cut, which may make two unknowns of one
            assert not {1, 2} & set(tokenizer.encode(text).tolist())
            continue
        assert tokenizer.encode(text).tolist() == model.encode(text), text
        if options.get("byte_fallback"):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(("kind", "prefix", "options"), SENTENCE_PIECES)
def test_tables_of_sentence_piece_come_back(tmp_path: Path, kind: str, prefix: bool, options: dict[str, Any]) -> None:
    tokenizer = tokenizer_from(sentence_piece(kind, prefix, **options)[1], "test", {"bos": 1, "eos": 2})
    tokenizer.save(tmp_path)
    again = tokenizer_from(tables_of(load_tokenizer(tmp_path), tokenizer.vocab_size + 7), "test", {"bos": 1, "eos": 2})
    assert again.vocab_size == tokenizer.vocab_size
    assert all(again.encode(text).tolist() == tokenizer.encode(text).tolist() for text in TEXTS)


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("llama-bpe", "It'S 12345 x  y", ["It", "'S", " ", "123", "45", " x", " ", " y"]),
        ("qwen2", "It'S 123 x\n\ny", ["It", "'S", " ", "1", "2", "3", " x", "\n\n", "y"]),
        ("smollm", "it's 123", ["it", "'s", " ", "1", "2", "3"]),
        ("gpt-2", "it's 123", ["it", "'s", " 123"]),
        ("tekken", "HelloWorld 12", ["Hello", "World", " ", "1", "2"]),
        ("default", "a+b 12345", ["a", "+", "b", " ", "123", "45"]),
    ],
)
def test_text_is_cut_as_the_models_do(pre: str, text: str, pieces: list[str]) -> None:
    cut = [piece for piece, _ in PRE_TOKENIZERS[pre].build().pre_tokenize_str(text)]
    back = {char: byte for byte, char in spelled().items()}
    assert [bytes(back[char] for char in piece).decode() for piece in cut] == pieces


def byte_level(pre: str, **options: Any) -> BPETokenizer:
    tokens = [*(spelled()[byte] for byte in range(256)), "Ġt", "he", "Ġthe", "the", "<|end|>", "<tab>"]
    merges = ["Ġ t", "h e", "Ġt he"]
    return byte_level_bpe(tokens, merges, pre=pre, source="test", control_ids=[260], added_ids=[261], **options)


def test_a_piece_that_is_a_token_stays_whole_where_the_model_wants_it() -> None:
    assert byte_level("llama-bpe").encode("the").tolist() == [259]
    assert byte_level("dbrx").encode("the").tolist() == [ord("t"), 257]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "default"])
def test_tables_of_byte_level_tokenizers_come_back(tmp_path: Path, pre: str) -> None:
    tokenizer = byte_level(pre, special_ids={"eos": 260})
    tokenizer.save(tmp_path)
    tables = tables_of(load_tokenizer(tmp_path), 270)
    assert (tables.kind, tables.pre) == ("gpt2", pre)
    assert tables.types[260:263] == [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED]
    assert tables.tokens[269] == "[PAD269]"
    again = tokenizer_from(tables, "test", {"eos": 260})
    assert again.fingerprint == tokenizer.fingerprint
    assert adds(again) == (False, False)


def test_the_byte_tokenizer_comes_back_as_itself() -> None:
    assert isinstance(tokenizer_from(tables_of(ByteTokenizer(), 300), "test"), ByteTokenizer)


def test_begin_and_end_tokens_that_a_tokenizer_adds_are_seen() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    backend = Backend.from_str(byte_level("llama-bpe").to_json())
    backend.post_processor = TemplateProcessing("<|end|> $A", None, [("<|end|>", 260)])
    assert adds(BPETokenizer(backend, {"bos": 260})) == (True, False)


def test_unigrams_of_bytes_are_read_but_not_written() -> None:
    model, tables = sentence_piece("t5", False, byte_fallback=True)
    tokenizer = tokenizer_from(tables, "test")
    assert tokenizer.encode("hé 漢").tolist() == model.encode("hé 漢")
    with pytest.raises(AssetError, match=r"llama\.cpp's unigrams have no tokens of single bytes"):
        tables_of(tokenizer, 400)


def refused() -> dict[str, Tokenizer]:
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    def changed(**parts: Any) -> BPETokenizer:
        backend = Backend.from_str(byte_level("gpt-2").to_json())
        for name, part in parts.items():
            setattr(backend, name, part)
        return BPETokenizer(backend)

    cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("x+"), "isolated"), pre_tokenizers.ByteLevel()])
    return {
        r"changes text by 'Lowercase'": changed(normalizer=normalizers.Lowercase()),
        r"cuts text as none of these does: gpt-2": changed(pre_tokenizer=cut),
        r"its model is 'WordLevel'": BPETokenizer(Backend(models.WordLevel({"a": 0}, "a"))),
    }


def test_a_tokenizer_that_no_file_can_hold_is_refused() -> None:
    for message, tokenizer in refused().items():
        with pytest.raises(AssetError, match=message):
            tables_of(tokenizer, 300)


PLAIN = TokenTables("llama", ["<unk>", "a", "b", "ab"], [2, 1, 1, 1], scores=[0.0, -2.0, -3.0, -1.0])


@pytest.mark.parametrize(
    ("change", "special", "message"),
    [
        ({"tokens": ["<unk>", "a", "a", "ab"]}, {}, "names 1 tokens twice"),
        ({"tokens": ["<unk>", "a", "", "ab"]}, {}, "token 2 of the token table is empty"),
        ({"scores": [0.0]}, {}, "4 tokens and 1 scores"),
        ({"scores": [0.0, float("nan"), 0.0, 0.0]}, {}, r"score of token 1 \('a'\) is nan"),
        ({}, {"eos": 4}, "its token 'eos' is 4; it has 4 tokens"),
        ({"kind": "t5", "charsmap": b"x"}, {}, "its tables make no tokenizer"),
    ],
)
def test_contradicting_tables_are_refused(change: dict[str, Any], special: dict[str, int], message: str) -> None:
    with pytest.raises(AssetError, match=message):
        tokenizer_from(dataclasses.replace(PLAIN, **change), "f.gguf", special)
