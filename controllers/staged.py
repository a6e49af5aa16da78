"""The staged search of MobileLLM-Flash (arXiv 2603.15954): learn latency, search, heal and export the best.

Stage 1 learns a latency model of the device from single layers. Stage 2 is Bayesian optimisation (noisy expected
hypervolume improvement) over perplexity after a brief healing and predicted latency; it starts from what second-order
estimates suggest at several sizes, and from pairs of equal latency that show which design rules hold. Stage 3 heals the
finalists longer; what is on the front is exported and measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from rankitect.contracts import BoundsCosts, HasReference, Spent, TellsCosts, offers, require
from rankitect.contracts.task import HasBackbone, HasContrasts, HasPrior, LearnsLatency
from rankitect.controllers.bayesian import Bayesian
from rankitect.controllers.bayesian_prior import expected_rise
from rankitect.controllers.dnas_scores import Scores
from rankitect.errors import ConfigError
from rankitect.methods.bounded_space import within
from rankitect.methods.objectives import hypervolume_subset
from rankitect.models.families import axes
from rankitect.space.names import nearest
from rankitect.space.repeats import longest_row

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Latencies, Session, Trial
    from rankitect.graph import Architecture

__all__ = ["Staged", "skips_in_a_row"]

SHARES, STEP = (0.3, 0.96), 0.01
"""Latencies that are tried for the first architectures, relative to the reference's."""


class Deployable(LearnsLatency, TellsCosts, BoundsCosts, HasReference, Protocol):
    """A task with latencies, costs, bounds on them and a reference for costs, such as task=language."""


class Staged(Bayesian):
    """See the module. Needs a device."""

    class Config(Bayesian.Config):
        """Keys of `controller`."""

        samples: int | None = Field(30, ge=1, le=10**6, description="architectures healed briefly")
        finalists: int | None = Field(4, ge=1, le=10**6, description="architectures healed in full")
        initial: int = Field(
            15, ge=2, le=10**6, description="architectures before the first model: contrasts, different sizes"
        )
        contrasts: bool = Field(True, description="measure architectures that show which design rules hold, about 7")
        most_skips: int | None = Field(
            2, ge=0, le=10**6, description="layers without attention that may follow each other; null: any number"
        )
        budget: dict[str, float] = Field(
            default_factory=dict, description="largest predicted latency by name, ms: {prefill_ms: 150}"
        )

    _budget: Mapping[str, float] = {}

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """See `Deployable`."""
        return (Deployable,)

    @property
    def _deployable(self) -> Deployable:
        return require(self._task, Deployable, "controller=staged")

    @property
    def _latency(self) -> Latencies:
        """The device's latencies, of which `from_config` made sure."""
        latency = self._deployable.latency
        assert latency is not None
        return latency

    @classmethod
    def by_graph_alone(cls, config: Config) -> bool:
        """Always: what it knows beforehand, latencies and second-order estimates, is of graphs."""
        return True

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Staged:  # type: ignore[override]
        """Made from its section of the configuration.

        Raises:
            ConfigError: There is no device or no backbone, a budget is of no latency, or what
                `Bayesian` refuses.
        """
        if parts.device is None:
            raise ConfigError("controller=staged searches against a device's latency: add device=host (or analytic).")
        if offers(parts.task, HasBackbone) and parts.task.backbone_name is None:
            from rankitect.config.alternatives import controllers_for

            works = ", ".join(name for name in controllers_for(parts.task, parts.space) if name != "staged") or "none"
            raise ConfigError(
                f"controller=staged chooses by what a pretrained model foretells (HasPrior, HasContrasts), and "
                f"task={parts.names.get('task', '?')} has none: task.backbone is none. Controllers that work with it: "
                f"{works}."
            )
        names = list(parts.device.workloads)
        for name, most in config.budget.items():
            if name not in names:
                raise ConfigError(
                    f"controller.budget has no latency '{name}'{nearest(name, names)}. There are: {names}."
                )
            if most <= 0:
                raise ConfigError(f"controller.budget.{name} is {most:g}; it must be more than 0 ms.")
        controller = super().from_config(config, parts)
        assert isinstance(controller, Staged)
        controller._budget = dict(config.budget)
        if config.most_skips is not None:
            controller.bounded.rules.append(lambda a: skips_in_a_row(a) <= (config.most_skips or 0))
        return controller

    def prepare(self, session: Session) -> None:
        """Stage 1, and the first architectures."""
        super().prepare(session)
        latency = self._latency
        self._deployable.learn_latency(session.check, session.progress)
        for name in latency.workloads:
            session.charge(f"latency {name}", Spent(latency_measurements=latency.measured(name)))
            session.logger.info("%s: error of layers %.1f%%", name, latency.error(name))
        for name, most in self._budget.items():
            fastest = self.bounded.extreme(name, False, np.random.default_rng(self.seed))
            least = float(self.bounded.space.cost(fastest, name))
            if least > most:
                raise ConfigError(
                    f"controller.budget.{name} is {most:g} ms, but the fastest architecture within the constraints is "
                    f"predicted to take {least:.3g} ms."
                )
        if self._budget:
            self.bounded.rules.append(self._within_budget)
        prior, spent = (
            self._task.prior(session.check, session.progress) if offers(self._task, HasPrior) else ({}, Spent())
        )
        session.charge("prior", spent)
        contrasts = self._contrasts() if self._config.contrasts else {}  # type: ignore[attr-defined]
        count = max(self._config.initial - len(contrasts), 2)
        self._promising = self._proposed(prior)
        # Evenly spaced over the suggestions, which are ordered by size.
        places = np.linspace(0, len(self._promising) - 1, min(count, len(self._promising)))
        suggested = [self._promising[round(i)] for i in places]
        self._hints = self._guesses(prior)
        self._starts = {**contrasts, **{a: {} for a in suggested if a not in contrasts}}

    def _foretell(self, session: Session) -> None:
        """Nothing: `prepare` asks once latencies are known."""

    def _guesses(self, prior: Mapping[str, Any]) -> dict[str, Callable[[Sequence[Architecture]], np.ndarray]]:
        """Rough values of the objectives: the rise of the loss by second-order estimates, and predicted latencies.

        Some dozens of healed models cannot reveal what each choice of each layer does. With these guesses they only
        have to reveal how the truth differs from the guesses.
        """
        space = self.bounded.space

        def latency(name: str) -> Callable[[Sequence[Architecture]], np.ndarray]:
            return lambda architectures: np.log(space.cost(architectures, name))

        latencies = {name: latency(name) for name in self._latency.workloads}
        return {self.objectives.declared[0].name: expected_rise(space, prior), **latencies} if prior else latencies

    def _contrasts(self) -> dict[Architecture, dict[str, Any]]:
        """Architectures that answer questions of design, with what each stands for, where the constraints allow it.

        Rules of this search may be broken: that shows what they are worth. Finalists keep them all the same.
        """
        task, name = self._task, next(iter(self._latency.workloads))
        if not offers(task, HasContrasts):
            return {}
        architectures: dict[Architecture, dict[str, Any]] = {}
        for contrast in task.contrasts(name):
            if all(within(self.bounded.space, a, self.bounded.limits) for a in contrast.sides.values()):
                for side, architecture in contrast.sides.items():
                    tags = architectures.setdefault(architecture, {"contrasts": []})
                    tags["contrasts"].append([contrast.question, side])
        return architectures

    def eligible(self, trial: Trial) -> bool:
        """Only what keeps every rule: some architectures are measured to show the worth of a rule that they break."""
        return self.bounded.allowed(trial.architecture)

    def select(self, trials: list[Trial]) -> list[Trial]:
        """Finalists along the whole front, those of small cost first: any of them may go onto a device."""
        done = list({t.architecture.fingerprint: t for t in trials if t.ok}.values())
        costs = self.objectives.table(done)
        if not done or costs.shape[1] != 2:
            return super().select(trials)
        return [done[i] for i in sorted(hypervolume_subset(costs, self.count), key=lambda i: (costs[i, 1], i))]

    def _within_budget(self, architecture: Architecture) -> bool:
        costs = self._costs(architecture)
        return all(costs[name] <= most for name, most in self._budget.items())

    def _proposed(self, prior: dict[str, Any]) -> list[Architecture]:
        """What the estimates suggest at every size, from small to large; none of it breaks a rule or a constraint.

        Some are measured first, and all of them are candidates later: a search that changes a few of hundreds of
        choices at a time would not reach what these estimates consider best at a size between two measured ones.
        """
        bounded = self.bounded
        scores = Scores(bounded.graph_space, next(iter(self._latency.workloads)), self._deployable.reference, prior)
        rng = np.random.default_rng([self.seed, 10**6])
        suggestions = (scores.discretise(float(share), rng) for share in np.arange(*SHARES, STEP))
        return [a for a in dict.fromkeys(suggestions) if bounded.allowed(a)]


def skips_in_a_row(architecture: Architecture) -> int:
    """The most layers without attention that follow each other, among the layers that run."""
    return longest_row(axes.skips(architecture.choices))
