"""Steps through a space that stay within a study's constraints and never come back to a known architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rankitect.contracts import BoundsCosts, HasReference, offers
from rankitect.errors import SpaceError
from rankitect.graph import SearchSpace

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["BoundedSpace", "Limits", "largest_by", "limits_of", "main_cost", "nearest_within", "reference_of", "within"]

Limits: TypeAlias = Mapping[str, tuple[float, float]]
"""The least and the largest amount of each cost that is bounded, by its kind or scope:kind."""

TRIES = 64
"""Draws after which nothing new is expected."""
CHUNK = 128
"""Draws that are made at once: a hundred within bounds cost hardly more than one."""


def limits_of(task: object) -> dict[str, tuple[float, float]]:
    """The bounds that a task sets on costs; none where it sets none."""
    return task.limits() if offers(task, BoundsCosts) else {}


def main_cost(task: object) -> str:
    """The cost that a search is about where none is named: the first that is bounded, else FLOPs."""
    return next(iter(limits_of(task)), "flops")


def reference_of(task: object, space: ChoiceSpace) -> Architecture:
    """The architecture that costs are relative to: the task's, or else the one of most FLOPs."""
    if offers(task, HasReference):
        return task.reference
    return largest_by(space, "flops")


def largest_by(space: ChoiceSpace, kind: str) -> Architecture:
    """The architecture of (nearly) the largest cost of a kind; see `BoundedSpace.extreme`."""
    return BoundedSpace(space, {}).extreme(kind, True, np.random.default_rng(0))


class BoundedSpace:
    """Draws and changes architectures within bounds on their costs.

    Args:
        space: The space.
        limits: Bounds by cost, "flops" or "layers:flops", as `SearchSpace.sample` takes them.
        whole: Where `space` is the `base` of another: that one, whose architectures are then given and taken.

    Attributes:
        rules: What else every architecture must hold; may be added to.
    """

    def __init__(
        self, space: ChoiceSpace, limits: Mapping[str, tuple[float, float]], whole: ChoiceSpace | None = None
    ) -> None:
        self.space, self.limits, self.whole = space, dict(limits), whole
        self.rules: list[Callable[[Architecture], bool]] = []
        self._lowered: dict[str, Architecture] = {}
        self._chunk: tuple[tuple[int, ...], list[Architecture]] = ((), [])

    @classmethod
    def of(cls, parts: Parts, shared: bool = False) -> BoundedSpace:
        """Within the constraints of a configuration.

        Args:
            parts: The study's.
            shared: Whether it is for a search with shared weights, which moves in the space's `base` where that has
                anything within the constraints.
        """
        limits = limits_of(parts.task)
        base = parts.space.base if shared and isinstance(parts.space, SearchSpace) else None
        if base is not None:
            try:
                base.sample(0, **limits)
            except SpaceError:  # nothing of the base is within the constraints: search the whole space
                base = None
        return cls(parts.space, limits) if base is None else cls(base, limits, parts.space)

    @property
    def graph_space(self) -> SearchSpace:
        """`space`, for what reads its graph.

        Raises:
            SpaceError: It has none.
        """
        if not isinstance(self.space, SearchSpace):
            raise SpaceError(f"space {self.space.name!r} has no graph")
        return self.space

    def lift(self, architecture: Architecture) -> Architecture:
        """An architecture of `space` as one of the whole space."""
        if self.whole is None:
            return architecture
        whole = self.whole.architecture({**self.space.closed, **architecture.choices})
        self._lowered[whole.fingerprint] = architecture
        return whole

    def lower(self, architecture: Architecture) -> Architecture:
        """The inverse of `lift`."""
        return self._lowered.get(architecture.fingerprint) or self.space.validate(architecture)

    def scaled(self, architecture: Architecture) -> list[Architecture]:
        """The architectures of the whole space within the bounds that differ from one in closed choices only, that one
        first."""
        sizes = [architecture]
        if self.whole is not None:
            names = [path for path in self.space.closed if path in architecture.choices]
            for values in product(*(self.whole.choices[path].values for path in names)):
                scaled = self.whole.architecture({**architecture.choices, **dict(zip(names, values, strict=True))})
                if scaled != architecture and within(self.whole, scaled, self.limits):
                    sizes.append(scaled)
        return sizes

    def allowed(self, architecture: Architecture) -> bool:
        """Whether every bound and every rule holds."""
        return within(self.whole or self.space, architecture, self.limits) and all(r(architecture) for r in self.rules)

    def inside(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which of many architectures are feasible and within the bounds, bool [n]; extra rules are not asked.

        Args:
            columns: Canonical index columns of `space`.
        """
        ok = np.asarray(self.space.feasible(columns))
        for key, (low, high) in self.limits.items():
            scope, _, kind = key.rpartition(":")
            cost = self.space.cost(columns, kind, scope)
            ok = ok & (cost >= low) & (cost <= high)
        return ok

    def points(self) -> list[Architecture]:
        """The architectures that the space knows by name, those within the bounds, each once."""
        return [a for a in dict.fromkeys(map(self.lift, self.space.points.values())) if self.allowed(a)]

    def sample(self, rng: np.random.Generator, known: Collection[str] = ()) -> Architecture | None:
        """A new architecture, uniform among those within the bounds; None where only known ones are drawn.

        Args:
            rng: Decides the draw.
            known: Fingerprints that do not count as new.
        """
        return self._new(lambda: self.space.sample(rng, **self.limits), known)

    def nth(self, key: tuple[int, ...], index: int, known: Collection[str] = ()) -> Architecture | None:
        """As `sample`, a function of key, index and what is known. Draws of neighbouring indices are made together.

        Args:
            key: Seeds the sequence.
            index: In the sequence.
            known: Fingerprints that do not count as new.
        """
        number, at = divmod(index, CHUNK)
        place = (*key, number)
        if self._chunk[0] != place:
            try:
                self._chunk = place, self.space.sample_many(CHUNK, np.random.default_rng(place), **self.limits)
            except SpaceError:  # too few architectures are within the bounds for so many draws at once
                self._chunk = place, []
        for drawn in map(self.lift, self._chunk[1][at : at + 1]):
            if drawn.fingerprint not in known and self.allowed(drawn):
                return drawn
        return self.sample(np.random.default_rng([*place, at]), known)

    def mutate(
        self, parent: Architecture, rng: np.random.Generator, known: Collection[str] = (), changes: int = 1
    ) -> Architecture | None:
        """A new architecture in which so many choices of the parent were changed; None where none was found."""

        def change() -> Architecture:
            child = self.lower(parent)
            for _ in range(changes):
                child = self.space.mutate(child, rng)
            return child

        return self._new(change, known)

    def crossover(
        self, mother: Architecture, father: Architecture, rng: np.random.Generator, known: Collection[str] = ()
    ) -> Architecture | None:
        """A new architecture that takes each choice from one of two; None where none was found."""
        return self._new(lambda: self.space.crossover(self.lower(mother), self.lower(father), rng), known)

    def _new(self, draw: Callable[[], Architecture], known: Collection[str]) -> Architecture | None:
        for _ in range(TRIES):
            try:
                drawn = self.lift(draw())
            except SpaceError:
                return None
            if drawn.fingerprint not in known and self.allowed(drawn):
                return drawn
        return None

    def extreme(self, kind: str, largest: bool, rng: np.random.Generator) -> Architecture:
        """An architecture of nearly the largest (or least) cost within the bounds.

        The best of many draws, improved by changes of single choices, many at once where they go together, until none
        helps. Exact where the cost rises with each choice on its own and no rule ties choices together.

        Args:
            kind: The cost: a kind, or scope:kind.
            largest: The largest, or the least.
            rng: Decides the draws.

        Raises:
            SpaceError: Nothing is within the bounds.
        """
        scope, _, kind = kind.rpartition(":")
        sign = 1.0 if largest else -1.0
        space = self.space
        if not space.choices:
            return space.sample(rng)

        def value(columns: Mapping[str, np.ndarray]) -> np.ndarray:
            columns = space.canonical(columns)
            return np.where(self.inside(columns), sign * np.asarray(space.cost(columns, kind, scope)), -np.inf)

        try:
            start = space.sample_many(TRIES, rng, **self.limits)
        except SpaceError:  # too few architectures are within the bounds for so many draws at once
            start = [space.sample(rng, **self.limits)]
        drawn = space.encode(start)
        # Coordinate ascent from the best of many draws. Costs of a whole neighbourhood are one vectorised evaluation.
        best = _row(drawn, int(value(drawn).argmax()))
        reached = float(value(_columns([best]))[0])
        while True:
            changes = [(p, i) for p, c in space.choices.items() for i in range(len(c.values)) if i != best[p]]
            values = value(_columns([{**best, p: i} for p, i in changes])) if changes else np.zeros(0)
            better = [(values[at], p, i) for at, (p, i) in enumerate(changes) if values[at] > reached]
            if not better:
                return space.decode(_columns([best]))[0]
            # Take the best value of each choice that has a better one, and try the most helpful 1, 2, 4, … of these
            # changes at once: constraints and rules may forbid all together, and one at a time takes many rounds.
            by_choice = {p: i for _, p, i in sorted(better, key=lambda change: change[0])}
            ordered = [p for _, p, _ in sorted(better, key=lambda change: -change[0])]
            helpful = list(dict.fromkeys(ordered))
            counts = sorted({len(helpful), *(2**k for k in range(len(helpful).bit_length()))})
            together = [{**best, **{p: by_choice[p] for p in helpful[:n]}} for n in counts]
            totals = value(_columns(together))
            best, reached = together[int(totals.argmax())], float(totals.max())


def within(space: ChoiceSpace, architecture: Architecture, limits: Mapping[str, tuple[float, float]]) -> bool:
    """Whether an architecture's costs are within bounds."""
    for key, (low, high) in limits.items():
        scope, _, kind = key.rpartition(":")
        if not low <= space.cost(architecture, kind, scope) <= high:
            return False
    return True


def nearest_within(
    space: ChoiceSpace, architecture: Architecture, limits: Limits, score: Callable[[Architecture], float]
) -> Architecture | None:
    """An architecture within bounds, by single changes of one that is not, each of which loses the least score for what
    it brings it nearer.

    Args:
        space: The space.
        architecture: Where to start.
        limits: The bounds.
        score: What should stay high.

    Returns:
        None where no single change brings it nearer any more.
    """
    beyond = _beyond(space, [architecture], limits)[0]
    while beyond > 0:
        near = list(space.neighbours(architecture))
        left, now, changes = _beyond(space, near, limits), score(architecture), []
        for other, rest in zip(near, left, strict=True):
            if rest < beyond:  # of equal changes the fingerprint decides, the same way in every run
                changes.append(((now - score(other)) / (beyond - rest), other.fingerprint, rest, other))
        if not changes:
            return None
        _, _, beyond, architecture = min(changes)
    return architecture


def _beyond(space: ChoiceSpace, architectures: Sequence[Architecture], limits: Limits) -> list[float]:
    """How far beyond bounds each architecture is, the sum over costs, each relative to its bound."""
    total = np.zeros(len(architectures))
    columns = space.encode(architectures) if architectures else {}
    for key, (low, high) in limits.items() if architectures else ():
        scope, _, kind = key.rpartition(":")
        cost = np.asarray(space.cost(columns, kind, scope), dtype=np.float64)
        total += np.maximum(cost / high - 1, 0) if high > 0 else np.maximum(cost, 0)
        total += np.maximum(1 - cost / low, 0) if low > 0 else 0.0
    return [float(amount) for amount in total]


def _columns(rows: Sequence[Mapping[str, int]]) -> dict[str, np.ndarray]:
    """Index columns of architectures given one by one."""
    return {p: np.asarray([row[p] for row in rows]) for p in rows[0]}


def _row(columns: Mapping[str, np.ndarray], at: int) -> dict[str, int]:
    """One architecture of index columns."""
    return {p: int(c[at]) for p, c in columns.items()}
