"""Candidates against the baselines at equal cost: where each model stands, who wins, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from rankitect.production.answers import AnswerTable
from rankitect.production.change import change
from rankitect.production.evidence import Evidence
from rankitect.reports.numbers import possible
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run
from rankitect.study.summary import CandidateSummary, MetricSummary

__all__ = ["Comparison", "How", "ModelPoint", "best_of", "compare", "families", "points_of", "standing"]

# Costs closer than half a percentage point of the reference count as equal; pruning to whole channels is not finer.
_SAME_COST = 0.005
Kind: TypeAlias = Literal["candidate", "reference", "baseline"]
How: TypeAlias = Literal["measured", "interpolated", "costlier", "cheaper", "best of all", "best of all, cheaper"]


@dataclass(frozen=True)
class ModelPoint:
    """A model in the plane of cost and quality.

    Attributes:
        label: Its name.
        kind: What it is.
        cost: In the unit of the axis (`Roles.unit`).
        quality: In the unit of the objective.
        family: The recipe that a baseline is one size of; "" for others.
        ci95: Interval of the quality, where known.
        n: The number of repeats or examples that the quality is a mean of.
        fingerprint: Of its architecture.
        rank: Of a candidate, from 1.
        selection: The metric that the search went by (`Roles.selection`); not a number where unmeasured.
    """

    label: str
    kind: Kind
    cost: float
    quality: float
    family: str = ""
    ci95: tuple[float, float] | None = None
    n: int | None = None
    fingerprint: str = ""
    rank: int = 0
    selection: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """A candidate against the best baseline of its cost.

    Attributes:
        point: The candidate.
        reference: The baseline's quality at the candidate's cost.
        against: Which baseline, as text.
        how: "measured" at the same cost; "interpolated" between two costs; "costlier": no baseline is as cheap, so the
            cheapest one stands in, which costs more than the candidate and is worse; "cheaper": the candidate costs
            more than every baseline and is worse. Among models of different recipes, "best of all": the best of them,
            which costs at least as much as the candidate; "best of all, cheaper": the best of them, which costs less.
        gain: Relative gain over the reference; positive is better.
        separated: Whether the 95% interval of the paired difference excludes zero or, where that was not measured, the
            two 95% intervals do not overlap; None where an interval is missing.
        paired: The 95% interval of the relative gain on the same rows, where these are known.
        mixture: Fingerprints of the baselines that the reference is made of, each with its share.
    """

    point: ModelPoint
    reference: float
    against: str
    how: How
    gain: float
    separated: bool | None
    paired: tuple[float, float] | None = None
    mixture: tuple[tuple[str, float], ...] = ()

    @property
    def won(self) -> bool:
        """Whether the candidate is better, and at no more cost."""
        return self.gain > 0 and self.how != "best of all, cheaper"

    @property
    def tone(self) -> str:
        """The colour of the gain: good is better at no more cost; better at more cost is neither."""
        return "good" if self.won else "bad" if self.gain <= 0 else ""

    @property
    def among_models(self) -> bool:
        """Whether it is with the best of models of different recipes, whatever that costs."""
        return self.how.startswith("best of all")


def best_of(run: Run, comparisons: Sequence[Comparison]) -> CandidateSummary | None:
    """The candidate to look at first: the largest gain at equal cost, or rank 1 where none can be compared."""
    fair = [c for c in comparisons if c.how != "costlier"]
    ranks = [max(fair, key=standing).point.rank] if fair else []
    return min(run.summary.pareto, key=lambda c: (c.rank not in ranks, c.rank), default=None)


def standing(comparison: Comparison) -> tuple[bool, bool, float]:
    """What to look at first, larger is first: wins, then comparisons at equal cost, then the gain."""
    return comparison.won, comparison.how != "costlier", comparison.gain


def points_of(run: Run, roles: Roles) -> list[ModelPoint]:
    """Every baseline and candidate that has both a cost and a quality, baselines first."""
    points = []
    for baseline in run.summary.baselines:
        kind: Kind = "reference" if baseline is roles.reference else "baseline"
        family = "" if kind == "reference" else baseline.family.replace("_", " ")
        label = baseline.name.replace("_", " ")
        points += _placed(
            ModelPoint(label, kind, 0.0, 0.0, family, fingerprint=baseline.fingerprint), baseline.metrics, roles
        )
    for one in run.summary.pareto:
        point = ModelPoint(f"candidate {one.rank}", "candidate", 0.0, 0.0, fingerprint=one.fingerprint, rank=one.rank)
        points += _placed(point, one.metrics, roles)
    return points


def _placed(point: ModelPoint, metrics: Mapping[str, MetricSummary], roles: Roles) -> list[ModelPoint]:
    """The point at its cost and quality; nothing where one of these was not measured."""
    cost, quality = roles.cost_of(metrics), metrics.get(roles.quality.name)
    if cost is None or quality is None:
        return []
    ci95 = possible(roles.quality.name, quality.interval)
    went_by = metrics[roles.selection].value if roles.selection in metrics else math.nan
    return [replace(point, cost=cost, quality=quality.value, ci95=ci95, n=quality.n, selection=went_by)]


def families(points: Sequence[ModelPoint]) -> dict[str, list[ModelPoint]]:
    """Baselines by recipe ("uniform width 60%" and "uniform width 75%" are one), from cheap to costly."""
    grouped: dict[str, list[ModelPoint]] = {}
    for point in points:
        if point.kind == "baseline":
            grouped.setdefault(point.family or point.label, []).append(point)
    return {name: sorted(members, key=lambda p: p.cost) for name, members in grouped.items()}


def compare(
    points: Sequence[ModelPoint],
    roles: Roles,
    evidence: Evidence | None = None,
    answers: AnswerTable | None = None,
) -> list[Comparison]:
    """Compare each candidate with the best baseline of its cost; paired over examples where that was measured.

    Between two baselines of one recipe the quality is interpolated along cost, in the logarithm where all are positive:
    that follows the bend of a pruning curve and is the stricter reference where the curve is convex. The reference
    model is every recipe's upper end. Nothing is extrapolated: beyond the baselines' costs only a candidate that is
    cheaper and better, or dearer and worse, can be compared.

    Args:
        points: Baselines and candidates.
        roles: What is quality and what is cost.
        evidence: The rows that the models were measured on, where the run keeps them.
        answers: What each question gave the quality, where it is a mean over questions.

    Returns:
        One comparison a candidate that can be compared, in the order of the candidates.
    """
    models = [p for p in points if p.kind != "candidate"]
    candidates = [p for p in points if p.kind == "candidate"]
    grouped = families(points)
    if len(models) > 1 and len(grouped) == len(models):  # no two of one recipe, and no reference
        comparisons = [_against_models(p, models, roles) for p in candidates]
    else:
        curves = _curves(grouped, [p for p in points if p.kind == "reference"])
        each = (_best_curve(p, curves, roles) for p in candidates)
        comparisons = [c for c in each if c is not None]
    return [_over_questions(c, roles, answers) if answers else _over_rows(c, roles, evidence) for c in comparisons]


def _curves(
    grouped: Mapping[str, Sequence[ModelPoint]], reference: Sequence[ModelPoint]
) -> dict[str, list[ModelPoint]]:
    """The models of each recipe from cheap to costly, with the reference at the upper end."""
    if not grouped:
        return {r.label: [r] for r in reference}
    return {name: [*members, *(r for r in reference if r.cost > members[-1].cost)] for name, members in grouped.items()}


def _best_curve(point: ModelPoint, curves: Mapping[str, Sequence[ModelPoint]], roles: Roles) -> Comparison | None:
    """A candidate against the recipe that is hardest to beat; None where it can be compared with none."""
    each = [c for c in (_against(point, name, curve, roles) for name, curve in curves.items()) if c is not None]
    # A reference at the same cost says more than one of another cost.
    fair = [c for c in each if c.how in ("measured", "interpolated")] or each
    return min(fair, key=lambda c: c.gain, default=None)


def _over_rows(comparison: Comparison, roles: Roles, evidence: Evidence | None) -> Comparison:
    """The same with the interval of the gain over the same rows: that of the change of the quality, turned round."""
    names = [comparison.point.fingerprint, *(name for name, _ in comparison.mixture)]
    if evidence is None or evidence.metric != roles.quality.name or not comparison.mixture:
        return comparison
    if any(name not in evidence.losses for name in names):
        return comparison
    paired = change(evidence, comparison.point.fingerprint, dict(comparison.mixture))
    if paired.vague:
        return replace(comparison, separated=None)
    return replace(comparison, paired=(-paired.high, -paired.low), separated=paired.separated)


def _over_questions(comparison: Comparison, roles: Roles, answers: AnswerTable) -> Comparison:
    """The same with the interval of the gain over the same questions, where it is over one model."""
    others = [name for name, share in comparison.mixture if share]
    observed = answers.change(comparison.point.fingerprint, others[0]) if len(others) == 1 else None
    if observed is None:
        return comparison
    if observed.vague:
        return replace(comparison, separated=None)
    low, high = sorted((roles.sign * observed.low, roles.sign * observed.high))
    return replace(comparison, paired=(low, high), separated=low > 0 or high < 0)


def _against_models(point: ModelPoint, models: Sequence[ModelPoint], roles: Roles) -> Comparison:
    """A candidate against models of different recipes: the best by what the search went by, whatever it costs."""
    known = not any(math.isnan(p.selection) for p in models)
    best = min(models, key=lambda p: -roles.sign * (p.selection if known else p.quality))
    how: How = "best of all" if point.cost <= best.cost * (1 + _SAME_COST) else "best of all, cheaper"
    return _with(point, best, how, roles)


def _against(point: ModelPoint, name: str, curve: Sequence[ModelPoint], roles: Roles) -> Comparison | None:
    tolerance = _SAME_COST * (1.0 if roles.unit == "share" else max(p.cost for p in curve))
    near = [p for p in curve if abs(p.cost - point.cost) <= tolerance]
    if near:
        best = min(near, key=lambda p: -roles.sign * p.quality)
        return _with(point, best, "measured", roles)
    for low, high in pairwise(curve):
        if low.cost < point.cost < high.cost:
            share = (point.cost - low.cost) / (high.cost - low.cost)
            quality = _between(low.quality, high.quality, share)
            ends = (low.ci95, high.ci95)
            spread = None
            if ends[0] and ends[1]:
                spread = (_between(ends[0][0], ends[1][0], share), _between(ends[0][1], ends[1][1], share))
            label = f"{name}, {roles.cost_text(low.cost)} to {roles.cost_text(high.cost)}"
            mixture = ((low.fingerprint, 1 - share), (high.fingerprint, share))
            return _comparison(point, quality, label, "interpolated", spread, roles, mixture)
    if point.cost < curve[0].cost:
        first = curve[0]
        beside = _with(point, first, "costlier", roles)
        return beside if beside.gain > 0 else None
    beside = _with(point, curve[-1], "cheaper", roles)
    return beside if beside.gain <= 0 else None


def _with(point: ModelPoint, model: ModelPoint, how: How, roles: Roles) -> Comparison:
    """A candidate with one model as it was measured."""
    return _comparison(point, model.quality, model.label, how, model.ci95, roles, ((model.fingerprint, 1.0),))


def _between(low: float, high: float, share: float) -> float:
    if low > 0 and high > 0:
        return math.exp((1 - share) * math.log(low) + share * math.log(high))
    return (1 - share) * low + share * high


def _comparison(
    point: ModelPoint,
    reference: float,
    against: str,
    how: How,
    spread: tuple[float, float] | None,
    roles: Roles,
    mixture: tuple[tuple[str, float], ...] = (),
) -> Comparison:
    separated = None
    if point.ci95 and spread:
        separated = point.ci95[1] < spread[0] or spread[1] < point.ci95[0]
    return Comparison(point, reference, against, how, roles.gain(point.quality, reference), separated, None, mixture)
