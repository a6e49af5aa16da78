"""Quality over cost, with the baselines drawn in."""

from __future__ import annotations

from rankitect.reports.cards import Status
from rankitect.reports.figures.front import front_figure
from rankitect.reports.material import Material
from rankitect.reports.roles import Roles
from rankitect.reports.run import value_of
from rankitect.reports.section import Facts, Section

_FINAL = "final"
"""The evaluator whose measurements may be drawn beside the candidates'."""


class FrontSection(Section):
    """The Pareto front of the search."""

    id, short, order = "front", "Front", 120

    def facts(self, material: Material) -> Facts:
        """Place every model that the final evaluator measured in the plane of cost and quality."""
        roles = material.roles
        if roles is None:
            return Facts.missing("objectives")
        if roles.cost is None:
            return Facts.missing("cost")
        candidates = [p for p in material.points if p.kind == "candidate"]
        if not candidates:
            return Facts.missing("candidates")
        costs, values = [p.cost for p in candidates], [p.quality for p in candidates]
        baselines = len(material.points) - len(candidates)
        words = {
            "count": len(candidates),
            "cost": roles.cost_phrase(min(costs), max(costs)),
            "metric": roles.quality,
            "low": min(values),
            "high": max(values),
            "baselines": baselines,
        }
        figure = front_figure(material.points, roles, _others(material, roles, roles.cost.name))
        return Facts(Status.PASS if baselines else Status.WARN, words, figures=(figure,))


def _others(material: Material, roles: Roles, cost: str) -> list[tuple[float, float]]:
    """Cost and quality of the models that were measured in full and are no candidates."""
    drawn = {p.fingerprint for p in material.points}
    trials = (t for t in material.run.searched() if t.evaluator == _FINAL and t.architecture.fingerprint not in drawn)
    pairs = ((value_of(t, cost), value_of(t, roles.quality.name)) for t in trials)
    return [(price / roles.scale, quality) for price, quality in pairs if price is not None and quality is not None]


SECTION = FrontSection()
