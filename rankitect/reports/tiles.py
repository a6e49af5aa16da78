"""The numbers at the head of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rankitect.reports.comparison import How, standing
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, compact, plural, readable_name, signed_percent
from rankitect.reports.roles import Roles
from rankitect.reports.section import partial
from rankitect.study.summary import LedgerSummary

__all__ = ["Tile", "tiles_of"]

_RIVALS: dict[How, str] = {
    "measured": "at equal cost",
    "interpolated": "at equal cost",
    "costlier": "over a costlier model",
    "cheaper": "over a cheaper model",
    "best of all": "over the best model",
    "best of all, cheaper": "over a cheaper model",
}


@dataclass(frozen=True)
class Tile:
    """A number at the head of the page, with its name and a line of context."""

    name: str
    value: str
    note: str


def tiles_of(material: Material) -> list[Tile]:
    """Best gain, span of the front, models measured, and what was spent, as far as they are known."""
    return list(_tiles(material))


def _tiles(material: Material) -> Iterator[Tile]:
    run, roles = material.run, material.roles
    if roles:
        yield _gain(material, roles)
        costs = [p.cost for p in material.points if p.kind == "candidate"]
        span = roles.cost_phrase(min(costs), max(costs)) if costs else "best in the objectives"
        yield Tile("Pareto candidates", str(run.summary.undominated), span)
    trials = run.searched()
    if trials:
        # A model that was measured twice counts once.
        models = {t.architecture.fingerprint for t in trials if t.ok and t.duplicate_of is None}
        yield Tile("Models measured", str(len(models)), f"in {plural(len(trials), 'trial')}")
    ledger = run.summary.ledger
    if ledger != LedgerSummary():
        data = f"{compact(ledger.data)} {run.unit}" if ledger.data else "by the search"
        yield Tile("Spent", as_value(ledger.seconds, "s"), data)


def _gain(material: Material, roles: Roles) -> Tile:
    if material.common.incomparable:
        return Tile("Best gain", "–", partial("incomparable", material.common))
    top = max(material.comparisons, key=standing)
    against = "" if top.how in ("measured", "interpolated") else f" against {top.against}"
    metric = readable_name(roles.quality.name).lower()
    note = f"{metric}, candidate {top.point.rank} at {roles.cost_text(top.point.cost)}{against}"
    return Tile(f"Best gain {_RIVALS[top.how]}", signed_percent(top.gain), note)
