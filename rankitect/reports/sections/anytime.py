"""How good the front was after each trial, over what had been spent by then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from rankitect.contracts import Trial
from rankitect.methods.objectives import hypervolume
from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.figures.anytime import Curve, anytime_figure
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_percent, as_value, readable_name
from rankitect.reports.roles import Roles
from rankitect.reports.run import value_of
from rankitect.reports.section import Facts, Section
from rankitect.study.pareto import nondominated

_FEW = 8
"""Models below which a curve says nothing about its end."""
_MOST = 4
"""Evaluators that are drawn."""
_LATE = 0.9
"""Share of the budget after which a search that still improves would probably use more."""


class AnytimeSection(Section):
    """How fast the search found what it found."""

    id, short, order = "anytime", "Progress", 160

    def facts(self, material: Material) -> Facts:
        """Follow the front of each evaluator over the search's trials."""
        run, roles = material.run, material.roles
        if roles is None:
            return Facts.missing("objectives")
        trials = run.charged()
        measure, unit, spent = _spending(trials, run.unit)
        curves = _curves(trials, spent, roles)
        if not curves:
            return Facts.missing("trials", note=run.trials_note, metric=roles.quality.name)
        main = max(curves, key=lambda c: len(c.spent))
        two = roles.cost is not None
        final = 0.99 * main.score[-1] if two else main.score[-1]
        at = next(i for i, score in enumerate(main.score) if (score >= final if two else score == final))
        share = main.spent[at] / spent[-1] if spent[-1] else 1.0
        few, late = main.models[-1] < _FEW, share > _LATE
        words = {
            "models": main.models[-1],
            "evaluator": main.evaluator,
            "two": two,
            "share": share,
            "at": main.spent[at],
            "whole": spent[-1],
            "unit": unit,
            "few": few,
            "fewest": _FEW,
            "late": late,
        }
        y_title = "Hypervolume, % of this run's final" if two else roles.quality_label
        return Facts(
            Status.NA if few else Status.WARN if late else Status.PASS,
            words,
            (_table(main, roles, measure, unit, spent[-1]),),
            (anytime_figure(curves, measure, unit, y_title),),
        )


def _spending(trials: Sequence[Trial], unit: str) -> tuple[str, str, list[float]]:
    """What spending is counted in, its unit, and what had been spent by the end of each trial."""
    data = [float(t.spent.data) for t in trials]
    seconds = [t.spent.seconds for t in trials]
    if any(data):
        return f"{unit} trained and evaluated by trials", unit, list(accumulate(data))
    if any(seconds):
        return "seconds spent on trials", "s", list(accumulate(seconds))
    return "trials", "", list(accumulate(1.0 for _ in trials))


def _curves(trials: Sequence[Trial], spent: Sequence[float], roles: Roles) -> list[Curve]:
    """The progress of each evaluator that measured two models or more."""
    grouped: dict[str, list[tuple[float, float, float, str]]] = {}
    for trial, at in zip(trials, spent, strict=True):
        quality = value_of(trial, roles.quality.name)
        cost = value_of(trial, roles.cost.name) if roles.cost else 0.0
        if trial.duplicate_of is None and quality is not None and cost is not None:
            row = (at, cost, -roles.sign * quality, trial.architecture.fingerprint)
            grouped.setdefault(trial.evaluator, []).append(row)
    return [_curve(name, rows, roles) for name, rows in grouped.items() if len(rows) >= 2][:_MOST]


def _curve(evaluator: str, rows: Sequence[tuple[float, float, float, str]], roles: Roles) -> Curve:
    """The progress over rows of what had been spent, cost, quality (lower is better) and fingerprint."""
    best = [-roles.sign * value for value in accumulate((row[2] for row in rows), min)]
    score = _hypervolumes([(cost, value) for _, cost, value, _ in rows]) if roles.cost else best
    return Curve(evaluator, [row[0] for row in rows], score, best, _distinct(row[3] for row in rows))


def _distinct(fingerprints: Iterable[str]) -> list[int]:
    """How many different models were measured after each measurement."""
    seen: set[str] = set()
    counts = []
    for fingerprint in fingerprints:
        seen.add(fingerprint)
        counts.append(len(seen))
    return counts


def _hypervolumes(points: Sequence[tuple[float, float]]) -> list[float]:
    """Hypervolume after each pair of cost and quality, as a share of the last one."""
    costs, values = [c for c, _ in points], [q for _, q in points]
    # A diverged model must not stretch the box until all good ones look alike.
    worst = min(max(values), 10 * min(values)) if min(values) > 0 else max(values)
    wide, tall = (max(costs) - min(costs)) or 1.0, (worst - min(values)) or 1.0
    corner = (max(costs) + 0.05 * wide, worst + 0.05 * tall)
    front: list[tuple[float, float]] = []
    areas: list[float] = []
    for cost, value in points:
        if any(c <= cost and v <= value for c, v in front):  # most trials: the area is as it was
            areas.append(areas[-1])
            continue
        known = [*front, (cost, value)]
        front = [known[i] for i in nondominated(known)]
        areas.append(hypervolume(front, corner))
    return [area / areas[-1] if areas[-1] else 1.0 for area in areas]


def _table(curve: Curve, roles: Roles, measure: str, unit: str, whole: float) -> Table:
    rows = []
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        index = sum(at <= share * whole * (1 + 1e-9) for at in curve.spent) - 1
        if index >= 0:
            rows.append(
                (
                    Cell(as_percent(share, 0), share),
                    Cell(as_value(share * whole, unit), share * whole),
                    Cell(str(curve.models[index]), curve.models[index]),
                    Cell(as_percent(curve.score[index]) if roles.cost else "–", curve.score[index]),
                    Cell(as_value(curve.best[index], roles.quality.unit), curve.best[index]),
                )
            )
    names = (
        "Budget",
        f"{measure[:1].upper()}{measure[1:]}",
        "Models measured",
        "Hypervolume",
        f"Best {readable_name(roles.quality.name).lower()} at any cost",
    )
    return Table(names, tuple(rows), caption=f"Evaluator: {curve.evaluator}")


SECTION = AnytimeSection()
