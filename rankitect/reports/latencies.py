"""The latencies of exported programs, candidates' and baselines', as `latency.json` in their folders has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from rankitect.documents import read_json
from rankitect.errors import RankitectError
from rankitect.production.gates import Observed
from rankitect.reports.rivals import relative_change
from rankitect.reports.run import Run
from rankitect.study.summary import BaselineSummary, CandidateSummary, ProgramQualitySummary

__all__ = [
    "LatencyChange",
    "ProgramLatencies",
    "ProgramLatency",
    "latencies_of",
    "latency_changes",
    "measured_latencies",
    "program_quality",
    "recorded",
]

_T = TypeVar("_T")


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Measured(_Record):
    p50: float
    p90: float
    p99: float
    load_ms: float
    first_ms: float
    peak_bytes: int


class ProgramLatency(_Record):
    """One latency in milliseconds: as the search predicted it, and as it was measured on the whole program."""

    predicted_ms: float | None = None
    predicted_interval_ms: tuple[float, float] | None = None
    measured: _Measured
    trusted: bool
    tokens_per_second: float | None = None

    @property
    def error(self) -> float | None:
        """By how much the prediction is off, relative; None where there was none."""
        return None if self.predicted_ms is None else self.predicted_ms / self.measured.p50 - 1


class ProgramLatencies(_Record):
    """The latencies of one program by name, the device, the share of operators that an accelerator takes over, and the
    program's quality (None in runs of before it was measured)."""

    device: dict[str, str] = {}
    delegated: float | None = None
    precision: str = "float32"
    quality: ProgramQualitySummary | None = None
    latencies: dict[str, ProgramLatency]


class _Card(_Record):
    quality: ProgramQualitySummary | None = None


def recorded(path: Path, kind: type[_T]) -> _T | None:
    """What a file holds; None where it is missing or cannot be read."""
    try:
        return read_json(path, kind)
    except RankitectError:
        return None


def latencies_of(run: Run) -> list[tuple[CandidateSummary, ProgramLatencies]]:
    """The candidates whose programs were measured, by rank."""
    candidates = sorted(run.summary.pareto, key=lambda c: c.rank)
    each = [(c, recorded(run.folder / c.folder / "latency.json", ProgramLatencies)) for c in candidates]
    return [(candidate, latencies) for candidate, latencies in each if latencies is not None]


def program_quality(run: Run, model: CandidateSummary | BaselineSummary) -> ProgramQualitySummary | None:
    """The quality of a model's exported program; None where there is none, or it was not measured."""
    cards = ("program.json", "ranker.json", "latency.json")
    read = (recorded(run.folder / model.folder / card, _Card) for card in cards)
    return next((card.quality for card in read if card is not None and card.quality is not None), None)


def measured_latencies(run: Run, model: CandidateSummary | BaselineSummary) -> dict[str, ProgramLatency]:
    """The latencies of a model's exported program, by name; empty where none was measured."""
    read = recorded(run.folder / model.folder / "latency.json", ProgramLatencies)
    return {} if read is None else read.latencies


@dataclass(frozen=True)
class LatencyChange:
    """How a latency differs between two models.

    Attributes:
        name: The latency.
        change: Relative.
        measured: Whether it is of exported programs; else it is predicted.
        trusted: Whether both measurements settled on a quiet machine.
    """

    name: str
    change: Observed
    measured: bool
    trusted: bool


def latency_changes(run: Run, candidate: CandidateSummary, production: BaselineSummary) -> list[LatencyChange]:
    """Every latency that is known of both: measured on exported programs, or else predicted."""
    ours, theirs = (measured_latencies(run, model) for model in (candidate, production))
    changes = {name: _measured(name, ours[name], theirs[name]) for name in ours if name in theirs}
    for name, change in _predicted(candidate, production).items():
        changes.setdefault(name, LatencyChange(name, change, measured=False, trusted=True))
    return list(changes.values())


def _measured(name: str, ours: ProgramLatency, theirs: ProgramLatency) -> LatencyChange:
    change = Observed.exact(ours.measured.p50 / theirs.measured.p50 - 1)
    return LatencyChange(name, change, measured=True, trusted=ours.trusted and theirs.trusted)


def _predicted(candidate: CandidateSummary, production: BaselineSummary) -> Mapping[str, Observed]:
    names = [name for name, metric in candidate.metrics.items() if name.endswith("_ms") and metric.role == "cost"]
    changes = {name: relative_change(candidate.metrics, production.metrics, name) for name in names}
    return {name: change for name, change in changes.items() if change is not None}
