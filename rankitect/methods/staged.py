"""A search in two stages: many architectures measured cheaply, one after another, then the best few in full."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Proposal, Trial, offers
from rankitect.contracts.task import TunesSharedTraining
from rankitect.errors import ConfigError
from rankitect.methods.objectives import Objectives, ranking

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session
    from rankitect.graph import Architecture
    from rankitect.methods.bounded_space import BoundedSpace

__all__ = ["StagedConfig", "StagedSearch", "finalists", "measured_by", "running_low", "shared_sizes"]


class StagedConfig(BaseModel):
    """Keys of `controller` that all methods of this kind have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="architectures measured while searching; null: 48, or the task's where weights are shared",
    )
    finalists: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="the best of them, measured by the final evaluator; null: 6, or the task's, likewise",
    )
    by: Literal["screen", "proxy", "final"] = Field(
        "screen", description="evaluator that the search asks; final: each candidate in full"
    )


def measured_by(by: str, parts: Parts) -> str:
    """The evaluator that a search asks: `by`, or "final" where there is no screening in the configuration.

    Raises:
        ConfigError: A proxy is asked for and none is configured.
    """
    if by in parts.evaluators:
        return by
    if by == "screen":
        return "final"
    raise ConfigError(f"controller.by is '{by}', but evaluator.{by} is not configured. There are: screen, final.")


SAMPLES, FINALISTS = 48, 6


def shared_sizes(config: StagedConfig, task: object) -> tuple[int, int]:
    """How many architectures a search with shared weights measures, and how many of them in full.

    A look at inherited weights may cost next to nothing, and err much: a task then has numbers of its own
    (`shared_sizes`).
    """
    samples, finalists = SAMPLES, FINALISTS
    if config.by != "final" and offers(task, TunesSharedTraining):
        samples, finalists = task.shared_sizes
    return config.samples or samples, config.finalists or finalists


RESERVE = 0.4
"""Share of a limited budget that is kept for measurements in full: without them a search has no result."""
SCALED = 2
"""How many of the best finalists are also measured at every larger scale, where the space has scales."""
APART = 0.25
"""Least share of choices in which two finalists for quality differ."""


def running_low(session: Session | None, reserve: float = RESERVE) -> bool:
    """Whether what is left of a limited budget is to go to measurements in full.

    Args:
        session: Knows what is left.
        reserve: Share of the time or of the data that is kept for them; of the trials it is always `RESERVE`.
    """
    return session is not None and (session.remaining() <= reserve or session.remaining_trials() <= RESERVE)


def finalists(
    trials: list[Trial], objectives: Objectives, count: int, always: Collection[Architecture] = ()
) -> list[Trial]:
    """The trials worth measuring in full.

    With one objective these are the best. With two, half of the places are for the trade-off and half for the best
    quality. For the first half, the range of the second objective is cut into `count / 2` equal parts, each of which
    gives its best in the first objective. The second half goes to the next best in the first objective that are not
    close relatives of those chosen, since a cheap measurement errs alike on relatives. Of trials that agree in the
    first objective to the last digit only the cheapest counts: they are one function, in which some choice is idle.

    Args:
        trials: Finished trials.
        objectives: What counts.
        count: How many at most.
        always: Architectures that take a third of the places, the best of them first.

    Returns:
        Different architectures, those of small cost first.
    """
    done = list({t.architecture.fingerprint: t for t in trials if t.ok}.values())
    if not done or not count:
        return []
    costs = objectives.table(done)
    # Drop all but the cheapest of trials with equal quality: sorted by cost, an equal neighbour comes right after it.
    cheapest = sorted(range(len(done)), key=lambda i: tuple(costs[i]))
    kept = sorted(i for n, i in enumerate(cheapest) if not n or costs[i, 0] != costs[cheapest[n - 1], 0])
    done, costs = [done[i] for i in kept], costs[kept]
    order = [int(i) for i in costs[:, 0].argsort(kind="stable")]
    known = [i for i in order if done[i].architecture in always][: count // 3]
    if costs.shape[1] == 1:
        return [done[i] for i in _apart(done, known, order, count)]
    # Equal bands of the second objective, and the best in the first of each band that holds any trial.
    second = costs[:, 1]
    span = max(float(second.max() - second.min()), 1e-12)
    bands = (count - len(known) + 1) // 2
    band = np.minimum(((second - second.min()) / span * bands).astype(int), bands - 1)
    best = [int(members[costs[members, 0].argmin()]) for b in range(bands) if len(members := np.nonzero(band == b)[0])]
    chosen = _apart(done, list(dict.fromkeys([*known, *best])), order, count)
    return [done[i] for i in sorted(chosen, key=lambda i: (second[i], i))]


def _apart(trials: list[Trial], chosen: list[int], order: list[int], count: int) -> list[int]:
    """Chosen positions, filled up to `count` in an order: first with those far from all chosen, then with any."""
    apart = list(chosen)
    for far in (True, False):
        for i in order:
            if len(apart) < count and i not in apart:
                near = min((_distance(trials[i].architecture, trials[k].architecture) for k in apart), default=1.0)
                if near >= APART or not far:
                    apart.append(i)
    return apart


def _distance(one: Architecture, other: Architecture) -> float:
    """Share of choices that differ, among those that have an effect in either architecture."""
    paths = one.choices.keys() | other.choices.keys()
    return sum(one.get(path) != other.get(path) for path in paths) / max(1, len(paths))


class StagedSearch:
    """The base of methods that propose one architecture after another and then have the best measured in full.

    A method gives `propose`, a function of a generator (made of seed and index) and of what it was told. Nothing is
    proposed twice; failed trials count as the worst. To resume, it is told again what was measured, batch by batch.

    Args:
        samples: Architectures measured while searching; None for the usual number.
        count: Finalists; None for the usual number.
        by: Evaluator of the first stage; "final" leaves out the second.
        objectives: What counts.
        seed: Of all proposals.
    """

    bounded: BoundedSpace
    always: Collection[Architecture] = ()
    """Architectures of which some are finalists in any case, if they were measured."""
    reserve = RESERVE
    """Share of a limited budget that is kept for measurements in full."""

    def __init__(self, samples: int | None, count: int | None, by: str, objectives: Objectives, seed: int) -> None:
        self.samples, self.count = samples or SAMPLES, FINALISTS if count is None else count
        self.by, self.objectives, self.seed = by, objectives, seed
        self.told: list[Trial] = []
        self.known: set[str] = set()
        self.pending: list[Architecture] = []
        self._asked = self._asked_finals = 0
        self._used_up = False
        self._session: Session | None = None
        self._chosen: list[tuple[Architecture, int]] | None = None
        self._first: set[Architecture] = set()
        self._scaled = self._low = False
        self._reopened: set[Architecture] = set()
        self.finals: list[Trial] = []

    @property
    def expected_trials(self) -> int:
        """Trials of both stages, for the estimate of the time left."""
        return self.samples + (self.count if self.by != "final" else 0)

    def prepare(self, session: Session) -> None:
        """Keep the session, which knows what is left of the budget."""
        self._session = session

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """The architecture of an index with its tags; None where there is nothing new to propose."""
        raise NotImplementedError

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` proposals of the first stage, then of the second."""
        out: list[Proposal] = []
        most = self._most()
        while len(out) < n and self._asked < most and not self._used_up:
            proposed = self.propose(self._asked, np.random.default_rng([self.seed, self._asked]))
            if proposed is None:
                self._used_up = True
                logging.getLogger("rankitect").info("nothing new within the constraints after %d draws", self._asked)
                break
            out.append(Proposal(proposed[0], self.by, proposed[1]))
            self._note(proposed[0])
        if out or self.by == "final":
            return out
        # The second stage: finalists are chosen once, when all results of the first are there (see `waits`).
        measured = {trial.architecture for trial in self.finals} | self._reopened
        if self._chosen is None:
            best = self.select([t for t in self.told if self.eligible(t)])
            self._first = {trial.architecture for trial in best}
            self._chosen = [(trial.architecture, trial.number) for trial in best if trial.architecture not in measured]
        if self._asked_finals >= len(self._chosen) and not self._scaled:
            # All finalists are measured: the best of them are tried at the larger scales of the space, too.
            self._scaled = True
            good = [trial for trial in self.finals if trial.ok and trial.architecture in self._first]
            known = measured | self._first
            for trial in (good[i] for i in ranking(self.objectives.table(good)[:, :1])[:SCALED]):
                more = [a for a in self.scaled(trial.architecture) if a not in known]
                self._chosen += [(a, int(trial.tags["screened"])) for a in more]
        asked = self._chosen[self._asked_finals : self._asked_finals + n]
        self._asked_finals += len(asked)
        return [Proposal(architecture, "final", {"screened": number}) for architecture, number in asked]

    def eligible(self, trial: Trial) -> bool:
        """A hook: whether a trial may become a finalist."""
        return True

    def _most(self) -> int:
        """Trials of the first stage."""
        # Decided once: a clock that passes the limit between two questions must not change the answer.
        self._low = self._low or (self.by != "final" and running_low(self._session, self.reserve))
        return 0 if self._low else self.samples

    def waits(self) -> bool:
        """Whether all results must be there first: before finalists are chosen, and before they are scaled up."""
        if self._asked < self._most() and not self._used_up:
            return False
        if self._chosen is None or self._asked_finals >= len(self._chosen):
            return not self._scaled
        return False

    def reopen(self, trials: list[Trial]) -> None:
        """Count what an earlier process asked for whose results are still to come."""
        for trial in trials:
            if trial.evaluator == self.by:
                self._note(trial.architecture)
            else:
                self._reopened.add(trial.architecture)

    def select(self, trials: list[Trial]) -> list[Trial]:
        """A hook: the finalists among trials of the first stage."""
        return finalists(trials, self.objectives, self.count, self.always)

    def scaled(self, architecture: Architecture) -> list[Architecture]:
        """Larger variants of one of the best finalists, to be measured in full; none in a search of the whole space.

        Small models are searched, then scaled (EfficientNet, arXiv 1905.11946).
        """
        return self.bounded.scaled(architecture)[1:]

    def _note(self, architecture: Architecture) -> None:
        self._asked += 1
        self.known.add(architecture.fingerprint)
        self.pending.append(architecture)

    def tell(self, trials: list[Trial]) -> None:
        """Remember the results of the first stage, and learn from them."""
        searched = [trial for trial in trials if trial.evaluator == self.by]
        if searched:
            self.told += searched
            told = {trial.architecture for trial in searched}
            self.pending = [a for a in self.pending if a not in told]
            self.learn(searched)
        if self.by != "final":
            self.finals += [trial for trial in trials if trial.evaluator == "final"]

    def learn(self, trials: list[Trial]) -> None:
        """A hook: what else a method does with the results of one `ask` of the first stage."""

    def recover(self, trials: list[Trial]) -> None:
        """Replay what was measured, one `ask` after another; nothing is proposed anew."""
        batches: dict[int, list[Trial]] = {}
        for trial in trials:
            batches.setdefault(trial.batch, []).append(trial)
        for number in sorted(batches):
            for trial in batches[number]:
                if trial.evaluator == self.by:
                    self._note(trial.architecture)
            self.tell(batches[number])
