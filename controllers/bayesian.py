"""Bayesian optimisation with BoTorch: Gaussian processes on the space's features, noisy expected improvement.

One objective: qLogNEI; several: qLogNEHVI (arXiv 2105.08195, 2310.20708). Costs that the task can tell without a
measurement are not modelled but known. Outcome constraints bound further metrics, whose feasibility is modelled too.
Candidates are architectures at every step: draws, crossings and changes of good ones, improved by an evolution on the
model and then change by change; the acquisition's closed form screens them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from rankitect.contracts import HasReference, TellsCosts, offers
from rankitect.contracts.task import HasPrior
from rankitect.controllers.bayesian_prior import expected_rise, suggestions
from rankitect.errors import ConfigError, SpaceError
from rankitect.methods.bounded_space import BoundedSpace, main_cost
from rankitect.methods.objectives import Objectives, ranking
from rankitect.methods.staged import StagedConfig, StagedSearch, measured_by
from rankitect.models.families import axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rankitect.config.parts import Parts
    from rankitect.contracts import Session
    from rankitect.controllers.bayesian_model import Acquisition
    from rankitect.controllers.bayesian_process import Fitted
    from rankitect.graph import Architecture

__all__ = ["Bayesian"]

CHANGES = 3
"""Choices that a candidate has changed, at most."""
CLIMBERS = 4
"""Best candidates of which all single changes are tried in the end."""


class ForetellsBits(HasPrior, HasReference, Protocol):
    """A task that tells what each choice is expected to cost, and of which architecture costs are shares."""


class Bayesian(StagedSearch):
    """See the module. Needs the extra `bayesian`."""

    class Config(StagedConfig):
        """Keys of `controller`."""

        initial: int = Field(
            12, ge=2, le=10**6, description="architectures before the first model: known ones, and random draws"
        )
        pool: int = Field(
            256, ge=2, le=10**6, description="random architectures among which the acquisition is compared first"
        )
        starts: int = Field(
            16, ge=1, le=10_000, description="best candidates that a round of the evolution on the model keeps"
        )
        rounds: int = Field(
            6, ge=0, le=10_000, description="rounds of this evolution, and then of changes of the best candidate"
        )
        neighbours: int = Field(
            16, ge=1, le=10_000, description="new candidates that a round makes for each that is kept"
        )
        draws: int = Field(64, ge=8, le=10**6, description="Monte-Carlo draws of the acquisition that decides")
        outcomes: dict[str, tuple[float | None, float | None]] = Field(
            default_factory=dict,
            description="allowed range of a metric, null for no bound: {latency: [null, 9]}",
        )

    def __init__(
        self,
        config: Config,
        by: str,
        bounded: BoundedSpace,
        objectives: Objectives,
        task: object,
        seed: int,
        *,
        metrics: list[str],
    ) -> None:
        super().__init__(config.samples, config.finalists, by, objectives, seed)
        self._config, self.bounded, self._task = config, bounded, task
        self._starts: dict[Architecture, dict[str, Any]] = {point: {} for point in bounded.points()}
        self._told_costs: dict[str, dict[str, float]] = {}
        self._fitted: Fitted = {}
        self._promising: list[Architecture] = []
        self._hints: dict[str, Callable[[Sequence[Architecture]], np.ndarray]] = {}
        if unknown := [name for name in config.outcomes if name not in metrics]:
            raise ConfigError(
                f"controller.outcomes bounds '{unknown[0]}', which evaluator.{by} does not measure. It measures: "
                f"{', '.join(metrics)}."
            )

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Bayesian:
        """Made from its section of the configuration.

        Raises:
            ConfigError: BoTorch is not installed, the evaluator that the search asks is not configured, or an outcome
                is not measured by it.
        """
        from importlib.util import find_spec

        if find_spec("botorch") is None:
            raise ConfigError(
                "controller=bayesian needs BoTorch, which is not installed: pip install 'rankitect[bayesian]' "
                "(in this repository: make venv EXTRAS=bayesian)."
            )
        by = measured_by(config.by, parts)
        metrics = [spec.name for spec in parts.evaluators[by].metrics]
        bounded, objectives = BoundedSpace.of(parts), Objectives.of(parts, by)
        return cls(config, by, bounded, objectives, parts.task, parts.config.seed, metrics=metrics)

    def prepare(self, session: Session) -> None:
        """Where bits of weights are open: ask the task what each choice is expected to cost, and begin with what that
        suggests at several sizes. A few dozen measurements cannot reveal what each of hundreds of bits does."""
        super().prepare(session)
        if any(axes.is_bits(path) for path, choice in self.bounded.space.choices.items() if len(choice.values) > 1):
            self._foretell(session)

    def _foretell(self, session: Session) -> None:
        if not offers(self._task, ForetellsBits):
            return
        prior, spent = self._task.prior(session.check, session.progress)
        session.charge("prior", spent)
        if not prior:
            return
        self._promising = suggestions(self.bounded, prior, main_cost(self._task), self._task.reference, self.seed)
        count = min(max(2, self._config.initial // 2), len(self._promising))
        places = np.linspace(0, len(self._promising) - 1, count)
        self._starts |= {self._promising[round(i)]: {} for i in places}
        self._hints = {self.objectives.declared[0].name: expected_rise(self.bounded.space, prior)}

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """A known or random architecture at first, then one of large acquisition value."""
        if index < min(len(self._starts), self._config.initial):
            architecture, tags = list(self._starts.items())[index]
            return architecture, dict(tags)
        done = [t for t in self.told if t.ok]
        if index < self._config.initial or len(done) < 2:
            return self._random(rng)
        from rankitect.controllers.bayesian_model import Acquisition

        c = self._config
        draws = int(rng.integers(2**31))
        acquisition = Acquisition(
            self.bounded.space, self._costs, self.objectives, done, self.pending, c.outcomes, c.draws, draws,
            self._fitted, self._hints,
        )  # fmt: skip
        # Three searches of the acquisition, each from where the last one ended: wide draws, children of good
        # architectures, and climbs by single changes. All are screened by the closed form, which costs little.
        good = [done[i].architecture for i in ranking(self.objectives.table(done))[: max(c.starts, len(done) // 4)]]
        best = self._best(acquisition, [*self._drawn(rng, c.pool), *self._promising], {})
        for _ in range(c.rounds):
            parents = self._rows([*good, *best, *best], rng)
            best = self._best(acquisition, self._new(self._varied(parents, rng, c.neighbours * c.starts)), best)
        for _ in range(c.rounds):
            before = list(best)[:CLIMBERS]
            around = self._around(self._rows(before, rng), rng, c.neighbours * c.starts)
            best = self._best(acquisition, self._new(around), best)
            if list(best)[:CLIMBERS] == before:
                break
        if not best:
            return self._random(rng)
        # The noisy acquisition is dear: only the few best by the closed form are compared with it.
        values = acquisition.values(list(best))
        chosen = list(best)[int(values.argmax())]
        return chosen, {"acquisition": float(values.max())}

    def _random(self, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        drawn = self.bounded.sample(rng, self.known)
        return None if drawn is None else (drawn, {})

    def _costs(self, architecture: Architecture) -> dict[str, float]:
        """The metrics that need no measurement."""
        if not offers(self._task, TellsCosts):
            return {}
        key = architecture.fingerprint
        if key not in self._told_costs:
            self._told_costs[key] = {name: m.value for name, m in self._task.costs(architecture).items()}
        return self._told_costs[key]

    def _drawn(self, rng: np.random.Generator, count: int) -> list[Architecture]:
        try:
            return self.bounded.space.sample_many(count, rng, **self.bounded.limits)
        except SpaceError:  # so few are within the limits that single draws have to do
            return []

    def _rows(self, architectures: Sequence[Architecture], rng: np.random.Generator) -> np.ndarray:
        """Positions of values, int64 [n, choices]; random ones where a choice has no effect, in case it gets one."""
        choices = self.bounded.space.choices
        columns = self.bounded.space.encode(architectures)
        live = np.asarray([[path in a.choices for path in choices] for a in architectures], dtype=bool)
        rows = np.stack([columns[path] for path in choices], axis=1)
        return np.where(live.reshape(rows.shape), rows, rng.integers(0, self._sizes, rows.shape))

    @property
    def _sizes(self) -> np.ndarray:
        """How many values each choice has."""
        return np.asarray([len(c.values) for c in self.bounded.space.choices.values()])

    def _varied(self, parents: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
        """Rows of parents, half of them crossed, in which one to three choices were changed."""
        sizes, shape = self._sizes, (count, parents.shape[1])
        mothers, fathers = parents[rng.integers(0, len(parents), (2, count))]
        crossed = (rng.random((count, 1)) < 0.5) & (rng.random(shape) < 0.5)
        rows = np.where(crossed, fathers, mothers)
        changes = rng.integers(1, CHANGES + 1, count)
        for number in range(CHANGES):
            changed = np.nonzero(changes > number)[0]
            at = rng.integers(0, shape[1], len(changed))
            rows[changed, at] += rng.integers(1, np.maximum(sizes[at], 2))
        return rows % sizes

    def _around(self, rows: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
        """The rows that differ from one of these in one choice; a random part of them where they are more."""
        changes = [(at, step) for at, size in enumerate(self._sizes) for step in range(1, size)]
        moved = np.repeat(rows, len(changes), axis=0)
        for i, (at, step) in enumerate(changes * len(rows)):
            moved[i, at] += step
        return rng.permutation(moved % self._sizes)[:count]

    def _new(self, rows: np.ndarray) -> list[Architecture]:
        """The different architectures of rows that are feasible and within the limits."""
        space = self.bounded.space
        columns = space.canonical({path: rows[:, at] for at, path in enumerate(space.choices)})
        kept = np.unique(np.stack(list(columns.values()), axis=1)[self.bounded.inside(columns)], axis=0)
        return space.decode({path: kept[:, at] for at, path in enumerate(columns)}) if len(kept) else []

    def _best(
        self, acquisition: Acquisition, candidates: list[Architecture], best: dict[Architecture, float]
    ) -> dict[Architecture, float]:
        """The new architectures of largest acquisition value among candidates and the best so far, best first.

        Fingerprints and rules take long, so they are computed only for candidates that the models rank high.
        """
        if not candidates:
            return best
        values = acquisition.screened(candidates)
        taken: dict[Architecture, float] = {}
        for i in np.argsort(-values, kind="stable"):
            candidate = candidates[i]
            if (
                candidate.fingerprint not in self.known
                and candidate not in best
                and all(r(candidate) for r in self.bounded.rules)
            ):
                taken[candidate] = float(values[i])
            if len(taken) == self._config.starts:
                break
        merged = {**best, **taken}
        return dict(sorted(merged.items(), key=lambda pair: (-pair[1], pair[0].fingerprint))[: self._config.starts])
