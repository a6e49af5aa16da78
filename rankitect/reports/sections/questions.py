"""How the models answer the questions of the measures: accuracies, and differences in pairs, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankitect.metrics.intervals import Estimate
from rankitect.production.answers import AnswerTable
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.comparison import best_of
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, compact, is_share, possible, readable_name
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import MetricSummary

__all__ = ["SECTION"]


@dataclass(frozen=True)
class _Model:
    """A model of the table."""

    name: str
    fingerprint: str
    metrics: Mapping[str, MetricSummary]


class QuestionsSection(Section):
    """Accuracy on questions, for backbone, baselines and candidates."""

    id, short, order = "questions", "Questions", 125
    judges_quality = True

    def facts(self, material: Material) -> Facts | None:
        """Compare all models on the same questions; None where none were asked."""
        tables = material.run.answers
        if not tables:
            return None
        models = _models(material)
        reference = _reference(material, models)
        best = best_of(material.run, material.comparisons)
        mine = None if best is None else next(m for m in models if m.name == f"candidate {best.rank}")
        findings = [_finding(table, mine, reference) for table in tables.values()] if mine is not None else []
        told = [fact for fact in findings if fact is not None]
        words = {
            "told": told,
            "model": mine.name if mine is not None else "",
            "reference": "" if reference is None else reference.name,
            "worse": [fact["metric"] for fact in told if fact["worse"]],
            "questions": max(table.questions for table in tables.values()),
            "of": min((table.of for table in tables.values()), key=lambda of: of != "question"),
        }
        shown = tuple(_table(table, models, reference, material) for table in tables.values())
        if not told:
            missing = f"no candidate and baseline were measured on the same {words['of']}s"
            return Facts(Status.NA, {**words, "missing": missing}, shown)
        return Facts(Status.WARN if words["worse"] else Status.PASS, words, shown)


def _models(material: Material) -> list[_Model]:
    summary = material.run.summary
    baselines = [_Model(b.name.replace("_", " "), b.fingerprint, b.metrics) for b in summary.baselines]
    return [*baselines, *(_Model(f"candidate {c.rank}", c.fingerprint, c.metrics) for c in summary.pareto)]


def _reference(material: Material, models: Sequence[_Model]) -> _Model | None:
    """The model that the others are held against: that which shares of costs are of, or else the first baseline."""
    known = material.roles.reference if material.roles is not None else None
    if known is None:
        return models[0] if material.run.summary.baselines else None
    return next(model for model in models if model.fingerprint == known.fingerprint)


def _finding(table: AnswerTable, model: _Model | None, reference: _Model | None) -> dict[str, object] | None:
    """What is said of the best candidate and one metric; None where the two cannot be compared."""
    if model is None or reference is None or not {model.fingerprint, reference.fingerprint} <= set(table.values):
        return None
    metric = model.metrics[table.metric]
    difference = table.difference(model.fingerprint, reference.fingerprint)
    low, high = difference.interval()
    return {
        "metric": readable_name(table.metric),
        "value": as_value(table.mean(model.fingerprint), metric.unit),
        "other": as_value(table.mean(reference.fingerprint), metric.unit),
        "difference": _difference_text(difference.value, metric.unit),
        "interval": "" if difference.vague else _ends_text((low, high), metric.unit),
        "questions": table.questions,
        "of": table.of,
        "worse": not difference.vague and (high < 0 if table.direction == "max" else low > 0),
    }


def _table(table: AnswerTable, models: Sequence[_Model], reference: _Model | None, material: Material) -> Table:
    asked = [model for model in models if model.fingerprint in table.values and table.metric in model.metrics]
    cost = material.roles.cost_label if material.roles is not None and material.roles.cost is not None else ""
    against = f"Against {reference.name}" if reference is not None else "Difference"
    columns = ("Model", *([cost] if cost else []), readable_name(table.metric), against)
    rows = tuple(_row(table, model, reference, material, bool(cost)) for model in asked)
    caption = f"{readable_name(table.metric)}, over {table.questions:,} {table.of}s"
    return Table(columns, rows, caption=caption)


def _row(
    table: AnswerTable, model: _Model, reference: _Model | None, material: Material, costed: bool
) -> tuple[Cell, ...]:
    metric, unit = model.metrics[table.metric], model.metrics[table.metric].unit
    note = " to ".join(as_value(end, unit) for end in possible(table.metric, metric.interval) or ())
    cells = [Cell(model.name)]
    if costed and material.roles is not None:
        cost = material.roles.cost_of(model.metrics)
        cells.append(DASH if cost is None else Cell(material.roles.cost_text(cost), cost))
    cells.append(Cell(as_value(metric.value, unit), metric.value, note=note))
    same = reference is None or reference.fingerprint == model.fingerprint
    if same or reference is None or reference.fingerprint not in table.values:
        return (*cells, DASH)
    return (*cells, _difference_cell(table.difference(model.fingerprint, reference.fingerprint), unit))


def _difference_cell(difference: Estimate, unit: str) -> Cell:
    note = "two seeds: no interval" if difference.vague else f"{_ends_text(difference.interval(), unit)}, paired"
    return Cell(_difference_text(difference.value, unit), difference.value, note=note)


def _difference_text(value: float, unit: str) -> str:
    """A difference of two values with its sign, that of shares in percentage points."""
    return f"{_signed(value, unit)} points" if is_share(unit) else f"{_signed(value, unit)} {unit}".rstrip()


def _ends_text(ends: tuple[float, float], unit: str) -> str:
    return f"{_signed(ends[0], unit)} to {_signed(ends[1], unit)}"


def _signed(value: float, unit: str) -> str:
    size = f"{100 * abs(value):.1f}" if is_share(unit) else compact(abs(value))
    return f"{'−' if value < 0 else '+'}{size}"


SECTION = QuestionsSection()
