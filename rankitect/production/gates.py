"""Gates: what a candidate must show before it may go into an A/B test, written down before the search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rankitect.production.settings import GateConfig

__all__ = ["GateResult", "Observed", "Outcome", "Verdict", "judge", "verdict_of"]


class Outcome(StrEnum):
    """How a gate ends."""

    PASS = "PASS"
    OPEN = "OPEN"
    FAIL = "FAIL"
    MISSING = "MISSING"
    NA = "NA"


class Verdict(StrEnum):
    """What is advised."""

    SHIP = "ship to A/B"
    HOLD = "hold"
    REJECT = "reject"


@dataclass(frozen=True)
class Observed:
    """What a gate looks at: a value and, where it is uncertain, its 95% interval.

    Attributes:
        value: The value.
        low: Lower end; the value itself where it is exact.
        high: Upper end.
        vague: Whether the ends rest on two measurements only: they then say nothing that is worth showing.
    """

    value: float
    low: float
    high: float
    vague: bool = False

    @classmethod
    def exact(cls, value: float) -> Observed:
        """A value without uncertainty."""
        return cls(value, value, value)


@dataclass(frozen=True)
class GateResult:
    """A gate and what came of it.

    Attributes:
        name: The gate's.
        gate: Its configuration.
        outcome: PASS: the whole interval is within the bounds; FAIL: all of it is outside; OPEN: neither; MISSING:
            there is nothing to look at; NA: it is of something that this search does not measure, and decides nothing.
        observed: What it looked at.
        reason: Why it is missing or undecided, and what to do.
    """

    name: str
    gate: GateConfig
    outcome: Outcome
    observed: Observed | None = None
    reason: str = ""


def judge(
    gates: Mapping[str, GateConfig], observed: Mapping[tuple[str, str], Observed], missing: Mapping[str, str]
) -> list[GateResult]:
    """Hold what was observed against each gate.

    Args:
        gates: The gates by name.
        observed: What was measured, by metric and "change" or "value".
        missing: Why a metric was not measured and what to do about it, by metric.
    """
    results = []
    for name, gate in gates.items():
        measured = observed.get((gate.metric, gate.of))
        if measured is None:
            results.append(GateResult(name, gate, Outcome.MISSING, None, missing.get(gate.metric, "")))
            continue
        low = -math.inf if gate.at_least is None else gate.at_least
        high = math.inf if gate.at_most is None else gate.at_most
        if low <= measured.low and measured.high <= high:
            outcome = Outcome.PASS
        elif measured.high < low or measured.low > high:
            outcome = Outcome.FAIL
        else:
            outcome = Outcome.OPEN
        few = "two training seeds say too little (confirm.seeds=3)"
        reason = few if outcome is Outcome.OPEN and measured.vague else ""
        results.append(GateResult(name, gate, outcome, measured, reason))
    return results


def verdict_of(results: list[GateResult]) -> Verdict:
    """Ship when all required gates that apply pass, reject when one fails, hold otherwise."""
    outcomes = [r.outcome for r in results if r.gate.required and r.outcome is not Outcome.NA]
    if Outcome.FAIL in outcomes:
        return Verdict.REJECT
    return Verdict.SHIP if outcomes and all(o is Outcome.PASS for o in outcomes) else Verdict.HOLD
