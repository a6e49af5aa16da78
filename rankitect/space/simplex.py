"""Choices of integer parts that sum to a total: the weights of a mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.atoms import Part
from rankitect.space.choices import MAX_SUBSETS, Choice, ChoiceValue
from rankitect.space.expr import Expr, as_expr
from rankitect.space.names import nearest

__all__ = ["Simplex"]


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
        self.members = tuple(map(str, range(members))) if isinstance(members, int) else tuple(members)
        self.total, self.least = total, least
        count, free = len(self.members), total - least * len(self.members)
        if count < 2 or len(set(self.members)) != count:
            raise SpaceError(f"choice {path!r}: a simplex needs at least two different members, not {members!r}")
        if total < 1 or least < 0 or free < 0:
            raise SpaceError(f"choice {path!r}: {total} parts cannot be shared out among {count} members, {least} each")
        ways = math.comb(free + count - 1, count - 1)
        if ways > MAX_SUBSETS:
            raise SpaceError(
                f"choice {path!r} would have {ways:,} ways to share {total} parts out among {count} members, more than "
                f"{MAX_SUBSETS:,}: give a smaller `total` or a larger `least`"
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
        if not isinstance(member, int) or not 0 <= member < len(self.members):
            raise SpaceError(f"choice {self.path!r} has no member {member!r}{nearest(str(member), self.members)}")
        if len(self.values) == 1:
            return as_expr(self.least)  # then all members have as much
        return Expr({((Part(self.path, member), 1),): 1})

    @property
    def allowed(self) -> str:
        """What a value must be, for a message."""
        return (
            f"{len(self.members)} whole numbers from {self.least} that sum to {self.total} ({', '.join(self.members)})"
        )

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


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `count` whole numbers from 0 that sum to `total`."""
    if count == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, count - 1):
            yield (first, *rest)
