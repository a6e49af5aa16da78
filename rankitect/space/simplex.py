"""Choices of integer parts that sum to a total: the weights of a mixture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, pairwise
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.atoms import MemberParts
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.expr import Expr, as_expr
from rankitect.space.names import check_name, nearest, shown
from rankitect.space.values import MAX_VALUES, listed_values
from rankitect.space.whole import check_whole

__all__ = ["Simplex"]

MAX_MEMBERS, MAX_PARTS = 512, 1_000_000
"""Members of a simplex, and parts that are shared out."""


class Simplex(Choice):
    """A choice of how a total is shared out: its values are tuples of whole numbers that sum to `total`.

    One change shifts one part from a member to another. Values begin with the most even one.

    Args:
        path: The name, unique in a space.
        members: Names of the members, or how many there are.
        total: What the parts sum to; the finer the mixture, the larger.
        least: Parts that every member has at least.

    Attributes:
        members: Names of the members; their numbers where none were given.
        named: Whether names were given: a setting then gets a mapping from them, else a list.

    Raises:
        SpaceError: There are fewer than two members, a name appears twice, the parts do not suffice, or there are more
            than 4,096 ways to share them out.
    """

    def __init__(self, path: str, members: int | Sequence[str], total: int, least: int = 0) -> None:
        self.named = not isinstance(members, int)
        self.members = _members(path, members)
        check_whole(f"choice {path!r}: `total`", total, 1, MAX_PARTS)
        check_whole(f"choice {path!r}: `least`", least, 0, MAX_PARTS)
        self.total, self.least = total, least
        count, free = len(self.members), total - least * len(self.members)
        if free < 0:
            raise SpaceError(f"choice {path!r}: {total} parts cannot be shared out among {count} members, {least} each")
        ways = math.comb(free + count - 1, count - 1)
        if ways > MAX_VALUES:
            many = f"{ways:,}" if ways < 10**12 else f"over {10**12:,}"
            raise SpaceError(
                f"choice {path!r} would have {many} ways to share {total} parts out among {count} members, more than "
                f"{MAX_VALUES:,}: give a smaller `total` or a larger `least`"
            )
        values = [tuple(part + least for part in parts) for parts in _compositions(free, count)]
        values.sort(key=lambda parts: (sum(part * part for part in parts), [-part for part in parts]))
        super().__init__(path, values, kind="simplex")

    def part(self, member: int | str) -> Expr:
        """How many parts a member has, for rules: by its name or its number.

        Raises:
            SpaceError: There is no such member.
        """
        if isinstance(member, str) and member in self.members:
            member = self.members.index(member)
        if not isinstance(member, int) or isinstance(member, bool) or not 0 <= member < len(self.members):
            raise SpaceError(f"choice {self.path!r} has no member {shown(member)}{nearest(str(member), self.members)}")
        if len(self.values) == 1:
            return as_expr(self.least)  # then all members have as much
        return Expr({((MemberParts(self.path, member), 1),): 1})

    @property
    def allowed(self) -> str:
        """What a value must be, for a message."""
        members = shown(", ".join(self.members), 200)[1:-1]
        return f"{len(self.members)} whole numbers from {self.least} that sum to {self.total} ({members})"

    def neighbours(self, value: ChoiceValue) -> list[ChoiceValue]:
        """The values in which one part went from one member to another."""
        assert isinstance(value, tuple)
        members = range(len(value))
        shifts = [(giver, taker) for giver in members for taker in members if giver != taker]
        return [
            tuple(parts - (i == giver) + (i == taker) for i, parts in enumerate(value))
            for giver, taker in shifts
            if value[giver] > self.least
        ]

    def setting(self, value: ChoiceValue) -> dict[str, int] | list[int]:
        """The parts as a setting holds them: by name where the members have names, else in a list."""
        assert isinstance(value, tuple)
        return dict(zip(self.members, value, strict=True)) if self.named else list(value)

    def declaration(self) -> dict[str, Any]:
        """Plain JSON data from which the choice can be made again."""
        members = list(self.members) if self.named else len(self.members)
        return {"path": self.path, "kind": self.kind, "members": members, "total": self.total, "least": self.least}


def _members(path: str, members: Any) -> tuple[str, ...]:
    """The names of members, or their numbers."""
    if isinstance(members, int):
        check_whole(f"choice {path!r}: the number of members", members, 2, MAX_MEMBERS)
        return tuple(map(str, range(members)))
    names = listed_values(path, members)
    for name in names:
        check_name(f"a member of choice {path!r}", name)
    if not 2 <= len(names) <= MAX_MEMBERS or len(set(names)) != len(names):
        raise SpaceError(
            f"choice {path!r}: a simplex needs 2 to {MAX_MEMBERS} different members, not {shown(list(names))}"
        )
    return names


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `count` whole numbers from 0 that sum to `total`."""
    if total < count:  # each unit goes to a member
        for owners in combinations_with_replacement(range(count), total):
            held = Counter(owners)
            yield tuple(held[member] for member in range(count))
        return
    for bars in combinations(range(total + count - 1), count - 1):  # units in a row, cut by bars between the members
        ends = (-1, *bars, total + count - 1)
        yield tuple(end - start - 1 for start, end in pairwise(ends))
