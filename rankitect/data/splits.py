"""Which document goes to which split: whole documents, near-copies kept together, shares by bytes, the same for a seed.

Bytes and not tokens decide, so that two tokenizers (and so two backbones) are compared on the same held-out text.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rankitect.data.document import Document
from rankitect.errors import DataError

__all__ = ["SHARES", "SPLITS", "assign_splits"]

SPLITS = ("train", "calibration", "search", "test")
SHARES: Mapping[str, float] = MappingProxyType({"train": 0.70, "calibration": 0.05, "search": 0.10, "test": 0.15})

_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_SHORT = 60  # bytes; shorter paragraphs ("Examples:") are shared by chance
_DOMINATES = 1 / 3  # of a split's size; larger groups go where there is most room, the training text
_COPIED = 0.3  # two documents are near-copies when they share this much of the smaller one


def assign_splits(
    documents: Iterable[Document], *, seed: int = 0, shares: Mapping[str, float] = SHARES
) -> tuple[dict[str, str], str]:
    """Assigns every document to a split.

    Documents that repeat each other (identical text, or at least 30% of the smaller one's bytes in common paragraphs,
    as when a chapter contains its sections) count as one and go to the same split; otherwise the test split would
    hold text that was trained on.

    Args:
        documents: read once, in order; only hashes of their paragraphs are kept.
        seed: another seed gives another division.
        shares: share of the bytes of each split; they are scaled to sum to 1.

    Returns:
        The split of each document id, and the SHA-256 of the whole content (ids and texts, in order).

    Raises:
        DataError: when two documents have one id, or there are fewer independent documents than splits.
    """
    if not shares or min(shares.values()) <= 0:
        raise DataError(f"The shares of the splits must be positive, found {dict(shares)}.")
    sizes, parents, content = _read(documents)
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(_root(parents, name), []).append(name)
    if len(groups) < len(shares):
        raise DataError(
            f"The text has {len(sizes)} document(s), of which {len(groups)} independent (near-copies count once), "
            f"but {len(shares)} splits ({', '.join(shares)}) need at least one each: give more documents, or one long "
            "text file (which is cut into pieces)."
        )
    weights = {root: sum(sizes[name] for name in members) for root, members in groups.items()}
    chosen = _divide(weights, seed, shares)
    return {name: chosen[root] for root, members in groups.items() for name in members}, content


def _read(documents: Iterable[Document]) -> tuple[dict[str, int], dict[str, str], str]:
    """Sizes in bytes, union-find parents over near-copies, and the content's hash."""
    sizes: dict[str, int] = {}
    parents: dict[str, str] = {}
    owner: dict[bytes, str] = {}  # the first document with a paragraph stands for all that have it
    content = hashlib.sha256()
    for document in documents:
        if document.id in sizes:
            raise DataError(f"Two documents have the same id {document.id!r}: ids must be unique within a source.")
        data = document.text.encode()
        sizes[document.id], parents[document.id] = len(data), document.id
        for part in (document.id.encode(), data, *([b"markup"] if document.markup else [])):
            content.update(len(part).to_bytes(8, "little") + part)
        shared: Counter[str] = Counter()
        text = document.text if document.own is None else document.own
        for paragraph in [text, *_PARAGRAPH.split(text)]:
            normal = " ".join(paragraph.split()).encode()
            whole = paragraph is text
            if len(normal) < _SHORT and not whole:
                continue
            first = owner.setdefault(hashlib.blake2b(normal, digest_size=12).digest(), document.id)
            if first != document.id:
                shared[first] += len(data) if whole else len(normal)
        for other, common in shared.items():
            if common >= _COPIED * min(len(data), sizes[other]):
                parents[_root(parents, document.id)] = _root(parents, other)
    return sizes, parents, content.hexdigest()


def _root(parents: dict[str, str], name: str) -> str:
    while parents[name] != name:
        parents[name] = parents[parents[name]]
        name = parents[name]
    return name


def _divide(weights: Mapping[str, int], seed: int, shares: Mapping[str, float]) -> dict[str, str]:
    """Largest group first, into a split with room for it, drawn in proportion to the room by the group's hash."""
    total = sum(shares.values())
    room = {split: share / total * sum(weights.values()) for split, share in shares.items()}
    # No chapter may dominate a small split: an estimate from few documents is worth little.
    largest = {split: _DOMINATES * size for split, size in room.items()}
    chosen: dict[str, str] = {}
    draws = {name: int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:13], 16) / 16**13 for name in weights}
    for name in sorted(weights, key=lambda name: (-weights[name], draws[name], name)):
        fitting = [split for split in shares if weights[name] <= min(room[split], largest[split])]
        split = max(shares, key=lambda split: room[split])
        point = draws[name] * sum(room[split] for split in fitting)
        for split in fitting:
            point -= room[split]
            if point < 0:
                break
        chosen[name] = split
        room[split] -= weights[name]
    for split in shares:  # with few documents a small split may stay empty: give it the smallest that can be spared
        counts = Counter(chosen.values())
        if not counts[split]:
            spare = [name for name in weights if counts[chosen[name]] > 1]
            chosen[min(spare, key=lambda name: (weights[name], draws[name], name))] = split
    return chosen
