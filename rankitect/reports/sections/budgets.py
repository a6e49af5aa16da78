"""A network for every budget, all taken from weights that were trained once."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, interval_text, readable_name
from rankitect.reports.roles import Roles
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import CandidateSummary, MetricSummary


class BudgetsSection(Section):
    """The networks of a search that specialises for budgets; only in the report of such a search."""

    id, short, order = "budgets", "Budgets", 12
    search_order = 118

    def facts(self, material: Material) -> Facts | None:
        """Place the network of every budget in a row."""
        budgets, roles = material.run.summary.budgets, material.roles
        if not budgets or roles is None:
            return None
        candidates = {c.fingerprint: c for c in material.run.summary.pareto}
        networks = [candidates.get(each.fingerprint or "") for each in budgets]
        placed = [network for network in networks if network is not None]
        costs = _costs(placed)
        most = {name: max(n.metrics[name].value for n in placed if name in n.metrics) for name in costs}
        rows = [
            (Cell(budget.name), *_row(network, roles, most)) for budget, network in zip(budgets, networks, strict=True)
        ]
        metrics = [roles.quality.name, *([roles.selected] if roles.selected else [])]
        titles = ("Budget", "Network", *map(readable_name, metrics), *map(readable_name, costs))
        values = [n.metrics[roles.quality.name].value for n in placed if roles.quality.name in n.metrics]
        words = {
            "budgets": len(budgets),
            "networks": len({n.fingerprint for n in placed}),
            "empty": sum(network is None for network in networks),
            "metric": roles.quality,
            "low": min(values, default=None),
            "high": max(values, default=None),
            "spans": [{"name": name, "share": _least(placed, name, most)} for name in costs[:1]],
        }
        table = Table(titles, tuple(rows), caption="One training, a network for every budget", sortable=False)
        return Facts(Status.WARN if words["empty"] else Status.PASS, words, (table,))


def _costs(networks: Sequence[CandidateSummary]) -> list[str]:
    """The costs that every network has, in the order of their measurement."""
    names = dict.fromkeys(n for network in networks for n, m in network.metrics.items() if m.role == "cost")
    return [name for name in names if all(name in network.metrics for network in networks)]


def _least(networks: Sequence[CandidateSummary], name: str, most: dict[str, float]) -> float:
    """The least of a cost among networks, as a share of the largest."""
    return min(n.metrics[name].value for n in networks) / most[name] if most[name] else 1.0


def _row(network: CandidateSummary | None, roles: Roles, most: dict[str, float]) -> tuple[Cell, ...]:
    """The cells of a network after its budget."""
    metrics = [roles.quality.name, *([roles.selected] if roles.selected else [])]
    if network is None:
        return (Cell("none was measured", tone="bad"), *[DASH] * (len(metrics) + len(most)))
    return (
        Cell(f"{network.rank}", network.rank, note=network.fingerprint[:8]),
        *(_value(network.metrics.get(name)) for name in metrics),
        *(_value(network.metrics[name], most[name]) for name in most),
    )


def _value(metric: MetricSummary | None, most: float = 0.0) -> Cell:
    """A value with its interval, and a bar for its share of the most."""
    if metric is None:
        return DASH
    note = interval_text(metric.interval, metric.unit) if metric.interval else ""
    bar = metric.value / most if most > 0 else None
    return Cell(as_value(metric.value, metric.unit), metric.value, note=note, bar=bar)


SECTION = BudgetsSection()
