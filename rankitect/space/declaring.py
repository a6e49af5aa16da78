"""Declaring choices and rules: the verbs that a graph and a space without one have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from rankitect.errors import SpaceError, short
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.expr import Expr, as_expr
from rankitect.space.kinds import choice_of
from rankitect.space.names import check_name, shown
from rankitect.space.scales import NumberScale
from rankitect.space.simplex import Simplex
from rankitect.space.tables import joint_values

__all__ = ["Choices", "Rule", "setting_liveness"]

AnyChoice = TypeVar("AnyChoice", bound=Choice)


@dataclass(frozen=True)
class Rule:
    """A condition that an architecture must meet, and how to say it."""

    condition: Expr
    text: str


class Choices:
    """Choices with the rules that tie them together, as an author declares them one after the other.

    On its own it describes settings: choices that a task or a recipe reads, and that shape no model. A
    `rankitect.graph.Graph` is one too, whose other choices are read by its blocks.

    Args:
        name: The space's name, part of every architecture's identity.

    Attributes:
        choices: The declared choices by path.
        rules: What `require` has stated.
        conditions: For each setting, by path, when it has an effect.
    """

    def __init__(self, name: str) -> None:
        check_name("a space", name)
        self.name = name
        self.choices: dict[str, Choice] = {}
        self.rules: list[Rule] = []
        self.conditions: dict[str, Expr] = {}
        self._scope: list[str] = []
        self._replay = False  # whether what is declared was declared before, and is only looked up
        self._settings = True  # whether what is declared is a setting

    @contextmanager
    def inside(self, scope: str) -> Iterator[None]:
        """Prefix the names declared within with `scope`.

        Raises:
            SpaceError: It is no name.
        """
        check_name("a scope", scope)
        self._scope.append(scope)
        try:
            yield
        finally:
            self._scope.pop()

    def choice(self, name: str, values: Sequence[ChoiceValue] | NumberScale, when: Expr | None = None) -> Choice:
        """A named set of values, in the present scope. To share a choice, pass the object on.

        Args:
            name: The name.
            values: Whole numbers, real numbers, strings or booleans; `log_range` and `linear_range` make real ones.
            when: Only of a setting: 1 where it has an effect, for example `optimizer.is_("sgd")`. Default: always.

        Raises:
            SpaceError: The path is taken, the values are unusable, or `when` is no condition on choices that were
                declared before.
        """
        return self._declare(name, lambda path: choice_of(path, values), when)

    def flag(self, name: str, when: Expr | None = None) -> Choice:
        """False or true; see `choice`."""
        return self.choice(name, [False, True], when)

    def subset(
        self, name: str, members: int, least: int = 1, most: int | None = None, when: Expr | None = None
    ) -> Choice:
        """Which of some things are used, by their numbers from 0; see `choice`.

        Args:
            name: The name.
            members: How many things there are.
            least: How many are used at least.
            most: How many are used at most; None for all.
            when: See `choice`.

        Raises:
            SpaceError: The bounds are impossible, or there are more than 4,096 subsets.
        """
        return self._declare(name, lambda path: Choice.subset(path, members, least, most), when)

    def simplex(
        self, name: str, members: int | Sequence[str], total: int, least: int = 0, when: Expr | None = None
    ) -> Simplex:
        """How a total is shared out among members, in whole parts; see `choice` and `Simplex`.

        Raises:
            SpaceError: The parts cannot be shared out so, or in more than 4,096 ways.
        """
        return self._declare(name, lambda path: Simplex(path, members, total, least), when)

    def require(self, condition: Expr, text: str | None = None) -> None:
        """State a rule. It holds vacuously where none of its choices has an effect; a choice without effect counts as
        its first value.

        Args:
            condition: 1 where the rule is met, for example `(heads % kv).eq(0)`.
            text: How to say it in errors. Default: the expression.

        Raises:
            SpaceError: It is no condition, or never holds.
        """
        self._check_condition(f"rule {short(text or str(condition), 200)}", condition)
        if as_expr(condition) == 0:
            raise SpaceError(f"rule {short(text or str(condition), 200)} can never hold")
        if not self._replay and condition != 1:
            self.rules.append(Rule(condition, text or str(condition)))

    def restore_condition(self, path: str, condition: Expr, later: Sequence[str]) -> None:
        """Take over when a setting of a stored space has an effect.

        Args:
            path: The setting.
            condition: 1 where it has an effect.
            later: The settings whose conditions are not known yet, itself included.

        Raises:
            SpaceError: There is no such choice, or its condition is none, or one on a later setting.
        """
        if path not in self.choices:
            raise SpaceError(f"there is no choice {shown(path)}, but a condition for it")
        if unknown := condition.paths & frozenset(later):
            raise SpaceError(f"choice {path!r}: its `when` asks for {min(unknown)!r}, which is not declared before it")
        self._check_condition(f"choice {path!r}: `when`", condition)
        self.conditions[path] = condition

    def with_settings(self, other: Choices) -> Self:
        """A copy with what another has declared, as settings.

        Raises:
            SpaceError: A path is taken.
        """
        if taken := [path for path in other.choices if path in self.choices]:
            raise SpaceError(f"choice {taken[0]!r} is declared twice: space {self.name!r} has one of this name already")
        extended = copy.copy(self)
        extended.choices, extended.rules = {**self.choices, **other.choices}, [*self.rules, *other.rules]
        others = {path: other.conditions.get(path, as_expr(1)) for path in other.choices}
        extended.conditions = {**self.conditions, **others}
        return extended

    def _check_condition(self, what: str, condition: Expr) -> None:
        values = joint_values(as_expr(condition), self.choices)
        if values is not None and not np.isin(values, (0, 1)).all():
            raise SpaceError(
                f"{what} must be a condition, 1 or 0, not {short(str(condition), 100)}: ask `is_(value)`, `eq` or `ge`"
            )

    def _declare(self, name: str, make: Callable[[str], AnyChoice], when: Expr | None = None) -> AnyChoice:
        check_name("a choice", name)
        path = ".".join([*self._scope, name])
        if path in self.choices:
            if self._replay:
                return self.choices[path]  # type: ignore[return-value]
            raise SpaceError(
                f"choice {path!r} is declared twice: to share a choice, pass the object that the first call gave"
            )
        choice = make(path)
        if when is not None and not isinstance(when, Expr):
            raise SpaceError(
                f"choice {path!r}: `when` must be a condition such as `other.is_(value)`, not {shown(when)}"
            )
        if not self._settings and when is not None:
            raise SpaceError(f"choice {path!r}: `when` is for settings; when a choice of the graph counts is derived")
        if when is not None and (unknown := when.paths - self.choices.keys()):
            raise SpaceError(f"choice {path!r}: its `when` asks for {min(unknown)!r}, which is not declared before it")
        if when is not None:
            self._check_condition(f"choice {path!r}: `when`", when)
        self.choices[path] = choice
        if self._settings:
            self.conditions[path] = as_expr(1) if when is None else when
        return choice


def setting_liveness(conditions: Mapping[str, Expr], others: Mapping[str, Expr]) -> dict[str, Expr]:
    """When each setting has an effect: where its condition holds, and the choices that this asks for have one.

    Args:
        conditions: Of the settings, in order of declaration.
        others: When the other choices of the space have an effect.
    """
    live: dict[str, Expr] = {}
    for path, condition in conditions.items():
        total = condition
        for asked in sorted(condition.paths):
            total = total * (live[asked] if asked in live else others[asked])
        live[path] = total
    return live
