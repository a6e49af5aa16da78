"""What the search spent, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from rankitect.contracts import Spent
from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, compact, readable_name
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import LedgerSummary

_ALWAYS = ("latency_measurements", "seconds")
"""Amounts that have a column where they are 0 too."""


class LedgerSection(Section):
    """What was spent, and what was really computed where stages share their results."""

    id, short, order = "ledger", "Spent", 200

    def facts(self, material: Material) -> Facts:
        """Lay the spending out by stage."""
        run, ledger = material.run, material.run.summary.ledger
        if ledger == LedgerSummary():
            return Facts.missing("ledger")
        seconds = {stage: spent.seconds for stage, spent in ledger.stages.items()}
        whole = sum(seconds.values())
        dearest = max(seconds, key=lambda stage: seconds[stage]) if whole and len(seconds) > 1 else ""
        words = {
            "ledger": ledger,
            "unit": run.unit,
            "dearest": dearest,
            "share": seconds[dearest] / whole if dearest else 0.0,
        }
        return Facts(Status.PASS, words, tuple(_tables(ledger)))


def _tables(ledger: LedgerSummary) -> Iterator[Table]:
    stages = {stage: spent.to_dict() for stage, spent in ledger.stages.items()}
    totals = {"total of the search": ledger.total.to_dict()}
    if ledger.computed is not None:
        totals["really computed, shared results once"] = ledger.computed.to_dict()
    every = [*stages.values(), *totals.values()]
    names = [f.name for f in fields(Spent) if f.name in _ALWAYS or any(amounts[f.name] for amounts in every)]
    sums = {name: sum(amounts[name] for amounts in stages.values()) for name in names}
    rows = [
        (Cell(stage, stage), *(_cell(name, amounts[name], sums[name]) for name in names))
        for stage, amounts in stages.items()
    ]
    rows += [(Cell(text), *(_cell(name, amounts[name]) for name in names)) for text, amounts in totals.items()]
    yield Table(("Stage", *map(readable_name, names)), tuple(rows), sortable=False)
    if ledger.trials:
        counts = tuple((Cell(state), Cell(str(count), count)) for state, count in ledger.trials.items())
        yield Table(("Trials", "Count"), counts, sortable=False)


def _cell(name: str, amount: float, whole: float = 0.0) -> Cell:
    text = as_value(amount, "s") if name == "seconds" else compact(amount)
    return Cell(text, amount, bar=amount / whole if whole else None)


SECTION = LedgerSection()
