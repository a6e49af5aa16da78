"""Whom a candidate is held against: the production model, the registered live model, and the best baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rankitect.errors import RunFolderError
from rankitect.metrics.intervals import around
from rankitect.production.answers import AnswerTable
from rankitect.production.change import change
from rankitect.production.evidence import Evidence
from rankitect.production.gates import Observed
from rankitect.reports.roles import Roles
from rankitect.study.summary import BaselineSummary, CandidateSummary, MetricSummary

__all__ = ["Rival", "Standing", "best_baseline", "live_model", "production_of", "relative_change", "rivals_of", "times"]


class Standing(StrEnum):
    """Why a model is one that a candidate is held against."""

    NAMED = "named"
    """The configuration or the command line names it as the production model."""
    LIVE = "live"
    """It is the newest registered production model."""
    LOGGED = "logged"
    """It is what production answered when the rows were logged."""
    REFERENCE = "reference"
    """Costs are a share of its, as of the backbone that candidates are pruned from."""
    BEST = "best"
    """It is the best baseline by the metric that the search went by."""


@dataclass(frozen=True)
class Rival:
    """A model that the headline states the gain over.

    Attributes:
        model: The model.
        standings: Why it is one, the one that made it the production model first.
        change: The relative change of the quality from it to the candidate; None where one of them has none.
        paired: Whether the change is over the same rows.
    """

    model: BaselineSummary
    standings: tuple[Standing, ...]
    change: Observed | None
    paired: bool

    @property
    def name(self) -> str:
        """How it is called."""
        return self.model.name.replace("_", " ")


def production_of(
    models: Sequence[BaselineSummary], roles: Roles, name: str | None
) -> tuple[BaselineSummary, Standing]:
    """The model to replace, and why it is that one.

    Args:
        models: The baselines that have the quality.
        roles: What is quality and what is cost.
        name: The name that the configuration or the command line gives; None where it gives none.

    Raises:
        RunFolderError: There is no model of that name.
    """
    if name is not None:
        # A model that somebody registered under the name of a known one is what is meant by it.
        same = [b for b in models if b.registered is not None and b.name.rpartition(" v")[0] == name]
        same = same or [b for b in models if name in (b.name, b.name.replace("_", " "))]
        if not same:
            raise RunFolderError(
                f"There is no baseline '{name}' in this run with a value of {roles.quality.name}: "
                f"{', '.join(b.name for b in models)}. Add one with python "
                "-m rankitect.baseline add, and repeat the search's command to have it measured."
            )
        return same[-1], Standing.NAMED
    if (live := live_model(models, roles)) is not None:
        return live, Standing.LIVE
    if (logged := next((b for b in models if b.logged), None)) is not None:
        return logged, Standing.LOGGED
    if roles.reference is not None and roles.reference.reference and roles.reference in models:
        return roles.reference, Standing.REFERENCE
    return best_baseline(models, roles), Standing.BEST


def live_model(baselines: Sequence[BaselineSummary], roles: Roles) -> BaselineSummary | None:
    """The newest registered production model, of those that have a value of the quality where any has; None where none
    is live."""
    live = [b for b in baselines if b.registered is not None and b.registered.live]
    live = [b for b in live if roles.quality.name in b.metrics] or live
    return max(live, key=lambda b: b.registered.added if b.registered else "", default=None)


def best_baseline(models: Sequence[BaselineSummary], roles: Roles) -> BaselineSummary:
    """The best of some baselines by what the search went by, so that no test data decide which one it is.

    Args:
        models: At least one, each with the quality.
        roles: What is quality and what is cost.
    """
    built = [b for b in models if not b.logged] or models  # logged scores are production, and no model to build
    if roles.cost is not None:
        built = [b for b in built if roles.cost.name in b.metrics] or built
    selected = all(roles.selection in b.metrics for b in built)
    by = roles.selection if selected else roles.quality.name
    return min(built, key=lambda b: -roles.sign * b.metrics[by].value)


def rivals_of(
    candidate: CandidateSummary,
    production: tuple[BaselineSummary, Standing],
    baselines: Sequence[BaselineSummary],
    roles: Roles,
    evidence: Evidence | None,
    answers: AnswerTable | None = None,
) -> list[Rival]:
    """The production model, the registered live model and the best baseline, each once, and the change over each.

    Args:
        candidate: The candidate; what is the same model is no rival.
        production: The production model, and why it is that one.
        baselines: All baselines; the live model is named even where it has no value of the quality.
        roles: What is quality and what is cost.
        evidence: The rows that the models were measured on, where the run keeps them.
        answers: What each question gave the quality, where it is a mean over questions.
    """
    models = [b for b in baselines if roles.quality.name in b.metrics] or [production[0]]
    claims = [production, (best_baseline(models, roles), Standing.BEST)]
    if (live := live_model(baselines, roles)) is not None:
        claims.insert(1, (live, Standing.LIVE))
    rivals = []
    for name in dict.fromkeys(model.name for model, _ in claims):
        same = [(model, standing) for model, standing in claims if model.name == name]
        model, standings = same[0][0], tuple(dict.fromkeys(standing for _, standing in same))
        if model.fingerprint != candidate.fingerprint:
            rivals.append(Rival(model, standings, *_quality_change(candidate, model, roles, evidence, answers)))
    return rivals


def _quality_change(
    candidate: CandidateSummary,
    model: BaselineSummary,
    roles: Roles,
    evidence: Evidence | None,
    answers: AnswerTable | None,
) -> tuple[Observed | None, bool]:
    """The relative change of the quality, and whether it is over the same rows."""
    rows = evidence is not None and {candidate.fingerprint, model.fingerprint} <= set(evidence.losses)
    if evidence is not None and rows and evidence.metric == roles.quality.name:
        over = change(evidence, candidate.fingerprint, model.fingerprint)
        return Observed(over.value, over.low, over.high, over.vague), True
    paired = None if answers is None else answers.change(candidate.fingerprint, model.fingerprint)
    return paired or relative_change(candidate.metrics, model.metrics, roles.quality.name), paired is not None


def relative_change(ours: dict[str, MetricSummary], theirs: dict[str, MetricSummary], name: str) -> Observed | None:
    """The relative change of a metric without rows; None where one of both has none."""
    if name not in ours or name not in theirs or not theirs[name].value:
        return None
    one, other = ours[name], theirs[name]
    value = one.value / other.value - 1
    if one.ci95 is None and other.ci95 is None:
        return Observed.exact(value)
    # Unpaired: relative errors of independent values add up as squares.
    vague = any(m.ci95 is not None and m.interval is None for m in (one, other))
    return times(value, math.hypot(_half(one), _half(other)), vague)


def times(value: float, error: float, vague: bool = False) -> Observed:
    """A relative change whose ratio has this relative 95% error, on the logarithmic scale: it stays above -100%."""
    low, high = sorted(end - 1 for end in around(1 + value, error))
    return Observed(value, low, high, vague)


def _half(metric: MetricSummary) -> float:
    """Half of the 95% interval, relative to the value."""
    if metric.ci95 is None or not metric.value:
        return 0.0
    return abs((metric.ci95[1] - metric.ci95[0]) / 2 / metric.value)
