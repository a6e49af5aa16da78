"""Doubts about what a report rests on: those that the task recorded of its rows, and those that the results raise."""

from __future__ import annotations

from collections.abc import Iterator

from rankitect.production.doubts import FEW_CLICKS, Doubt, doubts_from, ranked
from rankitect.production.evidence import Evidence
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run
from rankitect.study.summary import BaselineSummary, CandidateSummary

__all__ = ["doubts_of"]

_TOLD_APART = 0.995
"""AUC from which on labels are given away and not predicted."""


def doubts_of(
    run: Run,
    roles: Roles | None,
    evidence: Evidence | None,
    candidate: CandidateSummary | None = None,
    production: BaselineSummary | None = None,
) -> list[Doubt]:
    """Everything doubtful about a run, the severe first.

    Args:
        run: The run.
        roles: What is quality and what is cost.
        evidence: The rows of the test data, where the run keeps them.
        candidate: Of the production comparison; the best in the quality where there is none.
        production: Of the production comparison; the best in the quality where there is none.
    """
    if evidence is None or not evidence.of_clicks:
        return []
    recorded = doubts_from(evidence.facts.get("doubts"))
    if roles is None:
        return ranked(recorded)
    quality = roles.quality.name

    def best(models: list[CandidateSummary] | list[BaselineSummary]) -> CandidateSummary | BaselineSummary | None:
        known = [m for m in models if quality in m.metrics]
        return min(known, key=lambda m: -roles.sign * m.metrics[quality].value, default=None)

    pair = candidate or best(run.summary.pareto), production or best(run.summary.baselines)
    doubts = [*recorded, *_base_rate(*pair), *_together(recorded, *pair)]
    if evidence.facts.get("doubts") is None:
        doubts += _clicks(evidence)
    return ranked(doubts)


_Model = CandidateSummary | BaselineSummary


def _called(model: _Model) -> str:
    return f"candidate {model.rank}" if isinstance(model, CandidateSummary) else model.name.replace("_", " ")


def _base_rate(candidate: _Model | None, production: _Model | None) -> Iterator[Doubt]:
    """Where both models lose to a constant."""
    name = "normalized_entropy"
    if candidate is None or production is None or not {name} <= set(candidate.metrics) & set(production.metrics):
        return
    ours, theirs = candidate.metrics[name].value, production.metrics[name].value
    if ours >= 1 and theirs >= 1:
        values = {"candidate": _called(candidate), "production": _called(production), "ours": ours, "theirs": theirs}
        yield Doubt("base_rate", "all features together", True, values)


def _together(recorded: list[Doubt], *models: _Model | None) -> Iterator[Doubt]:
    """Where a model tells all labels apart, and no feature does it alone."""
    if any(doubt.kind == "leak" and doubt.severe for doubt in recorded):
        return
    known = [m for m in models if m is not None and "auc" in m.metrics]
    top = max(known, key=lambda m: m.metrics["auc"].value, default=None)
    if top is not None and top.metrics["auc"].value >= _TOLD_APART:
        values = {"model": _called(top), "auc": top.metrics["auc"].value}
        yield Doubt("leak_together", "several features", True, values)


def _clicks(evidence: Evidence) -> Iterator[Doubt]:
    if evidence.labels is None:
        return
    rows, clicks = len(evidence.labels), round(float(evidence.labels.sum()))  # labels may be probabilities
    if min(clicks, rows - clicks) < FEW_CLICKS:
        values = {"split": "test", "clicks": min(clicks, rows - clicks), "rows": rows}
        yield Doubt("few_clicks", "the test split", True, values)
