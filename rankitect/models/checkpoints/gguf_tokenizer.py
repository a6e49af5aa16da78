"""The tokenizer of a GGUF file: its keys as tables (`rankitect.data.token_tables`), and tables as its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from rankitect.data.token_tables import KINDS, TokenTables, TokenType, tokenizer_from
from rankitect.data.tokenizer import Tokenizer
from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.gguf_metadata import Metadata

__all__ = ["ROLES", "begins_by_default", "read_tokenizer", "tokenizer_keys"]

_PREFIX = "tokenizer.ggml."
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""What a special token's key is called, by role."""
_BEGINNING = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3", "tekken"})
"""The ways of cutting text whose models llama.cpp gives the begin token where a file does not say whether."""


def begins_by_default(kind: object, pre: object) -> bool:
    """Whether texts begin with the begin token where a file does not say so: as llama.cpp's `llama_vocab` has it.

    Args:
        kind: The value of `tokenizer.ggml.model`.
        pre: The value of `tokenizer.ggml.pre`, or None.
    """
    return kind == "llama" or (kind == "gpt2" and isinstance(pre, str) and pre in _BEGINNING)


def read_tokenizer(metadata: Metadata, vocab: int) -> Tokenizer:
    """The tokenizer that a file's keys describe.

    Args:
        metadata: The file's keys.
        vocab: Rows of the embedding.

    Raises:
        AssetError: It is of an unsupported kind, or a key is missing, or keys contradict each other.
    """
    path = metadata.path
    kind = metadata.get(f"{_PREFIX}model", str)
    if kind not in KINDS:
        raise AssetError(
            f"{path}: its tokenizer is of kind {shown(kind)}. Supported: 'gpt2' (byte-level BPE), 'llama' and 't5' "
            "(SentencePiece). Use the model's Hugging Face folder, whose tokenizer.json may be of any kind."
        )
    tokens = metadata.all(f"{_PREFIX}tokens", str)
    if not tokens:
        raise AssetError(f"{path}: the GGUF metadata holds no {_PREFIX}tokens.")
    if len(tokens) > vocab:
        raise AssetError(f"{path}: the tokenizer has {len(tokens)} tokens, but the embedding has only {vocab} rows.")
    types = metadata.all(f"{_PREFIX}token_type", int) or [TokenType.NORMAL] * len(tokens)
    if len(types) != len(tokens) or not set(types) <= set(TokenType.ALL):
        raise AssetError(f"{path}: {_PREFIX}token_type must hold a type from 1 to 6 for each token.")
    read = _byte_level if kind == "gpt2" else _sentence_piece
    tables = read(metadata, kind, tokens, types)
    special = {
        role: metadata.get(f"{_PREFIX}{key}_token_id", int)
        for role, key in ROLES.items()
        if f"{_PREFIX}{key}_token_id" in metadata.values
    }
    return tokenizer_from(tables, str(path), special, metadata.get("tokenizer.chat_template", str, "") or None)


def _byte_level(metadata: Metadata, kind: str, tokens: list[str], types: list[int]) -> TokenTables:
    merges = metadata.all(f"{_PREFIX}merges", str)
    if merges is None:
        raise AssetError(f"{metadata.path}: the GGUF metadata holds no {_PREFIX}merges.")
    # files that do not say how text is cut were made before that was known
    return TokenTables("gpt2", tokens, types, metadata.get(f"{_PREFIX}pre", str), merges)


def _sentence_piece(metadata: Metadata, kind: str, tokens: list[str], types: list[int]) -> TokenTables:
    scores = metadata.all(f"{_PREFIX}scores", float)
    if scores is None:
        raise AssetError(f"{metadata.path}: the GGUF metadata holds no {_PREFIX}scores.")
    charsmap = metadata.values.get(f"{_PREFIX}precompiled_charsmap") or []
    if not isinstance(charsmap, list) or not all(type(byte) is int and -128 <= byte < 256 for byte in charsmap):
        raise AssetError(f"{metadata.path}: {_PREFIX}precompiled_charsmap must hold bytes.")
    return TokenTables(
        cast(Any, kind),
        tokens,
        types,
        scores=scores,
        space_prefix=metadata.get(f"{_PREFIX}add_space_prefix", bool, default=True),
        collapse=metadata.get(f"{_PREFIX}remove_extra_whitespaces", bool, default=False),
        charsmap=bytes(byte & 0xFF for byte in charsmap),
    )


def tokenizer_keys(tables: TokenTables) -> Iterator[tuple[str, Any]]:
    """The keys of a file that carry tables, each with its value."""
    yield f"{_PREFIX}model", tables.kind
    yield f"{_PREFIX}pre", tables.pre
    yield f"{_PREFIX}tokens", list(tables.tokens)
    yield f"{_PREFIX}token_type", list(tables.types)
    if tables.kind == "gpt2":
        yield f"{_PREFIX}merges", list(tables.merges) or [""]  # no file can hold a list of nothing
        return
    if TokenType.UNKNOWN in tables.types:  # llama.cpp takes others by default
        yield f"{_PREFIX}unknown_token_id", list(tables.types).index(TokenType.UNKNOWN)
    yield f"{_PREFIX}scores", list(tables.scores)
    yield f"{_PREFIX}add_space_prefix", tables.space_prefix
    if tables.kind == "t5":
        yield f"{_PREFIX}remove_extra_whitespaces", tables.collapse
        if tables.charsmap:
            yield f"{_PREFIX}precompiled_charsmap", tables.charsmap
