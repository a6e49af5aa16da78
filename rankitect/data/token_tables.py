"""Tokenizers as the tables that GGUF files carry, and tokenizers made from such tables.

There are three kinds, which llama.cpp names by models: "gpt2" is byte-level byte-pair encoding with a list of merges,
"llama" SentencePiece's byte-pair encoding, where the score of what a merge gives says which comes first, and "t5"
SentencePiece's unigrams, where the sum of scores is maximised. SentencePiece reads and writes spaces as U+2581.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal

from rankitect.data.guard import guarded
from rankitect.data.pre_tokenizers import spelled
from rankitect.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer, byte_level_bpe
from rankitect.errors import AssetError, shown

if TYPE_CHECKING:
    import tokenizers

__all__ = ["KINDS", "SPACE", "TokenTables", "TokenType", "padding", "tokenizer_from"]

KINDS = ("gpt2", "llama", "t5")
SPACE = "\u2581"
_NEVER = -1e9
"""A score so low that a piece which no text may become is not chosen where there is another."""


class TokenType:
    """The numbers of the types of tokens."""

    NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
    ALL = range(1, 7)


@dataclass(frozen=True)
class TokenTables:
    """A tokenizer as GGUF files carry it.

    Attributes:
        kind: One of `KINDS`.
        tokens: Their texts by id; of the kind "gpt2" in the byte-level alphabet.
        types: Their types (`TokenType`).
        pre: Of the kind "gpt2", how text is cut: a key of `pre_tokenizers.PRE_TOKENIZERS`.
        merges: Of the kind "gpt2", in order of priority, each ``"left right"``.
        scores: Of the other kinds, one for each token; higher is better.
        space_prefix: Of the other kinds, whether a text is read as if it began with a space.
        collapse: Of the kind "t5", whether spaces at the ends and beyond the first of several are dropped.
        charsmap: Of the kind "t5", the table by which SentencePiece replaces characters; empty for none.
    """

    kind: Literal["gpt2", "llama", "t5"]
    tokens: Sequence[str]
    types: Sequence[int]
    pre: str = ""
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    space_prefix: bool = False
    collapse: bool = False
    charsmap: bytes = b""


def padding(number: int) -> str:
    """The text of a token that stands for a row of the embedding which no token of the tokenizer has."""
    return f"[PAD{number}]"


def tokenizer_from(
    tables: TokenTables,
    source: str,
    special_ids: Mapping[str, int] | None = None,
    chat_template: str | None = None,
) -> Tokenizer:
    """The tokenizer of some tables; rows that are padding (`padding`) at their end are no tokens of it.

    Args:
        tables: The tables.
        source: The file, for errors.
        special_ids: Token id by role, see `Tokenizer.special_ids`.
        chat_template: Kept to be saved again.

    Raises:
        AssetError: The tables contradict each other, or need what is not supported.
    """
    count = len(tables.tokens)
    while count and tables.types[count - 1] == TokenType.UNUSED and tables.tokens[count - 1] == padding(count - 1):
        count -= 1
    tokens, types, scores = list(tables.tokens[:count]), tables.types[:count], tables.scores[:count]
    wrong = [(role, i) for role, i in (special_ids or {}).items() if not 0 <= i < count]
    if wrong:
        raise AssetError(f"{source}: the id of its token {wrong[0][0]!r} is {wrong[0][1]}; it has {count} tokens.")
    control = [i for i, kind in enumerate(types) if kind == TokenType.CONTROL]
    added = [i for i, kind in enumerate(types) if kind == TokenType.USER_DEFINED]
    if tables.kind == "gpt2":
        merges = [merge for merge in tables.merges if merge]  # no file can hold a list of nothing
        only_bytes = not merges and not control and not special_ids and tables.pre == "gpt-2"
        if only_bytes and tokens == [spelled()[byte] for byte in range(256)]:
            return ByteTokenizer()
        return byte_level_bpe(
            tokens,
            merges,
            pre=tables.pre,
            source=source,
            control_ids=control,
            added_ids=added,
            special_ids=special_ids,
            chat_template=chat_template,
        )
    _check(tokens, scores, source)
    make = _sentence_bpe if tables.kind == "llama" else _unigram
    with guarded(f"{source}: its tables make no tokenizer"):
        backend = make(tokens, types, scores, tables)
    return BPETokenizer(_with_added(backend, tokens, control, added), special_ids, chat_template, source)


def _check(tokens: Sequence[str], scores: Sequence[float], source: str) -> None:
    """Check what the library would not.

    Raises:
        AssetError: A token is there twice or is empty, or a score is missing or is no number.
    """
    if len(set(tokens)) < len(tokens):
        raise AssetError(f"{source}: the token table names {len(tokens) - len(set(tokens))} tokens twice.")
    if "" in tokens:
        raise AssetError(f"{source}: token {tokens.index('')} of the token table is empty.")
    if len(scores) != len(tokens):
        raise AssetError(f"{source}: it has {len(tokens)} tokens and {len(scores)} scores.")
    wrong = next((i for i, score in enumerate(scores) if not isfinite(score)), None)
    if wrong is not None:
        raise AssetError(f"{source}: the score of token {wrong} ({shown(tokens[wrong])}) is {scores[wrong]}.")


def _sentence_bpe(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], tables: TokenTables
) -> tokenizers.Tokenizer:
    """SentencePiece's byte-pair encoding, with merges in the order in which `transformers` puts them."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    unknown = _unknown(tokens, types)
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=_merges(tokens, types, scores),
        unk_token=unknown,
        fuse_unk=unknown is not None,
        byte_fallback=TokenType.BYTE in types,
    )
    return _spaced(Backend(model), tables)


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, those of the highest score first."""
    merged = {TokenType.NORMAL, TokenType.USER_DEFINED}
    ids = {token: i for i, token in enumerate(tokens) if types[i] in merged}
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, i in ids.items():
        ways = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = sorted((way for way in ways if way[0] in ids and way[1] in ids), key=lambda w: (ids[w[0]], ids[w[1]]))
        ranked += [(scores[i], len(left), len(right), left, right) for left, right in known]
    ranked.sort(key=lambda way: way[:3], reverse=True)
    return [(left, right) for *_, left, right in ranked]


def _unigram(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], tables: TokenTables
) -> tokenizers.Tokenizer:
    """SentencePiece's unigrams."""
    from tokenizers import Regex, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    unknown = _unknown(tokens, types)
    of_text = {TokenType.NORMAL, TokenType.USER_DEFINED}
    pieces = [
        (token, score if kind in of_text else _NEVER) for token, kind, score in zip(tokens, types, scores, strict=True)
    ]
    model = models.Unigram(
        pieces,
        unk_id=None if unknown is None else tokens.index(unknown),
        byte_fallback=TokenType.BYTE in types,
    )
    backend = _spaced(Backend(model), tables)
    hidden = [token for token, kind in zip(tokens, types, strict=True) if kind not in of_text and len(token) > 1]
    if hidden:  # cut behind their first character, so that no text that spells one becomes it
        cuts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in hidden)
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(cuts), "isolated")
    return backend


def _unknown(tokens: Sequence[str], types: Sequence[int]) -> str | None:
    """The token of characters that have none; None where there is none of its type."""
    return next((token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.UNKNOWN), None)


def _spaced(backend: tokenizers.Tokenizer, tables: TokenTables) -> tokenizers.Tokenizer:
    """With SentencePiece's treatment of spaces, and of characters that its table replaces."""
    from tokenizers import Regex, decoders, normalizers

    steps: list[normalizers.Normalizer] = []
    if tables.charsmap:
        steps.append(normalizers.Precompiled(tables.charsmap))
    if tables.collapse:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if tables.space_prefix:
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if tables.space_prefix:
        back.append(decoders.Strip(content=" ", left=1, right=0))
    backend.decoder = decoders.Sequence(back)
    return backend


def _with_added(
    backend: tokenizers.Tokenizer, tokens: Sequence[str], control: Sequence[int], added: Sequence[int]
) -> tokenizers.Tokenizer:
    """With tokens that text is searched for before it is cut. Those with spaces are made by merges, as others are."""
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i in control])
    plain = [tokens[i] for i in added if SPACE not in tokens[i]]
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return backend
