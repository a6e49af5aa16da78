"""A space of choices: everything that can be asked of choices without knowing what they decide."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rankitect.documents import parse_json
from rankitect.errors import SpaceError
from rankitect.space import moves, sampling
from rankitect.space.architecture import Architecture
from rankitect.space.choices import ChoiceValue
from rankitect.space.costs import Costed
from rankitect.space.declaring import Choices, setting_liveness
from rankitect.space.distribution import Distribution, Size
from rankitect.space.expr import Expr
from rankitect.space.expr_data import data_of, expr_of
from rankitect.space.features import feature_names, features
from rankitect.space.kinds import restored_choice
from rankitect.space.names import check_name, shown
from rankitect.space.stored import SCHEMA, StoredChoices
from rankitect.space.whole import check_whole, generator

__all__ = ["ChoiceSpace", "choices_data", "restore_choices"]

MAX_DRAWS = 10_000_000
"""Architectures that one call draws."""


class ChoiceSpace(Costed):
    """The architectures that some declared choices span: to draw, change, count, encode and store.

    `rankitect.graph.SearchSpace` is one whose choices shape a graph.

    Args:
        declared: The choices and rules. Nothing may be declared there afterwards.
        version: Part of every architecture's identity; change it when what the choices mean changes.
        defaults: Values of free dimensions in costs.
        live: When each choice has an effect; default: as the settings' conditions say.

    Attributes:
        points: Known architectures by name, for its author to fill: a search may begin with them.
        spelling: How else architectures are called, such as by a benchmark's tables; None for their fingerprints.
        usual: For each choice that was added by `with_settings`, the value to take where nothing is searched.

    Raises:
        SpaceError: No architecture is feasible.

    >>> declared = Choices("settings")
    >>> kind = declared.choice("optimizer", ["sgd", "adam"])
    >>> momentum = declared.choice("momentum", [0.0, 0.9], when=kind.is_("sgd"))
    >>> ChoiceSpace(declared).size()
    Size(raw=4, distinct=3)
    """

    def __init__(
        self,
        declared: Choices,
        version: str = "1",
        defaults: Mapping[str, int] | None = None,
        live: Mapping[str, Expr] | None = None,
    ) -> None:
        check_name("a version", version)
        for name, value in (defaults or {}).items():
            check_whole(f"dimension {name!r}", value)
        conditions = setting_liveness(declared.conditions, {}) if live is None else live
        super().__init__(declared.name, version, declared.choices, declared.rules, conditions, defaults or {})
        self.declared = declared
        self.points: dict[str, Architecture] = {}
        self.spelling: Callable[[Architecture], str] | None = None
        self.usual: dict[str, ChoiceValue] = {}
        self.distribution = Distribution(self)
        if self.distribution.uniform is not None and self.distribution.uniform.log_total == -math.inf:
            rules = "; ".join(r.text for r in self.rules)
            raise SpaceError(
                f"space {self.name!r} has no feasible architecture: its rules exclude each other: {rules[:200]}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.choices)} choices)"

    def size(self) -> Size:
        """How many architectures there are, raw and distinct."""
        return self.distribution.size()

    @property
    def settings(self) -> tuple[str, ...]:
        """The choices that shape no graph: here all, as far as they leave anything open."""
        return tuple(path for path, choice in self.choices.items() if len(choice.values) > 1)

    @property
    def graph_only(self) -> bool:
        """Whether every choice shapes a graph, so that weights which architectures share tell all of them apart."""
        return False

    def with_settings(self, declared: Choices, values: Mapping[str, Any]) -> ChoiceSpace:
        """This space with further choices, which shape no graph: settings of the task or a recipe.

        Args:
            declared: The choices and their rules.
            values: Their usual values by path, which `points` get.

        Raises:
            SpaceError: A path is taken, or no architecture is feasible.
        """
        extended = ChoiceSpace(self.declared.with_settings(declared), self.version, self.defaults)
        extended.take_over(self, values)
        return extended

    def spelled(self, architecture: Architecture) -> str:
        """What an architecture is called outside: see `spelling`."""
        return architecture.fingerprint if self.spelling is None else self.spelling(architecture)

    def take_over(self, smaller: ChoiceSpace, values: Mapping[str, Any]) -> None:
        """Take what is known of a space that lacks some of the choices: closed ones, learned costs and points.

        Args:
            smaller: The space.
            values: The usual values of the choices that it lacks, which its points get.
        """
        self.learned.update(smaller.learned)
        self.closed.update(smaller.closed)
        self.spelling = smaller.spelling
        self.usual.update({**smaller.usual, **values})
        for name, point in smaller.points.items():
            try:
                self.points[name] = self.architecture({**point.choices, **values})
            except SpaceError:  # a rule among the new choices forbids these values
                continue

    # --- drawing and changing ---------------------------------------------------------------------------------------
    def sample(self, rng: np.random.Generator | int | None = None, **ranges: Any) -> Architecture:
        """One architecture, uniformly among the distinct ones.

        Args:
            rng: A generator or a seed.
            ranges: Bounds on costs, for example `params=(1e6, 2e6), flops=(lo, hi)`; `scope=` and free dimensions apply
                to all of them, and a key such as "layers:flops" bounds a part of the graph.

        Raises:
            SpaceError: The seed or a bound is none, or nothing in the range was found: says what the space offers.
        """
        return self.sample_many(1, rng, **ranges)[0]

    def cost_span(self, key: str) -> tuple[float, float] | None:
        """The least and the largest cost of all architectures; None where choices are tied together too much to tell.

        Args:
            key: A cost, as a bound of `sample` names it.

        Raises:
            SpaceError: There is no such cost.
        """
        return sampling.cost_span(self, self.distribution, key)

    def sample_many(self, n: int, rng: np.random.Generator | int | None = None, **ranges: Any) -> list[Architecture]:
        """`n` architectures, drawn independently; see `sample`.

        Raises:
            SpaceError: As `sample`, or `n` is no whole number from 0.
        """
        check_whole("the number of architectures to draw", n, 0, MAX_DRAWS)
        if not n:
            return []
        columns = sampling.sample_columns(self, self.distribution, n, generator(rng), **ranges)
        architectures = self.decode(columns)
        self._valid.update({a.fingerprint: a for a in architectures})
        return architectures if self.choices else architectures * n

    def mutate(
        self, architecture: Architecture, rng: np.random.Generator | int | None = None, tries: int = 1000
    ) -> Architecture:
        """A feasible architecture that differs in one live choice (and in what that switches on).

        Of real numbers near ones are chosen more often; of a simplex one part is shifted.

        Raises:
            SpaceError: None was found.
        """
        return moves.mutate(self, architecture, generator(rng), tries)

    def crossover(
        self, mother: Architecture, father: Architecture, rng: np.random.Generator | int | None = None
    ) -> Architecture:
        """A feasible architecture that takes each choice from one of two; the mother if none is feasible."""
        return moves.crossover(self, mother, father, generator(rng))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """All feasible architectures that differ in the value of one live choice; of a simplex in one shifted part."""
        return moves.neighbours(self, architecture)

    # --- features and JSON ------------------------------------------------------------------------------------------
    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the entries of `features`."""
        return feature_names(self.choices)

    def features(self, architectures: Iterable[Architecture]) -> np.ndarray:
        """A fixed-length numeric encoding, float64 [n, len(feature_names)]."""
        return features(self.choices, architectures)

    def to_json(self) -> str:
        """The space as data."""
        points = {name: json.loads(a.to_json()) for name, a in self.points.items()}
        return json.dumps({"schema": SCHEMA, "version": self.version, **choices_data(self.declared), "points": points})

    @classmethod
    def from_json(cls, text: str, allowed_packages: Sequence[str] = ("rankitect",)) -> ChoiceSpace:
        """The inverse of `to_json`.

        Args:
            text: The data.
            allowed_packages: Packages that blocks may come from; a space without a graph has none.

        Raises:
            SpaceError: The text is no space.
        """
        stored = parse_json(text, StoredChoices, "a space in JSON", SpaceError)
        declared = Choices(stored.name)
        restore_choices(declared, stored)
        if always := declared.choices.keys() - declared.conditions.keys():
            raise SpaceError(f"a space without a graph has only settings, and {min(always)!r} is none")
        space = cls(declared, stored.version)
        space.restore_points(stored)
        return space

    def restore_points(self, stored: StoredChoices) -> None:
        """Take over the points of a stored space.

        Raises:
            SpaceError: One is no architecture of this space.
        """
        for name, point in stored.points.items():
            check_name("a point", name)
            self.points[name] = self.validate(Architecture.from_data(point.model_dump()))


def choices_data(declared: Choices) -> dict[str, Any]:
    """Declared choices and rules as plain JSON data."""
    conditions = {path: data_of(condition) for path, condition in declared.conditions.items()}
    return {
        "name": declared.name,
        "choices": [c.declaration() for c in declared.choices.values()],
        "rules": [{"condition": data_of(r.condition), "text": r.text} for r in declared.rules],
        **({"settings": conditions} if conditions else {}),
    }


def restore_choices(declared: Choices, stored: StoredChoices) -> None:
    """Declare what `choices_data` has written.

    Raises:
        SpaceError: A choice is declared twice, or an expression is none of these choices.
    """
    for item in stored.choices:
        data = item.model_dump(exclude_unset=True)
        choice = restored_choice(data)
        if choice.path in declared.choices:
            raise SpaceError(f"choice {choice.path!r} is declared twice")
        if choice.declaration() != data:
            raise SpaceError(f"choice {choice.path!r} of kind {choice.kind!r} is not declared as {shown(data)}")
        declared.choices[choice.path] = choice
    for rule in stored.rules:
        condition = expr_of(rule.condition, declared.choices)
        if condition.constant is not None:
            raise SpaceError(f"rule {shown(rule.text)} depends on no choice")
        declared.require(condition, rule.text)
    later = list(stored.settings)
    for path, condition in stored.settings.items():
        declared.restore_condition(path, expr_of(condition, declared.choices), later)
        later.remove(path)
