"""Tokenised text in a memory-mapped cache: made once for a (text, tokenizer, seed), then shared by all processes.

A cache entry is a folder `<key>/` with one raw file of token ids a split, the document boundaries, and `meta.json`.
It is written beside its place and renamed into it, so an entry either is complete or is not there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.data.assets import cache_root
from rankitect.data.document import Document, TextSource
from rankitect.data.splits import SHARES, assign_splits
from rankitect.documents import read_json
from rankitect.errors import DataError

__all__ = ["Encoder", "SplitTokens", "TokenizedText", "tokenize"]

_FORMAT = 2  # part of every key: raise it when the meaning of the files, or the way documents are split, changes
_GROUP = 256  # documents encoded at once


class Encoder(Protocol):
    """The part of `rankitect.data.tokenizer.Tokenizer` that tokenising a corpus needs."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of whatever decides the ids."""

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, [n]."""

    def encode_markup(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The same for texts in which special tokens stand for themselves; asked for such documents only."""


@dataclass(frozen=True, eq=False)
class SplitTokens:
    """The tokens of one split: its documents one after the other.

    Attributes:
        name: the split.
        ids: token ids, [tokens], memory-mapped, read-only.
        documents: ids of the documents, in the order of their tokens.
        token_offsets: where each document starts and the last one ends, in tokens, [documents + 1].
        byte_offsets: the same places in bytes of UTF-8, [documents + 1].
        begin: the token that every window begins with, in place of the one before it; None: that one.
    """

    name: str
    ids: NDArray[Any]
    documents: tuple[str, ...]
    token_offsets: NDArray[np.int64]
    byte_offsets: NDArray[np.int64]
    begin: int | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.token_offsets[-1])

    @property
    def bytes(self) -> int:
        """Bytes of the text in UTF-8."""
        return int(self.byte_offsets[-1])

    def windows(self, context: int) -> int:
        """Number of non-overlapping windows that predict `context` tokens each (and read the one before them)."""
        return max(0, (self.tokens - 1) // context)

    def read(self, windows: NDArray[np.int64], context: int) -> NDArray[np.int64]:
        """Token ids of windows, [len(windows), context + 1]; the last `context` of each are to be predicted."""
        places = np.asarray(windows, dtype=np.int64)[:, None] * context + np.arange(context + 1)
        read: NDArray[np.int64] = self.ids[places].astype(np.int64)
        if self.begin is not None:
            read[:, 0] = self.begin
        return read

    def bytes_between(self, start: int, stop: int) -> float:
        """Bytes of the text of tokens start..stop-1: exact at document boundaries, in proportion inside a document."""
        low, high = np.interp([start, stop], self.token_offsets, self.byte_offsets)
        return float(high - low)

    def document_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of the document that holds each token position."""
        return np.searchsorted(self.token_offsets, positions, side="right").astype(np.int64) - 1


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """A tokenised text with its splits.

    Attributes:
        name: the source's name.
        fingerprint: SHA-256 over content, tokenizer, seed and shares; names the cache entry.
        content: SHA-256 of the documents alone.
        vocab_size: of the tokenizer.
        splits: by name.
        folder: the cache entry.
    """

    name: str
    fingerprint: str
    content: str
    vocab_size: int
    splits: Mapping[str, SplitTokens]
    folder: Path

    def split(self, name: str) -> SplitTokens:
        """The split of that name.

        Raises:
            DataError: when there is none.
        """
        if name not in self.splits:
            raise DataError(f"The text {self.name!r} has no split {name!r}; it has {', '.join(self.splits)}.")
        return self.splits[name]

    def beginning_with(self, begin: int | None) -> TokenizedText:
        """The same text, whose windows begin with a token; itself where that is None.

        Raises:
            DataError: when the vocabulary has no such token.
        """
        if begin is None:
            return self
        if not 0 <= begin < self.vocab_size:
            raise DataError(f"The first token, {begin}, is not in the vocabulary of {self.vocab_size:,} tokens.")
        # What is kept of a text is known by its fingerprint, and depends on what its windows begin with.
        fingerprint = hashlib.sha256(f"{self.fingerprint} begins with {begin}".encode()).hexdigest()
        splits = {name: replace(split, begin=begin) for name, split in self.splits.items()}
        return replace(self, fingerprint=fingerprint, splits=splits)


def tokenize(
    source: TextSource,
    tokenizer: Encoder,
    *,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    cache: Path | None = None,
) -> TokenizedText:
    """Splits and tokenises a text, or opens the cache entry where that was done before.

    Args:
        source: the documents; read once to find the key, and once more when the entry has to be made.
        tokenizer: see `Encoder`.
        seed: of the division into splits.
        shares: share of the bytes of each split.
        cache: folder of the entries; by default `tokens` in `cache_root()`.

    Raises:
        DataError: for a text that cannot be read or split, token ids outside the vocabulary, or a cache folder that
            is full or cannot be written.
    """
    assigned, content = assign_splits(source, seed=seed, shares=shares)
    described = {
        "format": _FORMAT,
        "content": content,
        "tokenizer": tokenizer.fingerprint,
        "seed": seed,
        "shares": dict(shares),
    }
    # Everything that the ids depend on is in the key, so that an entry is never wrong, only absent.
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    root = cache_root() / "tokens" if cache is None else cache
    folder = root / key[:32]
    if not _complete(folder):
        try:
            _make(folder, source, tokenizer, assigned, list(shares), described)
        except OSError as error:
            raise DataError(
                f"The tokenised text cannot be kept in {root} ({error.strerror or error}): free some space, or set "
                "RANKITECT_CACHE to a folder that can be written."
            ) from error
    return _open(folder, source.name, key, tokenizer.vocab_size)


def _make(
    folder: Path,
    source: TextSource,
    tokenizer: Encoder,
    assigned: Mapping[str, str],
    splits: list[str],
    described: Mapping[str, object],
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}-", dir=folder.parent))
    try:
        _write(work, source, tokenizer, assigned, splits, described)
        _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(
    work: Path,
    source: TextSource,
    tokenizer: Encoder,
    assigned: Mapping[str, str],
    splits: list[str],
    described: Mapping[str, object],
) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    documents: dict[str, list[str]] = {split: [] for split in splits}
    offsets: dict[str, list[tuple[int, int]]] = {split: [(0, 0)] for split in splits}
    files = {split: (work / f"{split}.ids").open("wb") for split in splits}
    try:
        for document, ids in _encoded(source, tokenizer):
            if document.id not in assigned:
                raise DataError(
                    f"The text {source.name!r} changed while it was read (new document {document.id!r}): run again."
                )
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
                raise DataError(
                    f"Document {document.id!r}: the tokenizer gave id {int(ids.max())}, but its vocabulary has "
                    f"{tokenizer.vocab_size} ids."
                )
            split = assigned[document.id]
            files[split].write(ids.astype(dtype).tobytes())
            tokens, size = offsets[split][-1]
            offsets[split].append((tokens + len(ids), size + len(document.text.encode())))
            documents[split].append(document.id)
    finally:
        for file in files.values():
            file.close()
    for split in splits:
        np.asarray(offsets[split], dtype="<i8").tofile(work / f"{split}.offsets")
    sizes = {path.name: path.stat().st_size for path in sorted(work.iterdir())}
    meta = {**described, "dtype": dtype.str, "documents": documents, "sizes": sizes}
    (work / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _encoded(source: Iterable[Document], tokenizer: Encoder) -> Iterator[tuple[Document, NDArray[np.int32]]]:
    documents = iter(source)
    while group := list(islice(documents, _GROUP)):
        marked = [document for document in group if document.markup]
        plain = iter(tokenizer.encode_batch([document.text for document in group if not document.markup]))
        with_markup = iter(tokenizer.encode_markup([document.text for document in marked]) if marked else ())
        for document in group:
            yield document, np.asarray(next(with_markup if document.markup else plain))


def _publish(work: Path, folder: Path) -> None:
    """Renames a finished entry into its place, where a faster process's or a damaged entry may be."""
    try:
        work.rename(folder)
    except OSError:
        if _complete(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)


def _complete(folder: Path) -> bool:
    try:
        sizes: dict[str, int] = read_json(folder / "meta.json", dict[str, Any])["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _open(folder: Path, name: str, key: str, vocab_size: int) -> TokenizedText:
    meta = read_json(folder / "meta.json", dict[str, Any])
    splits = {}
    for split, documents in meta["documents"].items():
        offsets = np.fromfile(folder / f"{split}.offsets", dtype="<i8").reshape(-1, 2)
        path = folder / f"{split}.ids"
        empty = path.stat().st_size == 0  # which memmap refuses
        ids = np.empty(0, meta["dtype"]) if empty else np.memmap(path, dtype=meta["dtype"], mode="r")
        splits[split] = SplitTokens(split, ids, tuple(documents), offsets[:, 0].copy(), offsets[:, 1].copy())
    return TokenizedText(name, key, meta["content"], vocab_size, splits, folder)
