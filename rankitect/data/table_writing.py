"""The tables of a tokenizer as GGUF files carry them (`token_tables`), from its tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rankitect.data.pre_tokenizers import PRE_TOKENIZERS, name_of, spelled
from rankitect.data.token_tables import TokenTables, TokenType, padding, tokenizer_from
from rankitect.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer
from rankitect.errors import AssetError, shown

__all__ = ["adds", "tables_of"]

_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, doesn't it?  Yes!\n\nIt's 3.14159 (or 2,718) — naïve café",
    "def f(x):\n    return x ** 2 + 10000\t# a comment\r\n",
    "漢字 и кириллица, 🙂 emoji",
    "   spaces   before and after   ",
)
"""Texts on which the tokenizer that is read back must agree with the one that is written."""
_NOT_WRITTEN = "No GGUF file can hold this tokenizer"


def tables_of(tokenizer: Tokenizer, vocab: int) -> TokenTables:
    """The tables of a tokenizer.

    Args:
        tokenizer: Its own tables are checked against it on some texts.
        vocab: Rows of the embedding; those that no token has are padded.

    Raises:
        AssetError: No such tables give this tokenizer: it cuts or merges text in a way that llama.cpp does not know.
    """
    if isinstance(tokenizer, ByteTokenizer):
        tokens = [spelled()[byte] for byte in range(256)]
        return _padded(TokenTables("gpt2", tokens, [TokenType.NORMAL] * 256, "gpt-2"), vocab)
    if not isinstance(tokenizer, BPETokenizer):
        raise AssetError(f"{_NOT_WRITTEN}: it is a {type(tokenizer).__name__}, and no tokenizer.json describes it.")
    state = json.loads(tokenizer.to_json())
    kind = state["model"].get("type")
    if kind not in ("BPE", "Unigram"):
        raise AssetError(f"{_NOT_WRITTEN}: its model is {shown(kind)}. Supported: 'BPE', 'Unigram'.")
    byte_level = any(step.get("type") == "ByteLevel" for step in _steps(state.get("pre_tokenizer"), "pretokenizers"))
    tables = _padded(_byte_level(state) if byte_level else _sentence_piece(state), vocab)
    again = tokenizer_from(tables, "its tables", tokenizer.special_ids)
    for text in _PROBES:
        if again.encode(text).tolist() != tokenizer.encode(text).tolist():
            raise AssetError(f"{_NOT_WRITTEN}: read back, it cuts {shown(text[:60])} differently.")
    return tables


def adds(tokenizer: Tokenizer) -> tuple[bool, bool]:
    """Whether a tokenizer puts its begin token before a text, and its end token behind it, where special tokens are
    asked for."""
    from tokenizers import Tokenizer as Backend

    if not isinstance(tokenizer, BPETokenizer):
        return False, False
    ids = Backend.from_str(tokenizer.to_json()).encode("a").ids
    special = tokenizer.special_ids
    return bool(ids) and ids[0] == special.get("bos"), len(ids) > 1 and ids[-1] == special.get("eos")


def _padded(tables: TokenTables, vocab: int) -> TokenTables:
    rows = range(len(tables.tokens), vocab)
    scores = [*tables.scores, *(min(tables.scores) for _ in rows)] if tables.scores else ()
    return TokenTables(
        tables.kind,
        [*tables.tokens, *map(padding, rows)],
        [*tables.types, *(TokenType.UNUSED for _ in rows)],
        tables.pre,
        tables.merges,
        scores,
        tables.space_prefix,
        tables.collapse,
        tables.charsmap,
    )


def _listed(state: Mapping[str, Any], vocab: Mapping[str, int]) -> tuple[list[str], list[int]]:
    """Tokens by id with their types; an id that no token has is padding."""
    added = {token["id"]: token for token in state.get("added_tokens") or []}
    by_id = {number: token for token, number in vocab.items()} | {i: token["content"] for i, token in added.items()}
    numbers = range(max(by_id) + 1)
    types = {i: TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED for i, token in added.items()}
    kinds = [types.get(i, TokenType.NORMAL if i in by_id else TokenType.UNUSED) for i in numbers]
    return [by_id.get(i, padding(i)) for i in numbers], kinds


def _byte_level(state: Mapping[str, Any]) -> TokenTables:
    normalizer = state.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise AssetError(f"{_NOT_WRITTEN}: it changes text by {shown(normalizer.get('type'))} before it is cut.")
    pre = name_of(state)
    if pre is None:
        known = ", ".join(PRE_TOKENIZERS)
        raise AssetError(f"{_NOT_WRITTEN}: it cuts text as none of these does: {known}.")
    model = state["model"]
    tokens, types = _listed(state, model["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return TokenTables("gpt2", tokens, types, pre, merges)


def _sentence_piece(state: Mapping[str, Any]) -> TokenTables:
    model, prefix, collapse, charsmap = state["model"], *_spaces(state)
    unigram = model["type"] == "Unigram"
    vocab = {token: i for i, (token, _) in enumerate(model["vocab"])} if unigram else model["vocab"]
    tokens, types = _listed(state, vocab)
    unknown = model.get("unk_id") if unigram else vocab.get(model.get("unk_token"))
    if unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    if model.get("byte_fallback") and unigram:
        raise AssetError(f"{_NOT_WRITTEN}: llama.cpp's unigrams have no tokens of single bytes.")
    if model.get("byte_fallback"):
        for byte in range(256):
            if (number := vocab.get(f"<0x{byte:02X}>")) is not None:
                types[number] = TokenType.BYTE
    if unigram:
        stated = [score for _, score in model["vocab"]]
        scores = [*stated, *[0.0] * (len(tokens) - len(stated))]
        return TokenTables("t5", tokens, types, "default", (), scores, prefix, collapse, charsmap)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    scores = [-float(ranks.get(token, len(ranks) + i)) for i, token in enumerate(tokens)]
    return TokenTables("llama", tokens, types, "default", (), scores, prefix)


def _spaces(state: Mapping[str, Any]) -> tuple[bool, bool, bytes]:
    """Whether a space is put before a text, whether spaces are dropped, and the table of characters.

    Raises:
        AssetError: The tokenizer treats text in another way than SentencePiece.
    """
    from base64 import b64decode

    prefix = collapse = False
    charsmap = b""
    for step in _steps(state.get("normalizer"), "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                pass
            case {"type": "Replace", "pattern": {"Regex": r" {2,}" | r"\A +| +\z"}} | {"type": "Strip"}:
                collapse = True
            case {"type": "Precompiled", "precompiled_charsmap": table}:
                charsmap = b64decode(table or "")
            case _:
                raise AssetError(f"{_NOT_WRITTEN}: it changes text by {shown(step.get('type'))} before it is cut.")
    for step in _steps(state.get("pre_tokenizer"), "pretokenizers"):
        match step:
            case {"type": "Metaspace", "replacement": "\u2581"}:
                prefix = prefix or step.get("prepend_scheme", "always") != "never"
            case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
                pass
            case {"type": "Split", "behavior": "Isolated"} if state["model"]["type"] == "Unigram":
                pass  # as tokenizers from tables have it, so that no text becomes a special token
            case _:
                raise AssetError(
                    f"{_NOT_WRITTEN}: it cuts text by {shown(step.get('type'))}, as no SentencePiece does."
                )
    return prefix, collapse, charsmap


def _steps(stated: Any, several: str) -> list[Mapping[str, Any]]:
    if stated is None:
        return []
    return list(stated[several]) if stated.get("type") == "Sequence" else [stated]
