"""The latencies of exported programs, as `latency.json` in the candidates' folders has them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rankitect.reports.run import Run
from rankitect.study.summary import CandidateSummary

__all__ = ["ProgramLatencies", "ProgramLatency", "latencies_of", "measured_latencies", "read_json"]

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
    """The latencies of one program by name, the device, and the share of operators that an accelerator takes over."""

    device: dict[str, str] = {}
    delegated: float | None = None
    latencies: dict[str, ProgramLatency]


def read_json(path: Path, kind: TypeAdapter[_T]) -> _T | None:
    """What a file holds; None where it is missing or cannot be read."""
    try:
        return kind.validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def latencies_of(run: Run) -> list[tuple[CandidateSummary, ProgramLatencies]]:
    """The candidates whose programs were measured, by rank."""
    candidates = sorted(run.summary.pareto, key=lambda c: c.rank)
    each = [(c, read_json(run.folder / c.folder / "latency.json", TypeAdapter(ProgramLatencies))) for c in candidates]
    return [(candidate, latencies) for candidate, latencies in each if latencies is not None]


def measured_latencies(run: Run, candidate: CandidateSummary) -> dict[str, ProgramLatency]:
    """The latencies of a candidate's exported program, by name; empty where none was measured."""
    return next((one.latencies for other, one in latencies_of(run) if other.fingerprint == candidate.fingerprint), {})
