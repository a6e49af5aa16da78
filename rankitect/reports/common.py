"""Facts that several sections speak about: each is found once, so that no two sentences can disagree about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rankitect.production.doubts import Doubt
from rankitect.reports.cards import JSON
from rankitect.reports.case import Case
from rankitect.reports.comparison import Comparison, ModelPoint
from rankitect.reports.facts import plain
from rankitect.reports.rivals import Rival, Standing, live_model
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run

__all__ = ["Claim", "Common", "Lead", "common_of"]

Lead: TypeAlias = Literal["production", "search"]
"""What a report leads with: whether a candidate may replace what is live, or what the search found."""

Why: TypeAlias = Literal[
    "", "objectives", "candidates", "unwanted", "failed", "unmeasured", "without", "cost", "unplaced", "apart"
]


@dataclass(frozen=True)
class Claim:
    """What the headline says about one model: the change of the quality from it to the candidate."""

    name: str
    standings: tuple[str, ...]
    change: Mapping[str, JSON] | None
    paired: bool


@dataclass(frozen=True)
class Common:
    """What all sections of a report share.

    Attributes:
        lead: What the report leads with: production where clicks are predicted and there is a model to compare with, or
            where somebody said what is live; else the search.
        quality: Name of the quality; "" where the summary has no objective.
        selection: The metric that the search went by; the quality itself where there is no other.
        lower_is_better: Whether smaller values of the quality are better.
        candidates: Candidates on the front.
        baselines: Names of the baselines whose quality was measured, retired ones included.
        failed: Names of baselines that could not be compared with.
        compared: Candidates that are compared with baselines at a cost.
        incomparable: Why no candidate is compared with a baseline at a cost; "" where one is.
        candidate: Name of the candidate of the production comparison; "" where there is none.
        production: Name of the production model; "" where there is no comparison.
        standing: Why it is the production model.
        registered: Name of the registered live model; "" where there is none.
        headline: The production model, the registered live model and the best baseline, and the change over each.
        doubts: Severe doubts about the data.
    """

    lead: Lead
    quality: str
    selection: str
    lower_is_better: bool
    candidates: int
    baselines: tuple[str, ...]
    failed: tuple[str, ...]
    compared: int
    incomparable: Why
    candidate: str
    production: str
    standing: str
    registered: str
    headline: tuple[Claim, ...]
    doubts: tuple[Doubt, ...]

    def as_json(self) -> dict[str, JSON]:
        """As report.json has it."""
        data = plain(self)
        assert isinstance(data, dict)
        return data


def common_of(
    run: Run,
    roles: Roles | None,
    points: Sequence[ModelPoint],
    comparisons: Sequence[Comparison],
    case: Case | str,
    doubts: Sequence[Doubt],
) -> Common:
    """The facts that all sections of a report share.

    Args:
        run: The run.
        roles: What is quality and what is cost.
        points: Baselines and candidates that have both.
        comparisons: Candidates against the baselines at equal cost.
        case: The production comparison, or why there is none.
        doubts: All doubts about the data.
    """
    quality = roles.quality.name if roles else ""
    measured = tuple(b.name for b in run.summary.baselines if quality in b.metrics)
    rivals = [] if isinstance(case, str) else case.rivals
    live = live_model(run.summary.baselines, roles) if roles else None
    return Common(
        lead=_lead(run, case),
        quality=quality,
        selection=roles.selection if roles else "",
        lower_is_better=roles is not None and roles.sign < 0,
        candidates=len(run.summary.pareto),
        baselines=measured,
        failed=tuple(run.summary.left_out),
        compared=len(comparisons),
        incomparable="" if comparisons else _why(run, roles, measured, points),
        candidate="" if isinstance(case, str) else case.names[0],
        production="" if isinstance(case, str) else case.names[1],
        standing="" if isinstance(case, str) else case.standing.value,
        registered="" if live is None else live.name.replace("_", " "),
        headline=tuple(map(_claim, rivals)),
        doubts=tuple(doubt for doubt in doubts if doubt.severe),
    )


def _claim(rival: Rival) -> Claim:
    change = None
    if rival.change is not None:
        one = rival.change
        change = {"value": one.value, "low": one.low, "high": one.high, "vague": one.vague}
    return Claim(rival.name, tuple(s.value for s in rival.standings), change, rival.paired)


def _lead(run: Run, case: Case | str) -> Lead:
    """What a report leads with."""
    told = not isinstance(case, str) and case.standing in (Standing.NAMED, Standing.LIVE, Standing.LOGGED)
    clicks = not isinstance(case, str) and run.evidence is not None and run.evidence.of_clicks
    return "production" if told or clicks or run.settings.baseline or run.summary.left_out else "search"


def _why(run: Run, roles: Roles | None, measured: Sequence[str], points: Sequence[ModelPoint]) -> Why:
    """Why no candidate can be compared with a baseline at a cost."""
    if roles is None:
        return "objectives"
    if not run.summary.pareto:
        return "candidates"
    if not measured:
        wanted = run.baselines_wanted
        if run.summary.baselines:
            return "without"
        return "failed" if run.summary.left_out else "unwanted" if not wanted else "unmeasured"
    if roles.cost is None:
        return "cost"
    kinds = {point.kind == "candidate" for point in points}
    return "apart" if kinds == {True, False} else "unplaced"
