"""The anytime curve: how good the front was after each trial, over what had been spent by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rankitect.methods.objectives import hypervolume
from rankitect.reports.cards import JSON, Card, Cell, Figure, Status, Table
from rankitect.reports.comparison import Roles
from rankitect.reports.figures.svg import Canvas, Frame, Scale
from rankitect.reports.numbers import as_duration, as_percent, as_value, compact, plural, readable_name
from rankitect.reports.reading import Run
from rankitect.reports.sections.spending import data_of
from rankitect.reports.trials import Trial

__all__ = ["anytime_card"]

_TITLE = "Progress over the budget"
_FEW = 8
"""Models below which a curve says nothing about its end."""
_HYPERVOLUME = (
    "Hypervolume is the area of cost and quality that the models found so far dominate, within the box of all trials "
    "of this evaluator (quality cut at ten times the best). "
)


@dataclass(frozen=True)
class _Curve:
    """One evaluator's progress after each trial: what was spent, the score, the best quality, and distinct models."""

    evaluator: str
    spent: list[float]
    score: list[float]
    best: list[float]
    models: list[int]


def anytime_card(run: Run, roles: Roles | None) -> Card:
    """How fast the search found what it found.

    Args:
        run: The run.
        roles: What is quality and what is cost; None where the summary has no objectives.

    Returns:
        The card; NA where fewer than two trials have a quality.
    """
    if roles is None:
        return _missing("the summary names no objective")
    trials = [t for t in run.searched() if not t.confirms]
    measure, unit, spent = _spending(trials, run.unit)
    curves = _curves(trials, spent, roles)
    if not curves:
        why = run.trials_note or f"fewer than two finished trials have a value of {roles.quality.name}"
        return _missing(why)
    main = max(curves, key=lambda c: len(c.spent))
    two = roles.cost is not None
    y_title = "Hypervolume, % of this run's final" if two else roles.quality_label
    at = next(i for i, score in enumerate(main.score) if _near(score, main.score[-1], two))
    share = main.spent[at] / spent[-1] if spent[-1] else 1.0
    count = main.models[-1]
    late, few = share > 0.9, count < _FEW
    finding = (
        f"{plural(count, 'model')} measured by {main.evaluator or 'the evaluator'}: "
        f"{'99% of the final hypervolume' if two else 'the final best value'} was reached after {as_percent(share, 0)} "
        f"of what the search's trials spent ({as_value(main.spent[at], unit)} of {as_value(spent[-1], unit)})."
    )
    return Card(
        "anytime",
        _TITLE,
        finding,
        how_to_read=(
            "The line goes up whenever a trial improves the front; flat stretches bought nothing. "
            + (_HYPERVOLUME if two else "")
            + "What was spent is that of the search's trials: preparation, baselines, and the confirmation of what was "
            "found with more seeds are not in it. Evaluators are drawn apart, since their qualities do not compare. "
            "This is one run: to rank methods, compare several seeds at equal spending."
        ),
        status=Status.NA if few else Status.WARN if late else Status.PASS,
        reason=f"fewer than {_FEW} models are too few to tell whether the curve was flat"
        if few
        else "still improving in the last tenth of the budget: more budget would probably help"
        if late
        else "the curve was flat at the end of the budget",
        tables=(_table(main, roles, measure, unit, spent[-1]),),
        figures=(_figure(curves, measure, unit, y_title),),
    )


def _near(score: float, final: float, two: bool) -> bool:
    return score >= 0.99 * final if two else score == final


def _missing(reason: str) -> Card:
    return Card("anytime", _TITLE, "Progress cannot be shown.", reason=f"{reason}.")


def _spending(trials: Sequence[Trial], named: str) -> tuple[str, str, list[float]]:
    """What spending is counted in, its unit, and what had been spent by the end of each trial."""
    data = [data_of(t.spent) for t in trials]
    seconds = [t.spent.get("seconds", 0.0) for t in trials]
    measure, unit, each = ("trials", "", [1.0] * len(trials))
    if any(data):
        measure, unit, each = f"{named} trained and evaluated by trials", named, data
    elif any(seconds):
        measure, unit, each = "seconds spent on trials", "s", seconds
    total, running = 0.0, []
    for amount in each:
        total += amount
        running.append(total)
    return measure, unit, running


def _curves(trials: Sequence[Trial], spent: Sequence[float], roles: Roles) -> list[_Curve]:
    cost = roles.cost.name if roles.cost else None
    grouped: dict[str, list[tuple[float, float, float]]] = {}
    measured_by: dict[str, list[Trial]] = {}
    for trial, at in zip(trials, spent, strict=True):
        quality = trial.metrics.get(roles.quality.name)
        price = trial.metrics.get(cost) if cost else 0.0
        if trial.state == "done" and not trial.duplicate and quality is not None and price is not None:
            grouped.setdefault(trial.evaluator, []).append((at, price, -roles.sign * quality))
            measured_by.setdefault(trial.evaluator, []).append(trial)
    curves = []
    for name, rows in grouped.items():
        if len(rows) >= 2:
            score = _scores(rows) if cost else [-min(q for _, _, q in rows[: i + 1]) for i in range(len(rows))]
            best = [-roles.sign * min(q for _, _, q in rows[: i + 1]) for i in range(len(rows))]
            models = _distinct(measured_by[name])
            shown = [s if cost else roles.sign * s for s in score]
            curves.append(_Curve(name, [at for at, _, _ in rows], shown, best, models))
    return curves[:4]


def _distinct(trials: Sequence[Trial]) -> list[int]:
    """How many different models were measured after each trial."""
    seen: set[str] = set()
    counts = []
    for trial in trials:
        seen.add(trial.model)
        counts.append(len(seen))
    return counts


def _scores(rows: Sequence[tuple[float, float, float]]) -> list[float]:
    """Hypervolume after each row, as a share of the last one."""
    costs, values = [c for _, c, _ in rows], [q for _, _, q in rows]
    # A diverged model must not stretch the box until all good ones look alike.
    worst = min(max(values), 10 * min(values)) if min(values) > 0 else max(values)
    wide, tall = (max(costs) - min(costs)) or 1.0, (worst - min(values)) or 1.0
    corner = (max(costs) + 0.05 * wide, worst + 0.05 * tall)
    front: list[tuple[float, float]] = []
    areas = []
    for _, price, value in rows:
        front = [p for p in front if p[0] < price or p[1] < value]
        if not any(p[0] <= price and p[1] <= value for p in front):
            front.append((price, value))
        areas.append(hypervolume(front, corner))
    return [area / areas[-1] if areas[-1] else 1.0 for area in areas]


def _table(curve: _Curve, roles: Roles, measure: str, unit: str, whole: float) -> Table:
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
    return Table(names, tuple(rows), caption=f"Evaluator: {curve.evaluator or 'the only one'}")


def _figure(curves: Sequence[_Curve], measure: str, unit: str, y_title: str) -> Figure:
    data: list[JSON] = [
        {"evaluator": c.evaluator, "spent": list(c.spent), "score": list(c.score), "best": list(c.best)} for c in curves
    ]
    return Figure(
        _draw(curves, measure, unit, y_title, 860, 320),
        _draw(curves, measure, unit, y_title, 360, 300),
        data={"x": measure, "y": y_title, "curves": data},
    )


def _draw(curves: Sequence[_Curve], measure: str, unit: str, y_title: str, width: int, height: int) -> Markup:
    narrow = width < 500
    canvas = Canvas(width, height, f"{y_title} over {measure}")
    shares = "Hypervolume" in y_title
    scores = [s for c in curves for s in c.score]
    low, high = (0.0, 1.02) if shares else (min(scores), max(scores))
    margin = 0 if shares else 0.08 * ((high - low) or abs(high) or 1.0)
    end = max(c.spent[-1] for c in curves)
    frame = Frame(
        canvas,
        Scale(0, end, 44 if narrow else 58, width - 22),
        Scale(low - margin, high + margin, height - 52, 54),
    )
    timed = (lambda v: as_duration(v)) if unit == "s" else (lambda v: compact(v, trim=True))
    frame.axes(
        f"{measure[:1].upper()}{measure[1:]}",
        y_title,
        timed,
        lambda v: as_percent(v, 0) if shares else compact(v, trim=True),
        4 if narrow else 8,
    )
    x = 10.0
    for index, curve in enumerate(curves):
        css = "candidate" if index == 0 else f"family{index % 4}"
        steps = [(frame.x(curve.spent[0]), frame.y(curve.score[0]))]
        for at, score in zip(curve.spent[1:], curve.score[1:], strict=True):
            steps += [(frame.x(at), steps[-1][1]), (frame.x(at), frame.y(score))]
        canvas.path([*steps, (frame.x(end), steps[-1][1])], f"line {css}")
        for at, score in zip(curve.spent, curve.score, strict=True):
            canvas.add("circle", cx=frame.x(at), cy=frame.y(score), r=2.4, class_=f"mark {css}")
        name = curve.evaluator or "trials"
        canvas.line(x, 12, x + 16, 12, f"line {css}")
        canvas.text(x + 22, 16, name, "legend")
        x += 40 + 6.7 * len(name)
    return canvas.render()
