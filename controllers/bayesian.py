"""Bayesian optimisation with BoTorch: Gaussian processes on the space's features, noisy expected improvement.

One objective: qLogNEI; several: qLogNEHVI (arXiv 2105.08195, 2310.20708). Costs that the task can tell without a
measurement are not modelled but known. Outcome constraints bound further metrics, whose feasibility is modelled too.
Candidates are architectures at every step: a pool of draws and of changed good ones, improved by local search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rankitect.errors import ConfigError
from rankitect.study.aims import Aims, ranking
from rankitect.study.moves import Moves
from rankitect.study.staged import StagedConfig, StagedSearch, measured_by

if TYPE_CHECKING:
    from rankitect.graph import Architecture
    from rankitect.study.join import Parts

__all__ = ["Bayesian"]


class Bayesian(StagedSearch):
    """See the module. Needs the extra `bayesian`."""

    class Config(StagedConfig):
        """Keys of `controller`."""

        initial: int = Field(12, ge=2, description="architectures before the first model: known ones, and random draws")
        pool: int = Field(128, ge=2, description="architectures among which the acquisition is compared first")
        starts: int = Field(4, ge=1, description="best of the pool from which local search sets out")
        rounds: int = Field(4, ge=0, description="rounds of local search")
        neighbours: int = Field(16, ge=1, description="changed architectures that a round tries from each start")
        draws: int = Field(64, ge=8, description="Monte-Carlo draws of the acquisition")
        outcomes: dict[str, tuple[float | None, float | None]] = Field(
            default_factory=dict,
            description="allowed range of a metric, null for no bound: {latency: [null, 9]}",
        )

    def __init__(
        self, config: Config, by: str, moves: Moves, aims: Aims, task: Any, seed: int, *, metrics: list[str]
    ) -> None:
        super().__init__(config.samples, config.finalists, by, aims, seed)
        self._config, self.moves, self._task = config, moves, task
        self._starts = moves.points()
        self._told_costs: dict[str, dict[str, float]] = {}
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
        moves, aims = Moves.of(parts), Aims.of(parts, by)
        return cls(config, by, moves, aims, parts.task, parts.config.seed, metrics=metrics)

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """A known or random architecture at first, then one of large acquisition value."""
        if index < min(len(self._starts), self._config.initial):
            return self._starts[index], {}
        done = [t for t in self.told if t.ok]
        if index < self._config.initial or len(done) < 2:
            made = self.moves.sample(rng, self.known)
            return None if made is None else (made, {})
        from rankitect.controllers.bayesian_model import Acquisition

        c = self._config
        acquisition = Acquisition(
            self.moves.space, self._costs, self.aims, done, self.pending, c.outcomes, c.draws, int(rng.integers(2**31))
        )
        good = [done[i].architecture for i in ranking(self.aims.table(done))[: c.starts]]
        pool = [*self._changed(good, rng, c.pool // 2), *self._drawn(rng, c.pool - c.pool // 2)]
        best = self._best(acquisition, pool, c.starts)
        for _ in range(c.rounds):
            around = self._changed([a for _, a in best], rng, c.neighbours * max(1, len(best)))
            found = self._best(acquisition, around, c.starts, best)
            if [a for _, a in found] == [a for _, a in best]:
                break
            best = found
        if not best:
            return None
        value, made = best[0]
        return made, {"acquisition": value}

    def _costs(self, architecture: Architecture) -> dict[str, float]:
        """The metrics that need no measurement."""
        if not hasattr(self._task, "costs"):
            return {}
        key = architecture.fingerprint
        if key not in self._told_costs:
            self._told_costs[key] = {name: m.value for name, m in self._task.costs(architecture).items()}
        return self._told_costs[key]

    def _drawn(self, rng: np.random.Generator, count: int) -> list[Architecture]:
        found = self.moves.space.sample_many(count, rng, **self.moves.limits)
        return [a for a in found if a.fingerprint not in self.known and self.moves.allowed(a)]

    def _changed(self, parents: list[Architecture], rng: np.random.Generator, count: int) -> list[Architecture]:
        """Parents with one to three choices changed."""
        made = [
            self.moves.mutate(parents[i % len(parents)], rng, self.known, int(rng.integers(1, 4)))
            for i in range(count if parents else 0)
        ]
        return [a for a in made if a is not None]

    @staticmethod
    def _best(
        acquisition: Any,
        candidates: list[Architecture],
        count: int,
        known: list[tuple[float, Architecture]] | None = None,
    ) -> list[tuple[float, Architecture]]:
        """The candidates of largest acquisition value, each once, together with those known."""
        different = list({a.fingerprint: a for a in candidates}.values())
        values = acquisition.values(different) if different else []
        merged = {a.fingerprint: (v, a) for v, a in [*(known or []), *zip(values, different, strict=True)]}
        return sorted(merged.values(), key=lambda pair: (-pair[0], pair[1].fingerprint))[:count]
