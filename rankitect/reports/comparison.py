"""Candidates against the baselines at equal cost: the roles of the objectives, the points, and who wins by how much."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from rankitect.production.change import change
from rankitect.production.evidence import Evidence
from rankitect.reports.numbers import FINE, as_percent, as_value, is_share, possible, readable_name
from rankitect.reports.reading import Baseline, Metric, Objective, Run

__all__ = ["Comparison", "How", "Point", "Roles", "compare", "families", "points_of", "roles_of", "standing"]

_SIZE_SUFFIX = re.compile(r"[\s_@:(-]*\d+(\.\d+)?\s*%?\)?$")
# Costs closer than half a percentage point of the backbone count as equal; pruning to whole channels is not finer.
_SAME_COST = 0.005
How: TypeAlias = Literal["measured", "interpolated", "costlier", "cheaper", "best of all", "best of all, cheaper"]


@dataclass(frozen=True)
class Roles:
    """Which objective is quality and which is cost, and the reference model for shares.

    Attributes:
        quality: The objective that says how good a model is.
        cost: The objective that says what it costs, or None where the search had no such objective.
        backbone: The reference baseline: the one named backbone, else the costliest, else None.
        scale: What a cost is divided by to be shown: the backbone's cost where shares are shown, else 1.
        unit: The unit of the costs shown; "share" where they are shares of the backbone.
    """

    quality: Objective
    cost: Objective | None
    backbone: Baseline | None
    scale: float
    unit: str

    @property
    def quality_label(self) -> str:
        """Axis title for quality, with its unit and direction."""
        unit = self.quality.unit
        shown = f", {unit}" if unit and unit.lower() != self.quality.name.lower() and unit.lower() not in FINE else ""
        better = "lower" if self.quality.direction == "min" else "higher"
        return f"{readable_name(self.quality.name)}{shown} ({better} is better)"

    @property
    def cost_label(self) -> str:
        """Axis title for cost, with its unit."""
        if self.cost is None:
            return ""
        name = readable_name(self.cost.name.removesuffix("_share").removesuffix("_ratio"))
        if self.unit == "share":
            return f"{name}, % of the {self.backbone.name if self.backbone else 'backbone'}"
        return f"{name}, {self.unit}" if self.unit and self.unit != name else name

    def cost_text(self, cost: float) -> str:
        """A cost as text, in the unit of the axis."""
        return as_percent(cost) if self.unit == "share" else as_value(cost, self.unit)

    def cost_phrase(self, low: float, high: float | None = None) -> str:
        """A cost, or a span of costs, within a sentence: "60% of the backbone's block FLOPs"."""
        text = self.cost_text(low) + (f" to {self.cost_text(high)}" if high is not None else "")
        if self.cost is None or self.unit != "share":
            return text
        name = readable_name(self.cost.name.removesuffix("_share").removesuffix("_ratio"))
        name = name if name[1:2].isupper() else name[:1].lower() + name[1:]
        return f"{text} of the {self.backbone.name if self.backbone else 'backbone'}'s {name}"

    def cost_of(self, metrics: Mapping[str, Metric]) -> float | None:
        """A model's cost in the unit of the axis, or None."""
        found = metrics.get(self.cost.name) if self.cost else None
        return None if found is None or found.value is None else found.value / self.scale

    def better(self, one: float, other: float) -> bool:
        """Whether one quality is better than another."""
        return one < other if self.quality.direction == "min" else one > other

    def gain(self, quality: float, reference: float) -> float:
        """How much better a quality is than a reference, relative to it; positive is better, 0.05 is 5%."""
        if reference == 0:
            return 0.0 if quality == 0 else math.copysign(math.inf, self.sign * (quality - reference))
        return self.sign * (quality - reference) / abs(reference)

    @property
    def sign(self) -> int:
        """-1 where lower quality values are better, else 1."""
        return -1 if self.quality.direction == "min" else 1


@dataclass(frozen=True)
class Point:
    """A model in the plane of cost and quality."""

    label: str
    kind: Literal["candidate", "backbone", "baseline"]
    cost: float
    quality: float
    family: str = ""
    ci95: tuple[float, float] | None = None
    n: int | None = None
    fingerprint: str = ""
    rank: int = 0


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

    point: Point
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
    def among_models(self) -> bool:
        """Whether it is with the best of models of different recipes, whatever that costs."""
        return self.how.startswith("best of all")


def standing(comparison: Comparison) -> tuple[bool, bool, float]:
    """What to look at first, larger is first: wins, then comparisons at equal cost, then the gain."""
    return comparison.won, comparison.how != "costlier", comparison.gain


def roles_of(run: Run) -> Roles | None:
    """Decide which objective is quality and which is cost; None where the summary has no objectives."""
    objectives = run.summary.objectives
    if not objectives:
        return None
    objectives = [_shown(o, run) for o in objectives]
    costs = [o for o in objectives if o.role == "cost"]
    quality = next((o for o in objectives if o.role == "quality"), objectives[0])
    rest = [o for o in objectives if o is not quality]
    cost = costs[0] if costs and costs[0] is not quality else (rest[0] if rest else None)
    backbone = _backbone(run.summary.baselines, cost)
    scale, unit = 1.0, cost.unit if cost else ""
    if cost and unit.strip().lower() in ("%", "percent"):
        scale, unit = 100.0, "share"
    elif cost and is_share(unit):
        unit = "share"
    elif cost and backbone and cost.name in backbone.metrics and backbone.metrics[cost.name].value:
        scale, unit = float(backbone.metrics[cost.name].value or 1), "share"
    return Roles(quality, cost, backbone, scale, unit)


def _shown(objective: Objective, run: Run) -> Objective:
    """The objective on data by which nothing was chosen, where every model has it."""
    name = objective.held_out
    measured = [*(b.metrics for b in run.summary.baselines), *(c.metrics for c in run.summary.pareto)]
    if name is None or not all(name in metrics for metrics in measured):
        return objective
    return objective.model_copy(update={"name": name})


def _backbone(baselines: Sequence[Baseline], cost: Objective | None) -> Baseline | None:
    named = [b for b in baselines if "backbone" in b.name.lower()]
    if named:
        return named[-1]
    whole = [b for b in baselines if cost and cost.name in b.metrics and not _SIZE_SUFFIX.search(b.name)]
    if len(whole) > 1:  # models of different recipes
        return None
    return max(whole, key=lambda b: b.metrics[cost.name].value or 0.0) if cost and whole else None


def points_of(run: Run, roles: Roles) -> list[Point]:
    """Every baseline and candidate that has both a cost and a quality, baselines first."""
    points, quality = [], roles.quality.name
    for baseline in run.summary.baselines:
        placed = _place(baseline.metrics, roles)
        if placed:
            is_backbone = baseline is roles.backbone
            family = "" if is_backbone else _SIZE_SUFFIX.sub("", baseline.name).replace("_", " ").strip()
            kind: Literal["backbone", "baseline"] = "backbone" if is_backbone else "baseline"
            found = baseline.metrics[quality]
            name, print_ = baseline.name.replace("_", " "), baseline.fingerprint or ""
            points.append(Point(name, kind, *placed, family, possible(quality, found.ci95), found.n, print_))
    for candidate in run.summary.pareto:
        placed = _place(candidate.metrics, roles)
        if placed:
            found, rank = candidate.metrics[quality], candidate.rank
            name = f"candidate {rank}"
            points.append(
                Point(
                    name, "candidate", *placed, "", possible(quality, found.ci95), found.n, candidate.fingerprint, rank
                )
            )
    return points


def _place(metrics: Mapping[str, Metric], roles: Roles) -> tuple[float, float] | None:
    cost, quality = roles.cost_of(metrics), metrics.get(roles.quality.name)
    return None if cost is None or quality is None or quality.value is None else (cost, quality.value)


def families(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Baselines by recipe ("uniform width 60%" and "uniform width 75%" are one), from cheap to costly."""
    grouped: dict[str, list[Point]] = {}
    for point in points:
        if point.kind == "baseline":
            grouped.setdefault(point.family or point.label, []).append(point)
    return {name: sorted(members, key=lambda p: p.cost) for name, members in grouped.items()}


def compare(points: Sequence[Point], roles: Roles, run: Run | None = None) -> list[Comparison]:
    """Compare each candidate with the best baseline of its cost; paired over examples where that was measured.

    See `_compare` for what is compared with what.

    Args:
        points: Baselines and candidates.
        roles: What is quality and what is cost.
        run: Where the rows are that the models were measured on.

    Returns:
        One comparison a candidate that can be compared, in the order of the candidates.
    """
    found = _compare(points, roles)
    if run is None or not found:
        return found
    return [_over_rows(c, roles, run.evidence) for c in found]


def _over_rows(found: Comparison, roles: Roles, evidence: Evidence | None) -> Comparison:
    """The interval of the gain over the same rows, which is that of the change of the quality, turned round."""
    names = [found.point.fingerprint, *(name for name, _ in found.mixture)]
    if evidence is None or evidence.metric != roles.quality.name or not found.mixture:
        return found
    if any(name not in evidence.losses for name in names):
        return found
    made = change(evidence, found.point.fingerprint, dict(found.mixture))
    return replace(found, paired=(-made.high, -made.low), separated=made.separated)


def _compare(points: Sequence[Point], roles: Roles) -> list[Comparison]:
    """Compare each candidate with the best baseline of its cost.

    Between two baselines of one recipe the quality is interpolated along cost, in the logarithm where all are positive:
    that follows the bend of a pruning curve and is the stricter reference where the curve is convex. The backbone is
    every recipe's upper end. Nothing is extrapolated: beyond the baselines' costs only a candidate that is cheaper and
    better, or dearer and worse, can be compared.

    Args:
        points: Baselines and candidates.
        roles: What is quality and what is cost.

    Returns:
        One comparison a candidate that can be compared, in the order of the candidates.
    """
    models = [p for p in points if p.kind != "candidate"]
    if len(models) > 1 and all(p.kind == "baseline" for p in models) and len(families(points)) == len(models):
        return [_against_models(p, models, roles) for p in points if p.kind == "candidate"]
    grouped = families(points)
    backbone = [p for p in points if p.kind == "backbone"]
    curves = {
        name: [*members, *(b for b in backbone if b.cost > members[-1].cost)] for name, members in grouped.items()
    } or {b.label: [b] for b in backbone}
    result = []
    for point in points:
        if point.kind == "candidate":
            found = [c for c in (_against(point, name, curve, roles) for name, curve in curves.items()) if c]
            # A reference at the same cost says more than one of another cost.
            found = [c for c in found if c.how in ("measured", "interpolated")] or found
            if found:
                result.append(min(found, key=lambda c: c.gain))
    return result


def _against_models(point: Point, models: Sequence[Point], roles: Roles) -> Comparison:
    """A candidate against models of different recipes: the best of all, whatever it costs."""
    best = min(models, key=lambda p: -roles.sign * p.quality)
    how: How = "best of all" if point.cost <= best.cost * (1 + _SAME_COST) else "best of all, cheaper"
    return _comparison(point, best.quality, best.label, how, best.ci95, roles, ((best.fingerprint, 1.0),))


def _against(point: Point, name: str, curve: Sequence[Point], roles: Roles) -> Comparison | None:
    tolerance = _SAME_COST * (1.0 if roles.unit == "share" else max(p.cost for p in curve))
    near = [p for p in curve if abs(p.cost - point.cost) <= tolerance]
    if near:
        best = min(near, key=lambda p: -roles.sign * p.quality)
        return _comparison(point, best.quality, best.label, "measured", best.ci95, roles, ((best.fingerprint, 1.0),))
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
        found = _comparison(
            point, first.quality, first.label, "costlier", first.ci95, roles, ((first.fingerprint, 1.0),)
        )
        return found if found.gain > 0 else None
    last = curve[-1]
    found = _comparison(point, last.quality, last.label, "cheaper", last.ci95, roles, ((last.fingerprint, 1.0),))
    return found if found.gain <= 0 else None


def _between(low: float, high: float, share: float) -> float:
    if low > 0 and high > 0:
        return math.exp((1 - share) * math.log(low) + share * math.log(high))
    return (1 - share) * low + share * high


def _comparison(
    point: Point,
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
