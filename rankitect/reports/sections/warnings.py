"""What about the data a reader must know before any number: leaks, unknown ids, copies, times, too few clicks."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.production.doubts import Doubt
from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.material import Material
from rankitect.reports.section import Facts, Section


class WarningsSection(Section):
    """Doubts about the data, each with the feature and what to do; only in reports of clicks."""

    id, short, order = "warnings", "Warnings", 15

    def facts(self, material: Material) -> Facts | None:
        """List the doubts, the severe first."""
        evidence = material.evidence
        if not material.doubts and (evidence is None or not evidence.of_clicks):
            return None
        severe = [doubt for doubt in material.doubts if doubt.severe]
        words = {
            "severe": severe,
            "others": len(material.doubts) - len(severe),
            "recorded": evidence is not None and evidence.facts.get("doubts") is not None,
        }
        status = Status.FAIL if severe else Status.WARN if material.doubts else Status.PASS
        return Facts(status, words, _tables(material.doubts))


def _tables(doubts: Sequence[Doubt]) -> tuple[Table, ...]:
    rows = tuple(
        (
            Cell(doubt.feature),
            Cell(doubt.title, tone="bad" if doubt.severe else ""),
            Cell(doubt.found),
            Cell(doubt.remedy),
        )
        for doubt in doubts
    )
    return (Table(("What", "Doubt", "Found", "What to do"), rows, sortable=False),) if rows else ()


SECTION = WarningsSection()
