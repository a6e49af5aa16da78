"""Exchanges with a label: what a guard model judges, and how they are divided."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankitect.errors import DataError, safe, short

__all__ = ["FEWEST", "SHARES", "Exchange", "divided", "exchanges_fingerprint", "require_classes"]

SHARES: Mapping[str, float] = {"train": 0.6, "search": 0.15, "test": 0.25}
"""Share of the exchanges of each split. "search" is the validation split: thresholds are chosen on it."""
FEWEST = 2
"""Exchanges of each label that a split must have: fewer tell nothing."""


@dataclass(frozen=True)
class Exchange:
    """What was said, and whether it is unsafe.

    Attributes:
        place: File and row, for messages.
        prompt: What the user asks.
        response: What was answered; empty where the prompt alone is judged.
        unsafe: The label.
        category: Kind of harm; empty where it is not known.
        source: Where it is from; figures are given for each source.
        group: Exchanges of one group are alike and stand on the same side of a split; empty: those of one prompt.
    """

    place: str
    prompt: str
    response: str
    unsafe: bool
    category: str = ""
    source: str = ""
    group: str = ""

    @property
    def cluster(self) -> str:
        """What names its group."""
        return self.group or self.prompt

    @property
    def text(self) -> str:
        """Prompt and response, for methods without a template."""
        return f"{self.prompt}\n\n{self.response}" if self.response else self.prompt


def exchanges_fingerprint(splits: Mapping[str, Sequence[Exchange]]) -> str:
    """SHA-256 of what is judged, the labels, and how it is divided."""
    digest = hashlib.sha256()
    for name, exchanges in splits.items():
        digest.update(f"{name}\n".encode())
        for one in exchanges:
            digest.update(json.dumps([one.prompt, one.response, one.unsafe, one.category, one.source]).encode())
    return digest.hexdigest()


def divided(exchanges: Sequence[Exchange], seed: int) -> dict[str, list[Exchange]]:
    """The exchanges of each split (`SHARES`), in the order in which they are given.

    Every source is divided by itself, whole groups at a time, in an order that the seed decides.

    Args:
        exchanges: All.
        seed: Of the division.

    Raises:
        DataError: A split has too few exchanges of a label.
    """
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for one in exchanges:
        sizes[one.source][one.cluster] += 1
    split_of: dict[str, str] = {}
    for source in sorted(sizes):
        total, taken = sum(sizes[source].values()), dict.fromkeys(SHARES, 0)
        for cluster in sorted(sizes[source], key=lambda name: _number(seed, name)):
            size = sizes[source][cluster]
            if cluster in split_of:  # a prompt that another source has, too
                taken[split_of[cluster]] += size
                continue
            split = max(SHARES, key=lambda name: SHARES[name] * total - taken[name])
            split_of[cluster] = split
            taken[split] += size
    splits: dict[str, list[Exchange]] = {name: [] for name in SHARES}
    for one in exchanges:
        splits[split_of[one.cluster]].append(one)
    require_classes(splits)
    return splits


def _number(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogatepass")).digest()


def require_classes(splits: Mapping[str, Sequence[Exchange]]) -> None:
    """Refuse data whose labels are of one class, as a whole or in a split.

    Raises:
        DataError: They are; says how many there are of each.
    """
    counts = {name: Counter(one.unsafe for one in exchanges) for name, exchanges in splits.items()}
    total = sum(counts.values(), Counter[bool]())
    if not total[True] or not total[False]:
        label, there = ("safe", "unsafe") if total[True] else ("unsafe", "safe")
        raise DataError(
            f"All {total.total():,} labels are {there}: a guard is trained and judged on both. Add exchanges that are "
            f"{label}."
        )
    for name, count in counts.items():
        if min(count[True], count[False]) < FEWEST:
            raise DataError(
                f"The {'validation' if name == 'search' else name} split has {count[True]:,} unsafe and "
                f"{count[False]:,} safe exchanges, and at least {FEWEST} of each are needed: give more exchanges, or "
                "more different prompts (those of one prompt stay together)."
            )


def told(text: str) -> str:
    """A value from a file as messages show it."""
    return short(safe(repr(text)), 40)
