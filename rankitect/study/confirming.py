"""What a search found, measured again: the winner of many noisy measurements looks better than it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankitect.contracts import MetricSpec, Proposal, Trial
from rankitect.study.pareto import candidates, pareto_front

__all__ = ["CONFIRM", "Confirmation", "wanted"]

CONFIRM = -1
"""The batch of trials that confirm what a search found; no controller is told of them."""


@dataclass(frozen=True)
class Confirmation:
    """How often what counts is measured.

    Attributes:
        seeds: Measurements of each candidate of the front and of each baseline, with seeds one after another; 1 leaves
            it at what the search has done.
        candidates: Architectures that are measured again, at most; 0 where the search has trained their weights, and
            another seed would measure the same ones.
    """

    seeds: int = 1
    candidates: int = 6


def wanted(
    trials: Sequence[Trial], evaluator: str, objectives: Sequence[MetricSpec], plan: Confirmation, seed: int
) -> list[tuple[Proposal, str | None]]:
    """Measurements that are still to be made, each with the name of the baseline that it is of.

    A candidate may leave the front when its mean is known, and another may take its place: ask again when these are
    done, until nothing is wanted.

    Args:
        trials: All trials so far.
        evaluator: Key of the final evaluator.
        objectives: What the front is taken over.
        plan: How often.
        seed: The study's; the first measurement's.
    """
    if plan.seeds < 2:
        return []
    seeds = range(seed + 1, seed + plan.seeds)
    have = {(t.baseline, t.architecture.fingerprint, t.seed) for t in trials if t.evaluator == evaluator}
    front = [c.trial.architecture for c in pareto_front(candidates(trials, evaluator), objectives)]
    again = {t.architecture.fingerprint for t in trials if t.batch == CONFIRM and t.baseline is None}
    new = [a for a in front if a.fingerprint not in again][: max(0, plan.candidates - len(again))]
    named = {(t.baseline, t.architecture.fingerprint): t.architecture for t in trials if t.baseline and t.ok}
    models = [*((name, a) for (name, _), a in named.items()), *((None, a) for a in new)]
    return [
        (Proposal(architecture, evaluator, seed=other), name)
        for name, architecture in models
        for other in seeds
        if (name, architecture.fingerprint, other) not in have
    ]
