"""Sequences that share their beginnings, as a forest of tokens in rows, for `rankitect.models.packed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from rankitect.data.continuations import Continuation

__all__ = ["Forest", "Row", "pack"]

ROW = 96
"""Tokens of a row, where no sequence is longer: attention takes the square of them, and rows share no beginnings."""
_OPEN = 4
"""Rows that are tried for the next group of sequences."""
_TRUNK = 16
"""What all sequences begin with is computed before all rows if it has so many tokens, and else in each row."""


@dataclass
class Row:
    """A forest: tokens in an order in which each comes after what it follows.

    The last token of a sequence is in it only where another sequence goes on from there: nothing is predicted from it.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    ends: list[tuple[int, tuple[tuple[int, int], ...]]] = field(default_factory=list)
    """For each sequence its number, and its predicted tokens, each with the node that it is predicted from."""

    def new(self, group: Sequence[tuple[int, Continuation]]) -> int:
        """How many tokens a group would add."""
        added: dict[tuple[int, int], int] = {}
        for _, one in group:
            node = -1
            for token in one.tokens[:-1]:
                child = self.children.get((node, token))
                node = added.setdefault((node, token), -2 - len(added)) if child is None else child
        return len(added)

    def add(self, group: Sequence[tuple[int, Continuation]]) -> None:
        """Put a group in."""
        for number, one in group:
            node, path = -1, []
            for depth, token in enumerate(one.tokens):
                if depth >= one.start:
                    path.append((node, token))
                if depth == len(one.tokens) - 1:
                    break
                child = self.children.get((node, token))
                if child is None:
                    child = self.children[node, token] = len(self.tokens)
                    self.tokens.append(token)
                    self.parents.append(node)
                node = child
            self.ends.append((number, tuple(path)))

    @property
    def chain(self) -> bool:
        """Whether each token follows the one before it."""
        return self.parents == list(range(-1, len(self.parents) - 1))

    def depths(self) -> NDArray[np.int64]:
        """How many tokens stand before each in its own sequence, [T]."""
        depths = np.zeros(len(self.tokens), np.int64)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                depths[i] = depths[parent] + 1
        return depths

    def seen(self) -> NDArray[np.bool_]:
        """Which tokens (last axis) each token follows, itself included, [T, T]."""
        seen = np.eye(len(self.tokens), dtype=np.bool_)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                seen[i] |= seen[parent]
        return seen


@dataclass(frozen=True, eq=False)
class Forest:
    """Continuations as they are packed into rows, for any number of models; made by `pack`.

    Attributes:
        count: Continuations.
        tokens: Tokens of the trunk and of all rows.
        groups: The continuations as they were given.
        trunk: Tokens that all continuations begin with, and that are in no row; nothing is predicted from them.
        rows: The rows, the longest first.
    """

    count: int
    tokens: int
    groups: tuple[tuple[Continuation, ...], ...]
    trunk: tuple[int, ...]
    rows: tuple[Row, ...]


def pack(groups: Sequence[Sequence[Continuation]], row: int = ROW, *, trunk: bool = True) -> Forest:
    """Pack continuations into rows.

    Args:
        groups: Continuations that begin alike, as the choices of a question do, together.
        row: Tokens of a row beyond what all groups begin with; one that holds a longer group has that group's.
        trunk: Whether what all begin with may be put before all rows: then it is computed once, and cached.
    """
    numbered, count = [], 0
    for group in groups:
        numbered.append([(count + i, one) for i, one in enumerate(group)])
        count += len(group)
    # In the order of their tokens, groups with a long beginning in common come one after the other.
    ordered = sorted((g for g in numbered if g), key=lambda g: g[0][1].tokens)
    common = _common(ordered)
    beginning = ordered[0][0][1].tokens[:common] if trunk and common >= _TRUNK else ()
    if beginning:  # answered examples before each question, say
        ordered = [[(number, _without(one, common)) for number, one in group] for group in ordered]
    rows = _rows(ordered, row if beginning else row + common)
    whole = tuple(tuple(group) for group in groups)
    return Forest(count, len(beginning) + sum(len(r.tokens) for r in rows), whole, beginning, tuple(rows))


def _common(ordered: Sequence[Sequence[tuple[int, Continuation]]]) -> int:
    """How many tokens all continuations begin with, of those before the one that the first prediction is from."""
    every = [one for group in ordered for _, one in group]
    if not every:
        return 0
    first, last = min(one.tokens for one in every), max(one.tokens for one in every)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(same, *(one.start - 1 for one in every))


def _without(one: Continuation, common: int) -> Continuation:
    return Continuation(one.tokens[common:], one.start - common)


def _rows(ordered: Sequence[Sequence[tuple[int, Continuation]]], row: int) -> list[Row]:
    """Groups in rows of at most so many tokens, or of one group; the longest row first."""
    rows: list[Row] = []
    opened: list[Row] = []
    for numbers in ordered:
        fits = [(size, i) for i, r in enumerate(opened) if len(r.tokens) + (size := r.new(numbers)) <= row]
        if fits:
            _, best = min(fits, key=lambda fit: (fit[0], -len(opened[fit[1]].tokens)))
            opened[best].add(numbers)
            continue
        if len(opened) == _OPEN:
            opened.remove(max(opened, key=lambda r: len(r.tokens)))
        opened.append(Row())
        opened[-1].add(numbers)
        rows.append(opened[-1])
    rows.sort(key=lambda r: -len(r.tokens))
    return rows
