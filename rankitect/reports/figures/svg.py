"""Drawing: an escaping SVG canvas, scales and axes. Colours are classes, so that the page's theme decides them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["AxisScale", "Canvas", "Frame", "log_ticks", "ticks"]


class Canvas:
    """An SVG drawing under construction. Every text and attribute is escaped.

    Args:
        width: Width, in pixels of the drawing's own coordinates.
        height: Height, likewise.
        label: What the drawing shows, for those who cannot see it.
        style: Rules to carry inside, where the drawing must stand alone outside a page.
        css: Class of the drawing.
    """

    def __init__(self, width: float, height: float, label: str, style: str = "", css: str = "figure") -> None:
        self.width, self.height, self.label, self.style, self.css = width, height, label, style, css
        self._parts: list[Markup] = []

    def add(self, tag: str, content: str = "", title: str = "", **attributes: float | str | None) -> None:
        """Add an element.

        Args:
            tag: The element's name.
            content: Its text.
            title: A tooltip.
            **attributes: Its attributes; `class_` is class, other underscores are dashes; None leaves one out.
        """
        self._parts.append(_element(tag, content, title, attributes))

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """Add a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)

    def text(self, x: float, y: float, content: str, css: str = "label", anchor: str = "start", **more: str) -> None:
        """Add a text; `anchor` is start, middle or end."""
        self.add("text", content, x=x, y=y, class_=css, text_anchor=anchor, **more)

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Add a broken line through points."""
        steps = " ".join(f"{'L' if i else 'M'}{_number(x)} {_number(y)}" for i, (x, y) in enumerate(points))
        self.add("path", d=steps, class_=css)

    def open(self, tag: str, title: str = "", **attributes: float | str | None) -> None:
        """Open a group or link that `close` ends."""
        whole = _element(tag, "", title, attributes)
        self._parts.append(Markup(str(whole)[: -len(f"</{tag}>")]))

    def close(self, tag: str) -> None:
        """Close what `open` began."""
        self._parts.append(Markup(f"</{escape(tag)}>"))

    def render(self) -> Markup:
        """The drawing as SVG text, which scales to the width it is given."""
        style = Markup("<style>{}</style>").format(Markup(self.style)) if self.style else Markup("")
        return Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" '
            'aria-label="{}">{}{}</svg>'
        ).format(
            self.css,
            _number(self.width),
            _number(self.height),
            _number(self.width),
            _number(self.height),
            self.label,
            style,
            Markup("").join(self._parts),
        )


def _element(tag: str, content: str, title: str, attributes: dict[str, float | str | None]) -> Markup:
    shown = Markup("").join(
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"), value if isinstance(value, str) else _number(value)
        )
        for name, value in attributes.items()
        if value is not None
    )
    tooltip = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup("<{}{}>{}{}</{}>").format(Markup(escape(tag)), shown, tooltip, content, Markup(escape(tag)))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class AxisScale:
    """Maps values from [low, high] to pixels from [start, end], linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(value) if self.log else value
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between two ends."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values between two positive ends, spread evenly by ratio."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        values = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(values) >= min(4, count):
            return values
    return ticks(low, high, count)


@dataclass(frozen=True)
class Frame:
    """The plotting area inside a canvas, with its two scales."""

    canvas: Canvas
    x: AxisScale
    y: AxisScale

    def axes(
        self, x_title: str, y_title: str, x_text: Callable[[float], str], y_text: Callable[[float], str], count: int
    ) -> None:
        """Draw grid lines, tick labels and titles; the vertical axis's title stands above it, where it is readable.

        Args:
            x_title: Title of the horizontal axis, with the unit.
            y_title: Title of the vertical axis, with the unit.
            x_text: A horizontal tick as text.
            y_text: A vertical tick as text.
            count: About how many horizontal ticks fit.
        """
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        levels = log_ticks(self.y.low, self.y.high) if self.y.log else ticks(self.y.low, self.y.high, 5)
        for value in levels:
            self.canvas.line(left, self.y(value), right, self.y(value), "grid")
            self.canvas.text(left - 8, self.y(value) + 4, y_text(value), "tick", "end")
        for value in ticks(self.x.low, self.x.high, count):
            self.canvas.line(self.x(value), bottom, self.x(value), bottom + 5, "axis")
            self.canvas.text(self.x(value), bottom + 19, x_text(value), "tick", "middle")
        self.canvas.line(left, bottom, right, bottom, "axis")
        self.canvas.text((left + right) / 2, bottom + 40, x_title, "axis-title", "middle")
        self.canvas.text(4, top - 14, y_title, "axis-title", "start")
