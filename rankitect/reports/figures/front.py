"""The Pareto front, drawn: quality over cost, with the baselines and the reference model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from rankitect.reports.cards import JSON, Figure
from rankitect.reports.comparison import ModelPoint, families
from rankitect.reports.figures.svg import AxisScale, Canvas, Frame
from rankitect.reports.numbers import as_value, compact
from rankitect.reports.roles import Roles
from rankitect.study.pareto import nondominated

__all__ = ["front_figure"]

# A third of a decade: wider than that, a linear axis would press the good models together.
_LOG_FROM = 2.5
_MARKS = ("square", "triangle", "cross", "ring")


def front_figure(points: Sequence[ModelPoint], roles: Roles, trials: Sequence[tuple[float, float]] = ()) -> Figure:
    """Draw candidates and baselines in the plane of cost and quality.

    Args:
        points: Candidates and baselines.
        roles: What is quality and what is cost.
        trials: Cost and quality of the other models measured the same way, drawn small behind.

    Returns:
        The figure in two widths; its data lists every point.
    """
    data: list[JSON] = [
        {
            "label": p.label,
            "kind": p.kind,
            "cost": p.cost,
            "quality": p.quality,
            "ci95": list(p.ci95) if p.ci95 else None,
            "n": p.n,
            "fingerprint": p.fingerprint,
        }
        for p in points
    ]
    return Figure(
        wide=_draw(points, roles, trials, 860, 440),
        narrow=_draw(points, roles, trials, 360, 400),
        data={"cost": roles.cost_label, "quality": roles.quality_label, "points": data},
    )


def _draw(
    points: Sequence[ModelPoint], roles: Roles, trials: Sequence[tuple[float, float]], width: int, height: int
) -> Markup:
    narrow = width < 500
    canvas = Canvas(width, height, f"{roles.quality_label} over {roles.cost_label}")
    groups = families(points)
    legend_rows = _legend(canvas, groups, points, bool(trials), width)
    frame = _frame(canvas, points, (58 if not narrow else 44, width - 16), (height - 52, 34 + 20 * legend_rows), roles)
    frame.axes(
        roles.cost_label,
        roles.quality_label,
        lambda v: roles.cost_text(v),
        lambda v: compact(v, trim=True),
        5 if narrow else 9,
    )
    for cost, quality in trials:
        if frame.x.low <= cost <= frame.x.high and frame.y.low <= quality <= frame.y.high:
            canvas.add("circle", cx=frame.x(cost), cy=frame.y(quality), r=2.5, class_="trial")
    reference = [p for p in points if p.kind == "reference"]
    for index, members in enumerate(groups.values()):
        curve = [*members, *(r for r in reference if r.cost > members[-1].cost)]
        canvas.path([(frame.x(p.cost), frame.y(p.quality)) for p in curve], f"line family{index % 4}")
        for p in members:
            _interval(frame, p, f"family{index % 4}")
            _mark(canvas, _MARKS[index % 4], frame.x(p.cost), frame.y(p.quality), f"family{index % 4}", _tip(p, roles))
    for p in reference:
        _interval(frame, p, "reference")
        _mark(canvas, "diamond", frame.x(p.cost), frame.y(p.quality), "reference", _tip(p, roles))
    _candidates(frame, [p for p in points if p.kind == "candidate"], roles, narrow)
    return canvas.render()


def _candidates(frame: Frame, candidates: Sequence[ModelPoint], roles: Roles, narrow: bool) -> None:
    kept = [candidates[i] for i in nondominated([(p.cost, -roles.sign * p.quality) for p in candidates])]
    frame.canvas.path([(frame.x(p.cost), frame.y(p.quality)) for p in kept], "line candidate")
    radius = 8 if narrow else 10
    for p in candidates:
        x, y = frame.x(p.cost), frame.y(p.quality)
        _interval(frame, p, "candidate")
        frame.canvas.open(
            "a",
            href=f"#candidate-{p.rank}",
            class_="point",
            data_row=f"candidate-{p.rank}",
            data_tip=_tip(p, roles),
            title=_tip(p, roles),
        )
        frame.canvas.add("circle", cx=x, cy=y, r=radius, class_="mark candidate")
        frame.canvas.text(x, y + 4, str(p.rank), "rank", "middle")
        frame.canvas.close("a")


def _frame(
    canvas: Canvas, points: Sequence[ModelPoint], across: tuple[float, float], down: tuple[float, float], roles: Roles
) -> Frame:
    costs = [p.cost for p in points]
    values = [p.quality for p in points] + [end for p in points if p.ci95 for end in p.ci95]
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM
    if log:
        low, high = low / (high / low) ** 0.07, high * (high / low) ** 0.05
    else:
        margin = 0.08 * ((high - low) or abs(high) or 1.0)
        low, high = low - margin, high + margin
    side = 0.05 * ((max(costs) - min(costs)) or abs(max(costs)) or 1.0)
    left = max(0.0, min(costs) - side)
    return Frame(canvas, AxisScale(left, max(costs) + side, *across), AxisScale(low, high, *down, log=log))


def _legend(
    canvas: Canvas, groups: dict[str, list[ModelPoint]], points: Sequence[ModelPoint], trials: bool, width: int
) -> int:
    """Draw the legend in rows at the top; returns how many rows it took."""
    entries = [("circle", "candidate", "candidates of this search")] if any(p.rank for p in points) else []
    entries += [("diamond", "reference", p.label) for p in points if p.kind == "reference"]
    entries += [(_MARKS[i % 4], f"family{i % 4}", name) for i, name in enumerate(groups)]
    entries += [("dot", "trial", "other models measured")] if trials else []
    x, row = 10.0, 0
    for shape, css, text in entries:
        shown = text if len(text) <= 40 else text[:39] + "…"
        need = 24 + 6.7 * len(shown)
        if x > 10 and x + need > width:
            x, row = 10.0, row + 1
        _mark(canvas, shape, x, 12 + 20 * row, css, "")
        canvas.text(x + 12, 16 + 20 * row, shown, "legend")
        x += need + 8
    return row + 1


def _interval(frame: Frame, point: ModelPoint, css: str) -> None:
    if point.ci95 is None:
        return
    x, low, high = frame.x(point.cost), *(frame.y(end) for end in point.ci95)
    frame.canvas.line(x, low, x, high, f"interval {css}")
    for y in (low, high):
        frame.canvas.line(x - 4, y, x + 4, y, f"interval {css}")


def _mark(canvas: Canvas, shape: str, x: float, y: float, css: str, tip: str) -> None:
    more = {"data_tip": tip, "tabindex": "0"} if tip else {}
    css = f"mark {css}"
    if shape in ("circle", "dot", "ring"):
        radius = {"circle": 6.0, "dot": 2.5, "ring": 5.0}[shape]
        canvas.add("circle", title=tip, cx=x, cy=y, r=radius, class_=css, **more)
        return
    size = 6.0
    turns = {"square": (45, 4, 1.2), "triangle": (-90, 3, 1.25), "diamond": (0, 4, 1.35), "cross": (0, 6, 1.1)}
    start, corners, stretch = turns[shape]
    steps = [math.radians(start + 360 * i / corners) for i in range(corners)]
    ring = " ".join(f"{x + size * stretch * math.cos(a):.2f},{y + size * stretch * math.sin(a):.2f}" for a in steps)
    canvas.add("polygon", title=tip, points=ring, class_=css, **more)


def _tip(point: ModelPoint, roles: Roles) -> str:
    text = f"{point.label}: {roles.quality.name} {as_value(point.quality, roles.quality.unit)}"
    if point.ci95:
        text += f" [{compact(point.ci95[0])}, {compact(point.ci95[1])}]"
    return f"{text} at {roles.cost_text(point.cost)}"
