"""Did the search beat the plain baselines at equal cost, and by how much?"""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.reports.cards import Cell, Link, Status, Table
from rankitect.reports.comparison import Comparison, standing
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, interval_text, readable_name, signed_percent
from rankitect.reports.roles import Roles
from rankitect.reports.section import Facts, Section

_CLEAR = {True: "yes", False: "no", None: "no intervals"}


class SearchVerdictSection(Section):
    """Candidates against the best baseline of their cost."""

    id, short, order = "verdict", "Search", 132
    judges_quality = True

    def facts(self, material: Material) -> Facts:
        """Count the candidates that win, and show by how much each does."""
        roles, comparisons, common = material.roles, material.comparisons, material.common
        if roles is None or common.incomparable:
            return Facts.missing(common.incomparable)
        wins = [c for c in comparisons if c.won]
        top = max(comparisons, key=standing)
        words = {
            "count": len(comparisons),
            "left": common.candidates - len(comparisons),
            "wins": len(wins),
            "known": sum(c.separated is not None for c in wins),
            "clear": sum(c.separated is True for c in wins),
            "top": top,
            "better": top.gain > 0,
            "size": abs(top.gain),
            "costlier": any(c.how == "costlier" for c in comparisons),
            "metric": roles.quality,
            "cost": roles.cost_phrase(top.point.cost),
        }
        return Facts(_status(comparisons, wins), words, (_table(comparisons, roles),))


def _status(comparisons: Sequence[Comparison], wins: Sequence[Comparison]) -> Status:
    if not wins:
        return Status.FAIL
    known = any(c.separated is not None for c in comparisons)
    convincing = not known or any(c.separated for c in wins)
    # Among models of different recipes one winner over the best of them is what was sought.
    enough = comparisons[0].among_models or len(wins) == len(comparisons)
    return Status.PASS if enough and convincing else Status.WARN


def _table(comparisons: Sequence[Comparison], roles: Roles) -> Table:
    quality = readable_name(roles.quality.name)
    kind = "baseline, whatever it costs" if comparisons[0].among_models else "plain baseline of equal cost"
    names = ("Candidate", roles.cost_label, quality, f"Best baseline's {quality.lower()}", "Gain", "Clear")
    return Table(names, tuple(_row(c, roles) for c in comparisons), caption=f"Against the best {kind}")


def _row(comparison: Comparison, roles: Roles) -> tuple[Cell, ...]:
    point, unit, paired = comparison.point, roles.quality.unit, comparison.paired
    spread = f"{signed_percent(paired[0])} to {signed_percent(paired[1])}, paired" if paired else ""
    against = f"{comparison.how}: {comparison.against}"
    clear = _CLEAR[comparison.separated]
    return (
        Cell("", point.rank, links=(Link(f"candidate {point.rank}", f"#candidate-{point.rank}"),)),
        Cell(roles.cost_text(point.cost), point.cost),
        Cell(as_value(point.quality, unit), point.quality, note=interval_text(point.ci95, unit)),
        Cell(as_value(comparison.reference, unit), comparison.reference, note=against),
        Cell(signed_percent(comparison.gain), comparison.gain, tone=comparison.tone, note=spread),
        Cell(clear, clear),
    )


SECTION = SearchVerdictSection()
