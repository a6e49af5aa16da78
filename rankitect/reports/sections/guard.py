"""What became of a guard at each stage of its recipe: verdicts, bytes, and the speed of its program."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.documents import read_json
from rankitect.errors import RankitectError
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.comparison import best_of
from rankitect.reports.material import Material
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import CandidateSummary

__all__ = ["SECTION"]

_FILE = "stages.json"
_BEGIN = "as it begins"
_PLAIN = "TF-IDF and logistic regression"
_FIGURES = {"auc": "AUC", "f1": "F1", "false_positive_rate": "False positives", "threshold": "Threshold"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Metric(_Strict):
    value: float
    ci95: tuple[float, float] | None = None


class _Quality(_Strict):
    metrics: dict[str, _Metric]
    source: dict[str, dict[str, _Metric]] = Field(default_factory=dict)


class _Stage(_Strict):
    stage: str = Field(max_length=200)
    quality: _Quality
    params: float
    weight_bytes: float


class _Notes(_Strict):
    verdicts: _Quality | None = None
    milliseconds: dict[str, float] = Field(default_factory=dict)


class _Layout(_Strict):
    prompt: int


class _Program(_Strict):
    bytes: int
    layout: _Layout
    notes: _Notes = _Notes()


class _Card(_Strict):
    schema_: Literal[1] = Field(alias="schema")
    stages: list[_Stage] = Field(min_length=1, max_length=1000)
    plain: _Quality
    program: _Program | None = None


class GuardSection(Section):
    """The best candidate of a search for a guard, stage by stage."""

    id, short, order = "guard", "Guard", 126
    judges_quality = True

    def facts(self, material: Material) -> Facts | None:
        """Read the candidate's card; None where candidates have none."""
        holders = [c for c in material.run.summary.pareto if "stages" in c.artifacts]
        if not holders:
            return None
        best = best_of(material.run, material.comparisons)
        candidate = next((c for c in holders if best is not None and c.rank == best.rank), holders[0])
        try:
            card = read_json(_place(material, candidate), _Card)
        except RankitectError as error:
            return Facts.missing(str(error))
        last = card.stages[-1].quality
        lower = sorted(
            name for name, figures in last.source.items() if _auc(figures) < _auc(card.plain.source.get(name, {}))
        )
        times = card.program.notes.milliseconds if card.program is not None else {}
        words = {
            "rank": candidate.rank,
            "auc": last.metrics["auc"].value if "auc" in last.metrics else None,
            "first": card.stages[0].quality.metrics["auc"].value if "auc" in card.stages[0].quality.metrics else None,
            "plain": card.plain.metrics["auc"].value if "auc" in card.plain.metrics else None,
            "lower": lower,
            "bytes": None if card.program is None else card.program.bytes,
            "prompt": None if card.program is None else card.program.layout.prompt,
            "prefill": times.get("prefill"),
            "decode": times.get("decode"),
        }
        return Facts(Status.WARN if lower else Status.PASS, words, (_stages(card), _sources(card)))


def _place(material: Material, candidate: CandidateSummary) -> Path:
    return material.run.folder / candidate.folder / _FILE


def _auc(figures: dict[str, _Metric]) -> float:
    return figures["auc"].value if "auc" in figures else 0.0


def _stages(card: _Card) -> Table:
    rows = [
        (Cell(one.stage or _BEGIN), *_figures(one.quality), Cell(_megabytes(one.weight_bytes), one.weight_bytes))
        for one in card.stages
    ]
    rows.append((Cell(_PLAIN), *_figures(card.plain), DASH))
    if card.program is not None:
        verdicts = card.program.notes.verdicts
        figures = tuple(DASH for _ in _FIGURES) if verdicts is None else _figures(verdicts)
        rows.append((Cell("the program"), *figures, Cell(_megabytes(card.program.bytes), card.program.bytes)))
    return Table(("Model", *_FIGURES.values(), "Bytes"), tuple(rows), caption="After each stage", sortable=False)


def _sources(card: _Card) -> Table:
    last = card.stages[-1].quality.source
    rows = [
        (Cell(name), _cell(figures.get("auc")), _cell(card.plain.source.get(name, {}).get("auc")))
        for name, figures in sorted(last.items())
    ]
    return Table(("Source", "AUC of the last stage", f"AUC of {_PLAIN}"), tuple(rows), caption="By source")


def _figures(quality: _Quality) -> tuple[Cell, ...]:
    return tuple(_cell(quality.metrics.get(name)) for name in _FIGURES)


def _cell(metric: _Metric | None) -> Cell:
    if metric is None:
        return DASH
    note = "" if metric.ci95 is None else f"{metric.ci95[0]:.3f} to {metric.ci95[1]:.3f}"
    return Cell(f"{metric.value:.3f}", metric.value, note=note)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


SECTION = GuardSection()
