"""Every candidate with its metrics, intervals and files, and the baselines below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from rankitect.reports.cards import DASH, Cell, Link, Status, Table
from rankitect.reports.comparison import Comparison
from rankitect.reports.material import Material
from rankitect.reports.numbers import FINE, as_percent, as_value, interval_text, possible, readable_name, signed_percent
from rankitect.reports.roles import Roles
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import MetricSummary


class CandidatesSection(Section):
    """The table of all candidates."""

    id, short, order = "candidates", "Candidates", 130

    def facts(self, material: Material) -> Facts:
        """List candidates and baselines with all their metrics, objectives first."""
        summary = material.run.summary
        candidates = sorted(summary.pareto, key=lambda c: c.rank)
        if not candidates:
            return Facts.missing("candidates")
        measured = {name for c in candidates for name in c.metrics} | {n for b in summary.baselines for n in b.metrics}
        objectives = [o.name for o in summary.objectives if o.name in measured]
        others = sorted(measured - {o.name for o in summary.objectives})
        columns = _Columns(objectives, others, material.roles)
        gains = {c.point.rank: c for c in material.comparisons}
        rows = [
            columns.row(
                Cell(str(one.rank), one.rank),
                Cell(one.fingerprint[:8], one.fingerprint),
                one.metrics,
                _gain_cell(gains.get(one.rank)),
                _files_cell(one.artifacts),
            )
            for one in candidates
        ]
        rows += [
            columns.row(Cell("baseline"), Cell(b.name.replace("_", " ")), b.metrics, DASH, Cell(""))
            for b in summary.baselines
        ]
        first = summary.objectives[0].name if summary.objectives else ""
        words = {
            "count": len(candidates),
            "metrics": len(objectives) + len(others),
            "repeated": sum(first in c.metrics and c.metrics[first].interval is not None for c in candidates),
            "baselines": len(summary.baselines),
        }
        anchors = [*(f"candidate-{c.rank}" for c in candidates), *("" for _ in summary.baselines)]
        status = Status.PASS if words["repeated"] == len(candidates) else Status.WARN
        return Facts(status, words, (Table(columns.titles, tuple(rows), tuple(anchors)),))


@dataclass(frozen=True)
class _Columns:
    """The columns of the table.

    Attributes:
        objectives: Metrics before the gain.
        others: Metrics after it.
        roles: What is quality and what is cost.
    """

    objectives: Sequence[str]
    others: Sequence[str]
    roles: Roles | None

    @property
    def titles(self) -> tuple[str, ...]:
        """Their titles."""
        return ("Rank", "Model", *map(self._title, self.objectives), "Gain", *map(self._title, self.others), "Files")

    def row(
        self, rank: Cell, model: Cell, metrics: Mapping[str, MetricSummary], gain: Cell, files: Cell
    ) -> tuple[Cell, ...]:
        """One model."""
        before = (self._cell(metrics.get(name), name) for name in self.objectives)
        after = (self._cell(metrics.get(name), name) for name in self.others)
        return rank, model, *before, gain, *after, files

    def _title(self, name: str) -> str:
        """The metric's name, with an arrow where the search went by it."""
        objectives = (self.roles.quality, self.roles.cost) if self.roles else ()
        arrows = [" ↓" if o.direction == "min" else " ↑" for o in objectives if o is not None and o.name == name]
        return readable_name(name) + "".join(arrows[-1:])

    def _cell(self, metric: MetricSummary | None, name: str) -> Cell:
        if metric is None:
            return DASH
        roles = self.roles
        shares = roles is not None and roles.cost is not None and name == roles.cost.name and roles.unit == "share"
        notes = [*_precision(name, metric)]
        if shares and roles is not None and roles.scale not in (1.0, 100.0):
            notes.append(as_percent(metric.value / roles.scale))
        if shares and roles is not None and roles.scale == 1.0:
            return Cell(roles.cost_text(metric.value), metric.value, note=", ".join(notes))
        # A unit that the title already says would be noise in every row; bytes and seconds also set the format.
        said = _says(name, metric.unit) and metric.unit.lower() not in ("bytes", "seconds", *FINE)
        return Cell(as_value(metric.value, "" if said else metric.unit), metric.value, note=", ".join(notes))


def _precision(name: str, metric: MetricSummary) -> Iterator[str]:
    """The interval of a value, and the number that it is a mean of."""
    if metric.interval:
        yield interval_text(possible(name, metric.interval), metric.unit)
    if metric.n and metric.n > 1:
        yield f"n = {metric.n}"


def _says(name: str, unit: str) -> bool:
    """Whether a metric's name has its unit in it: "params" says parameters, "bits_per_byte" says bit/byte."""
    words, parts = name.lower().split("_"), unit.lower().replace("/", " ").split()
    return bool(parts) and all(any(w and (p[:5] == w[:5] or w.startswith(p)) for w in words) for p in parts)


def _gain_cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return DASH
    return Cell(signed_percent(comparison.gain), comparison.gain, tone=comparison.tone)


def _files_cell(artifacts: Mapping[str, str]) -> Cell:
    links = tuple(safe_link(name, path) for name, path in sorted(artifacts.items()))
    return Cell("" if links else "none", links=links)


def safe_link(name: str, path: str) -> Link:
    """A link from the report to a file of the run folder.

    Args:
        name: What to call it.
        path: Its path, relative to the run folder.

    Returns:
        The link; with no address where the path is absolute, leaves the run folder or is an address of its own (a
        summary that came from elsewhere must not make the page link to, or run, anything but the run's files).
    """
    parts = path.replace("\\", "/").split("/")
    split = urlsplit(path)
    bad = not path or split.scheme or split.netloc or path.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
    return Link(f"{name} ({path})", None) if bad else Link(name, "../" + quote("/".join(parts)))


SECTION = CandidatesSection()
