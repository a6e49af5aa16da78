"""How much each choice explains, beside what chance would explain."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from rankitect.reports.cards import JSON, Figure
from rankitect.reports.figures.svg import Canvas
from rankitect.reports.numbers import as_percent

__all__ = ["importance_figure"]


def importance_figure(strengths: Mapping[str, float], chance: float) -> Figure:
    """Draw a bar for each choice, from top to bottom.

    Args:
        strengths: The share of variance that each choice explains, by its name.
        chance: The share that chance alone reaches.
    """
    data: JSON = {"chance": chance, "explained": dict(strengths)}
    return Figure(_draw(strengths, chance, 860), _draw(strengths, chance, 360), data=data)


def _draw(strengths: Mapping[str, float], chance: float, width: int) -> Markup:
    narrow = width < 500
    left = 150 if narrow else 250
    row, top = 24, 26
    canvas = Canvas(width, top + row * len(strengths) + 30, "Share of quality at equal cost explained by each choice")
    highest = max(chance, *strengths.values()) or 1.0
    scale = (width - left - 56) / highest
    for index, (choice, strength) in enumerate(strengths.items()):
        y = top + index * row
        limit = 22 if narrow else 38
        name = choice if len(choice) <= limit else f"…{choice[-limit + 1 :]}"
        canvas.text(left - 8, y + 15, name, "label", "end")
        css = "bar candidate" if strength > chance else "bar faint"
        canvas.add("rect", x=left, y=y + 3, width=max(1.0, strength * scale), height=row - 7, rx=2, class_=css)
        canvas.text(left + strength * scale + 6, y + 15, as_percent(strength, 0), "tick")
    x = left + chance * scale
    canvas.line(x, top - 6, x, top + row * len(strengths) + 4, "chance")
    canvas.text(x, top - 11, "chance", "tick", "middle")
    title = "variance explained alone" if narrow else "variance of quality at equal cost that the choice explains alone"
    canvas.text(left, top + row * len(strengths) + 22, title, "axis-title")
    return canvas.render()
