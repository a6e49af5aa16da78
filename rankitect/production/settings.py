"""What a configuration says about a production comparison, `report.gates` and `report.experiment`; light to import."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["LATENCY", "PROGRAM", "SPECIAL_METRICS", "ExperimentConfig", "GateConfig", "gates_header", "gates_problem"]

LATENCY = "latency"
"""The metric of a gate on the latency that changes most, of those that were measured of both models."""
PROGRAM = "program"
"""The metric of a gate on the quality of a candidate's exported program, against that of its model in floats."""
SPECIAL_METRICS = ("quality", "cost", "calibration", "worst_slice", LATENCY, PROGRAM)
"""What a gate may name beside the metrics of the final evaluator."""
_HEADER = re.compile(r"^# Gates, as registered\. Hash: ([0-9a-f]{64})$", re.MULTILINE)


def gates_header(report: object) -> str:
    """A comment for the file of a configuration: the hash of its gates.

    Args:
        report: Its section `report`, plain data.
    """
    return f"# Gates, as registered. Hash: {_gates_hash(report)}\n"


def gates_problem(text: str, report: object) -> str | None:
    """Why the gates of a file are not those that were registered when its run began, or None.

    Args:
        text: The file, with what `gates_header` gave; of an older version without, which is not checked.
        report: The section `report` that was read from it.
    """
    registered = _HEADER.search(text)
    if registered is None or registered[1] == _gates_hash(report):
        return None
    return (
        "report.gates are not those that were registered when the run began (their hash in the file's head differs). "
        "Undo the change; other gates need a run of their own (output_dir=)."
    )


def _gates_hash(report: object) -> str:
    gates = report.get("gates") if isinstance(report, Mapping) else None
    return hashlib.sha256(json.dumps(gates or {}, sort_keys=True).encode()).hexdigest()


class GateConfig(BaseModel):
    """One gate: `report.gates.<name>`.

    A gate of quality is one of non-inferiority: with `at_most: 0.002` the candidate passes when the whole 95% interval
    of its relative change lies below +0.2%; with 0 it must be better beyond doubt. Of an accuracy, and whatever else is
    better the more, the change is what is lost: 0.01 is 1% less.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    metric: str = Field(
        min_length=1,
        description="`quality` or `cost` (the objectives), any other metric of the final evaluator, `calibration` "
        "(predicted over observed clicks), `worst_slice` (change of the quality in the worst slice), `latency` (the "
        "latency that changes most, of exported programs or predicted) or `program` (quality of the candidate's "
        "exported program against that of its model in floats)",
    )
    of: Literal["change", "value"] = Field(
        default="change", description="change: relative to production, 0.01 is 1% more; value: the candidate's own"
    )
    at_most: float | None = Field(default=None, description="largest value that passes")
    at_least: float | None = Field(default=None, description="smallest value that passes")
    required: bool = Field(default=True, description="false: shown, but it decides nothing")
    if_measured: bool = Field(
        default=False, description="true: in a search that does not measure the metric the gate decides nothing"
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise ValueError("a gate needs `at_most` or `at_least`")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError(f"`at_least` {self.at_least:g} is above `at_most` {self.at_most:g}")
        if self.metric in ("worst_slice", LATENCY, PROGRAM) and self.of != "change":
            raise ValueError(f"`{self.metric}` is a change: leave `of` out")
        return self

    def bound_text(self, signed: bool) -> str:
        """The bounds as text, percents where they are of a change."""

        def number(x: float) -> str:
            return (f"{100 * x:+g}%" if x else "0%") if signed else f"{x:g}"

        parts = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{word} {number(x)}" for word, x in parts if x is not None)


class ExperimentConfig(BaseModel):
    """The A/B test that the report plans: `report.experiment`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    unit: str = Field(default="user", min_length=1, description="unit of randomisation")
    metric: str = Field(
        default="click-through rate", min_length=1, description="primary metric, clicks over rows shown"
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="two-sided level of the test")
    power: float = Field(default=0.8, gt=0.5, lt=1, description="chance to find an effect of the stated size")
    effects: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.005, 0.01, 0.02, 0.05), min_length=1, description="relative effects that sample sizes are shown for"
    )
    units_a_day: int | None = Field(
        default=None, ge=1, le=10**12, description="new units a day in the whole test; null: days are shown for several"
    )
    rate: float | None = Field(default=None, gt=0, lt=1, description="production's rate; null: of the test rows")
    variance: float | None = Field(
        default=None, gt=0, description="of a unit, of the rate's linear part; null: of the test rows"
    )
    allocation: float = Field(default=0.5, gt=0, lt=1, description="share of units that get the candidate")
