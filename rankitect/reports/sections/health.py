"""Health of a search: choices at their limits, duplicates, trials that did not end, failures by cause."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankitect.contracts import Trial
from rankitect.models.families import axes
from rankitect.reports.cards import JSON, Cell, Status, Table
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_percent, is_number
from rankitect.reports.run import Run
from rankitect.reports.section import Facts, Section

__all__ = ["SECTION", "Boundary", "boundaries_of"]

_INDEX = re.compile(r"\.\d+\.")
_AT_LIMIT, _FAILED, _MOST_FAILED, _DUPLICATE, _MISSED = 0.5, 0.1, 0.5, 0.5, 0.05
"""Shares beyond which a check asks for a second look; `_MOST_FAILED` is that beyond which a search says nothing."""


@dataclass(frozen=True)
class Boundary:
    """How often a numeric choice of the candidates sits at its smallest or largest value.

    Attributes:
        name: The choice, with `*` for the index of a repeated block.
        low: Smallest value.
        high: Largest value.
        at_low: Share of the live choices at the smallest.
        at_high: Share of the live choices at the largest.
        native: Whether the largest is the reference model's own, which no smaller version of it can exceed.
        offered: Whether the limits are those of the space; otherwise they are those of all trials.
    """

    name: str
    low: float
    high: float
    at_low: float
    at_high: float
    native: bool
    offered: bool

    @property
    def suspicious(self) -> bool:
        """Whether half of the candidates' choices or more are at a limit that the space could widen."""
        return self.at_low >= _AT_LIMIT or (self.at_high >= _AT_LIMIT and not self.native)


@dataclass(frozen=True)
class _Check:
    """One check: what it looked at, what was counted, whether that deserves a look, and what it means."""

    name: str
    shown: str
    count: int
    look: bool
    meaning: str

    def row(self) -> tuple[Cell, ...]:
        """The check as a row of the table."""
        verdict = Cell("look", tone="bad") if self.look else Cell("ok", tone="good")
        return Cell(self.name), Cell(self.shown, self.count), verdict, Cell(self.meaning)


class HealthSection(Section):
    """What usually goes wrong in a search."""

    id, short, order = "health", "Health", 190

    def facts(self, material: Material) -> Facts:
        """Count what went wrong, and the choices of the candidates that are at a limit."""
        run = material.run
        reference = material.roles.reference if material.roles else None
        name = reference.name if reference else "reference model"
        boundaries = boundaries_of(run, run.choices_of(reference))
        if not run.trials and not boundaries:
            return Facts.missing("trials", note=run.trials_note)
        checks = [*_trial_checks(run), _boundary_check(boundaries)]
        bad = [check.name.lower() for check in checks if check.look]
        causes = Counter(t.cause or "no cause recorded" for t in run.searched() if t.state == "FAILED")
        lost = causes.total() > _MOST_FAILED * len(run.searched())
        table = Table(("Check", "Found", "Verdict", "What it means"), tuple(c.row() for c in checks), sortable=False)
        status = Status.FAIL if lost else Status.WARN if bad else Status.PASS
        tables = (table, *_causes(causes), *_boundaries(boundaries, name))
        return Facts(status, {"bad": bad, "lost": lost, "reference": name}, tables)


def _trial_checks(run: Run) -> Iterator[_Check]:
    """The checks of what became of the trials."""
    trials = run.searched()
    total = len(trials)
    if not total:
        why = run.trials_note or "the search measured baselines alone: give it a larger budget"
        yield _Check("Trials", "0", 0, True, f"{why}; only the candidates could be checked")
        return
    done, failed = (sum(t.state == state for t in trials) for state in ("DONE", "FAILED"))
    unfinished = sum(not t.finished for t in trials)
    duplicates = sum(t.duplicate_of is not None for t in trials)

    def check(name: str, count: int, most: float, meaning: str, otherwise: str) -> _Check:
        shown = f"{count} ({as_percent(count / total, 0)})" if count else "0"
        return _Check(name, shown, count, count > most * total, meaning if count else otherwise)

    yield _Check("Trials", str(total), total, False, f"{done} finished")
    limit = f"the limit is {as_percent(_FAILED, 0)}; causes below"
    yield check("Failed", failed, _FAILED, limit, "no trial failed")
    again = "interrupted; repeating the command measures them again"
    yield check("Not finished", unfinished, 0.0, again, "every trial has an end")
    reused = "proposals already measured; their results were reused"
    yield check("Duplicates", duplicates, _DUPLICATE, reused, "no model was proposed twice")
    yield from _target_check(trials)


def _target_check(trials: Sequence[Trial]) -> Iterator[_Check]:
    """Whether the search found an architecture for each cost that it was asked to meet, where it was asked for any."""
    pairs = [(t.tags.get("target"), t.tags.get("reached")) for t in trials]
    met: dict[float, float] = {t: r for t, r in pairs if is_number(t) and is_number(r)}  # type: ignore[misc]
    missed = {target: reached for target, reached in sorted(met.items()) if abs(reached - target) > _MISSED * target}
    if met:
        told = "; ".join(f"{target:.3g} gave {reached:.3g}" for target, reached in missed.items())
        every = f"all within {as_percent(_MISSED, 0)}"
        meaning = f"shares of the cost that targets are relative to: {told}" if missed else every
        yield _Check("Missed cost targets", f"{len(missed)} of {len(met)}", len(missed), bool(missed), meaning)


def _boundary_check(boundaries: Sequence[Boundary]) -> _Check:
    hits = [b.name for b in boundaries if b.suspicious]
    meaning = ", ".join(hits) or ("none" if boundaries else "no numeric choices to look at")
    return _Check("Choices at a limit that could be widened", str(len(hits)), len(hits), bool(hits), meaning)


def boundaries_of(run: Run, reference: Mapping[str, JSON]) -> list[Boundary]:
    """How often the candidates' numeric choices are at their limits, by choice over all positions of repeated blocks.

    Limits are the space's where a candidate's folder holds it, otherwise the smallest and largest value in any trial.

    Args:
        run: The run.
        reference: The reference model's choices by path; may be empty.

    Returns:
        One entry a choice with more than one value, the most at a limit first.
    """
    limits = _limits(run, reference)
    grouped: dict[str, list[tuple[float, float, float, bool]]] = {}
    for candidate in run.summary.pareto:
        for path, value in candidate.choices.items():
            low, high = limits.get(path, (0.0, 0.0))
            if is_number(value) and low < high and not axes.is_bits(path):  # a runtime has these bits and no others
                own = reference.get(path)
                native = isinstance(own, int | float) and is_number(own) and own >= high
                grouped.setdefault(_INDEX.sub(".*.", path), []).append((float(value), low, high, native))
    offered = {_INDEX.sub(".*.", path) for path in run.offered}
    boundaries = [
        _boundary(name, rows, name in offered)
        for name, rows in grouped.items()
        # "Runs or not" and the like have nothing between their limits.
        if not (rows[0][1] == 0 and rows[0][2] <= 2)
    ]
    return sorted(boundaries, key=lambda b: (not b.suspicious, -max(b.at_low, b.at_high)))


def _limits(run: Run, reference: Mapping[str, JSON]) -> dict[str, tuple[float, float]]:
    """The smallest and largest number at each choice: as the space offers, or else as seen anywhere in the run."""
    seen: dict[str, list[Any]] = {}
    known = (c.choices for c in run.summary.pareto)
    for choices in (*known, *(t.architecture.choices for t in run.trials), reference):
        for path, value in choices.items():
            if is_number(value):
                seen.setdefault(path, []).append(value)
    numbers = {path: [v for v in values if is_number(v)] for path, values in run.offered.items()}
    seen |= {path: values for path, values in numbers.items() if values}
    return {path: (float(min(values)), float(max(values))) for path, values in seen.items()}


def _boundary(name: str, rows: Sequence[tuple[float, float, float, bool]], offered: bool) -> Boundary:
    """One choice over all its positions: rows of value, smallest, largest, and whether that is the reference's own."""
    return Boundary(
        name,
        min(low for _, low, _, _ in rows),
        max(high for _, _, high, _ in rows),
        sum(value <= low for value, low, _, _ in rows) / len(rows),
        sum(value >= high for value, _, high, _ in rows) / len(rows),
        all(native for *_, native in rows),
        offered,
    )


def _causes(causes: Counter[str]) -> Iterator[Table]:
    rows = tuple((Cell(cause), Cell(str(count), count)) for cause, count in causes.most_common())
    if rows:
        yield Table(("Cause of failure", "Trials"), rows, caption="Failures by cause")


def _boundaries(boundaries: Sequence[Boundary], reference: str) -> Iterator[Table]:
    rows = tuple(
        (
            Cell(b.name),
            Cell(f"{b.low:g} to {b.high:g}", note="offered" if b.offered else "seen in trials"),
            Cell(as_percent(b.at_low, 0), b.at_low, bar=b.at_low, tone="bad" if b.at_low >= _AT_LIMIT else ""),
            Cell(
                as_percent(b.at_high, 0),
                b.at_high,
                bar=b.at_high,
                note=f"the {reference}'s own size" if b.native else "",
                tone="bad" if b.at_high >= _AT_LIMIT and not b.native else "",
            ),
        )
        for b in boundaries
    )
    columns = ("Choice", "Range", "Candidates at the smallest", "Candidates at the largest")
    if rows:
        yield Table(columns, rows, caption="Candidates at the limits of numeric choices")


SECTION = HealthSection()
