"""Values with their intervals, one below the other, and predictions against what was observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rankitect.reports.cards import JSON, Figure
from rankitect.reports.figures.svg import AxisScale, Canvas, Frame, ticks

__all__ = ["ForestRow", "intervals_figure", "reliability_figure"]

_ROW = 24


@dataclass(frozen=True)
class ForestRow:
    """A value with its interval.

    Attributes:
        name: What it is of.
        value: The value.
        low: Lower end.
        high: Upper end.
        css: "good", "bad" or "" for the colour.
    """

    name: str
    value: float
    low: float
    high: float
    css: str = ""


def intervals_figure(
    rows: Sequence[ForestRow], title: str, text: Callable[[float], str], zero: float = 0.0, caption: str = ""
) -> Figure:
    """A forest plot.

    Args:
        rows: From top to bottom.
        title: Of the axis.
        text: A value as text.
        zero: Where there is no difference: a line is drawn there.
        caption: Below the figure.
    """
    data: list[JSON] = [{"name": r.name, "value": r.value, "low": r.low, "high": r.high} for r in rows]
    wide, narrow = (_forest(rows, title, text, zero, width) for width in (860, 360))
    return Figure(wide, narrow, caption, data)


def _forest(rows: Sequence[ForestRow], title: str, text: Callable[[float], str], zero: float, width: int) -> Markup:
    names = 280 if width > 500 else 130
    height = _ROW * len(rows) + 60
    canvas = Canvas(width, height, title)
    ends = [zero, *(r.value for r in rows)]
    # One slice of a few rows must not squeeze all others: intervals that reach far beyond are cut off.
    reach = 3 * (max(ends) - min(ends)) or abs(max(ends)) or 1.0
    low = max(min(zero, *(r.low for r in rows)), min(ends) - reach)
    high = min(max(zero, *(r.high for r in rows)), max(ends) + reach)
    margin = 0.04 * (high - low or 1.0)
    x = AxisScale(low - margin, high + margin, names + 10, width - 14)
    bottom = _ROW * len(rows) + 12
    for value in ticks(low, high, 4 if width < 500 else 7):
        canvas.line(x(value), 6, x(value), bottom, "grid")
        canvas.text(x(value), bottom + 17, text(value), "tick", "middle")
    canvas.line(x(zero), 6, x(zero), bottom, "axis")
    most = names // 7
    for place, row in enumerate(rows):
        y = 18 + place * _ROW
        shown = row.name if len(row.name) <= most else row.name[: most - 1] + "…"
        canvas.text(names, y + 4, shown, "tick", "end")
        css = {"good": "family1", "bad": "family2"}.get(row.css, "family0")
        tip = f"{row.name}: {text(row.value)}, {text(row.low)} to {text(row.high)}"
        canvas.line(x(max(row.low, low)), y, x(min(row.high, high)), y, f"interval {css}")
        canvas.add("circle", title=tip, cx=x(row.value), cy=y, r=5, class_=f"mark {css}", data_tip=tip, tabindex="0")
    canvas.text((names + width) / 2, bottom + 38, title, "axis-title", "middle")
    return canvas.render()


def reliability_figure(models: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Observed over predicted click rates, a line for each model; on the diagonal they are equal.

    Args:
        models: Name of each with its (predicted, observed) points, from low to high.
    """
    data: list[JSON] = [{"model": n, "points": [{"predicted": p, "observed": o} for p, o in b]} for n, b in models]
    return Figure(_reliability(models, 860), _reliability(models, 360), data=data)


def _reliability(models: Sequence[tuple[str, Sequence[tuple[float, float]]]], width: int) -> Markup:
    canvas = Canvas(width, 360, "Observed over predicted click rate")
    top = 1.05 * max(max(p, o) for _, points in models for p, o in points)
    frame = Frame(canvas, AxisScale(0, top, 52, width - 16), AxisScale(0, top, 308, 54))
    frame.axes("Predicted", "Observed", lambda v: f"{v:.2g}", lambda v: f"{v:.2g}", 5)
    canvas.line(frame.x(0), frame.y(0), frame.x(top), frame.y(top), "axis")
    for place, (name, points) in enumerate(models):
        css = f"family{place % 4}"
        canvas.add("circle", cx=12 + 170 * place, cy=12, r=5, class_=f"mark {css}")
        canvas.text(24 + 170 * place, 16, name[:24], "legend")
        canvas.path([(frame.x(p), frame.y(o)) for p, o in points], f"line {css}")
        for p, o in points:
            tip = f"{name}: predicted {p:.3f}, observed {o:.3f}"
            canvas.add("circle", title=tip, cx=frame.x(p), cy=frame.y(o), r=4, class_=f"mark {css}", data_tip=tip)
    return canvas.render()
