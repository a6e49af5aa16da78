"""Predicted over measured latency."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rankitect.reports.cards import JSON, Figure
from rankitect.reports.figures.svg import AxisScale, Canvas, Frame
from rankitect.reports.latencies import ProgramLatency
from rankitect.reports.numbers import compact, readable_name
from rankitect.study.summary import CandidateSummary

__all__ = ["latency_figure"]


def latency_figure(latencies: Sequence[tuple[CandidateSummary, str, ProgramLatency]]) -> Figure:
    """Draw the predicted latencies over the measured ones; on the diagonal they are equal.

    Args:
        latencies: Each with its candidate and its name; those without a prediction are left out.
    """
    data: list[JSON] = [
        {"candidate": c.rank, "latency": name, "measured_ms": one.measured.p50, "predicted_ms": one.predicted_ms}
        for c, name, one in latencies
    ]
    return Figure(_draw(latencies, 560), _draw(latencies, 360), data=data)


def _draw(latencies: Sequence[tuple[CandidateSummary, str, ProgramLatency]], width: int) -> Markup:
    canvas = Canvas(width, 380, "Predicted latency over measured latency")
    points = [
        (c.rank, name, one.measured.p50, one.predicted_ms, one.predicted_interval_ms or (one.predicted_ms,) * 2)
        for c, name, one in latencies
        if one.predicted_ms is not None
    ]
    names = list(dict.fromkeys(name for _, name, *_ in points))
    top = max(max(m, p, ends[1]) for _, _, m, p, ends in points) * 1.06
    frame = Frame(canvas, AxisScale(0, top, 54, width - 16), AxisScale(0, top, 328, 54))
    frame.axes("Measured, ms", "Predicted, ms", compact, compact, 5)
    canvas.line(frame.x(0), frame.y(0), frame.x(top), frame.y(top), "axis")
    for index, name in enumerate(names):
        x = 10 + index * 150
        canvas.add("circle", cx=x, cy=12, r=5, class_=f"mark family{index % 4}")
        canvas.text(x + 12, 16, readable_name(name.removesuffix("_ms")), "legend")
    for rank, name, m, p, (low, high) in points:
        css = f"family{names.index(name) % 4}"
        tip = f"candidate {rank}, {name}: predicted {compact(p)}, measured {compact(m)}"
        canvas.line(frame.x(m), frame.y(max(low, 0.0)), frame.x(m), frame.y(high), f"interval {css}")
        canvas.add("circle", title=tip, cx=frame.x(m), cy=frame.y(p), r=5, class_=f"mark {css}", data_tip=tip)
    return canvas.render()
