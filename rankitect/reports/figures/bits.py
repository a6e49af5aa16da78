"""Bits of weights by layer, drawn for several models: a strip of cells for each kind of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rankitect.reports.cards import Figure
from rankitect.reports.figures.svg import Canvas

__all__ = ["bits_figure"]

_CSS = {4: "word0", 8: "word1", 16: "word2", 32: "word3"}
_CELL, _GAP = 20, 10


def bits_figure(models: Mapping[str, Mapping[str, Sequence[int | None]]], caption: str) -> Figure:
    """Draw the bits of each layer, one strip for each model and kind of weights.

    Args:
        models: By the model's name, the bits of each layer by kind; None where a layer has no such weights.
        caption: Under the drawing.
    """
    data = {name: {kind: list(bits) for kind, bits in kinds.items()} for name, kinds in models.items()}
    return Figure(_draw(models, 860), _draw(models, 360), caption=caption, data=data)  # type: ignore[arg-type]


def _draw(models: Mapping[str, Mapping[str, Sequence[int | None]]], width: int) -> Markup:
    narrow = width < 500
    left, above = (8, 16) if narrow else (190, 0)
    rows = [(f"{name}, {kind}", bits) for name, kinds in models.items() for kind, bits in kinds.items()]
    size = max((len(bits) for _, bits in rows), default=1)
    step = (width - left - 8) / size
    height = 30 + sum(_CELL + 4 + above for _ in rows) + _GAP * len(models) + 34
    canvas = Canvas(width, height, "Bits of weights by layer")
    _legend(canvas, left, {bit for _, bits in rows for bit in bits if bit is not None})
    y, last = 30.0, ""
    for title, bits in rows:
        model = title.rpartition(", ")[0]
        y += above + (_GAP if last and model != last else 0)
        last = model
        canvas.text(*((left, y - 4) if narrow else (left - 10, y + 14)), title, "label", "start" if narrow else "end")
        for index, bit in enumerate(bits):
            if bit is None:
                continue
            x, tip = left + index * step, f"{title}, layer {index}: {bit} bits"
            css = f"word {_CSS.get(bit, 'word4')}"
            inner = max(1.0, step - 2)
            canvas.add("rect", title=tip, x=x, y=y, width=inner, height=_CELL, rx=2, class_=css, data_tip=tip)
            if step >= 14:
                canvas.text(x + inner / 2, y + 14, str(bit), "word-text", "middle")
        y += _CELL + 4
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 1000) if n * step >= 20)
    for index in range(0, size, every):
        canvas.text(left + (index + 0.5) * step, y + 14, str(index), "tick", "middle")
    canvas.text(left + size * step / 2, y + 30, "layer", "axis-title", "middle")
    return canvas.render()


def _legend(canvas: Canvas, left: float, used: set[int]) -> None:
    x = left
    for bit in sorted(used):
        canvas.add("rect", x=x, y=4, width=12, height=12, class_=f"word {_CSS.get(bit, 'word4')}")
        canvas.text(x + 18, 14, f"{bit} bits", "legend")
        x += 78
