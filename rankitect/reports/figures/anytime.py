"""How good what a search knew was, over what it had spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rankitect.reports.cards import JSON, Figure
from rankitect.reports.figures.svg import AxisScale, Canvas, Frame
from rankitect.reports.numbers import as_duration, as_percent, compact

__all__ = ["Curve", "anytime_figure"]


@dataclass(frozen=True)
class Curve:
    """One evaluator's progress, a value for each of its measurements.

    Attributes:
        evaluator: Its key.
        spent: What the search had spent by then.
        score: Hypervolume as a share of the last one, or the best quality where there is no cost.
        best: The best quality at any cost.
        models: How many different models were measured.
    """

    evaluator: str
    spent: list[float]
    score: list[float]
    best: list[float]
    models: list[int]


def anytime_figure(curves: Sequence[Curve], measure: str, unit: str, y_title: str) -> Figure:
    """Draw the progress of every evaluator.

    Args:
        curves: One for each evaluator.
        measure: What spending is counted in, in words: the horizontal axis.
        unit: The unit of it; "s" for seconds.
        y_title: Title of the vertical axis.
    """
    data: list[JSON] = [
        {"evaluator": c.evaluator, "spent": list(c.spent), "score": list(c.score), "best": list(c.best)} for c in curves
    ]
    return Figure(
        _draw(curves, measure, unit, y_title, 860, 320),
        _draw(curves, measure, unit, y_title, 360, 300),
        data={"x": measure, "y": y_title, "curves": data},
    )


def _draw(curves: Sequence[Curve], measure: str, unit: str, y_title: str, width: int, height: int) -> Markup:
    narrow = width < 500
    canvas = Canvas(width, height, f"{y_title} over {measure}")
    shares = "Hypervolume" in y_title
    scores = [s for c in curves for s in c.score]
    low, high = (0.0, 1.02) if shares else (min(scores), max(scores))
    margin = 0 if shares else 0.08 * ((high - low) or abs(high) or 1.0)
    end = max(c.spent[-1] for c in curves)
    frame = Frame(
        canvas,
        AxisScale(0, end, 44 if narrow else 58, width - 22),
        AxisScale(low - margin, high + margin, height - 52, 54),
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
        name = curve.evaluator
        canvas.line(x, 12, x + 16, 12, f"line {css}")
        canvas.text(x + 22, 16, name, "legend")
        x += 40 + 6.7 * len(name)
    return canvas.render()
