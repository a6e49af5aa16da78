"""The best candidate against a reference model, layer by layer, drawn from the choices of their architectures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rankitect.models.families import axes
from rankitect.reports.cards import JSON, Figure
from rankitect.reports.figures.svg import Canvas
from rankitect.reports.numbers import as_percent, compact, is_number

__all__ = ["Grid", "architecture_figure", "dropped_layers", "grids_of"]

_PATH = re.compile(r"^(?P<prefix>.+)\.(?P<index>\d+)\.(?P<name>[^.]+)$")
# How often a layer runs, or whether it does: a layer that runs zero times has no other choices.
_RUNS = (axes.RUNS, "kept", "keep", "repeat", "live", "active")
_TALL, _FLAT = 58, 24


@dataclass(frozen=True)
class Grid:
    """Choices of a repeated block: `layers.3.ffn` is in the grid of prefix `layers`, column 3, row `ffn`.

    Attributes:
        prefix: The block's name.
        size: How many columns there are, in candidate, reference and domain together.
        rows: Values by choice name, one for each column; None where the choice is not live.
    """

    prefix: str
    size: int
    rows: Mapping[str, Sequence[JSON]]


def grids_of(choices: Mapping[str, JSON], sizes: Mapping[str, int] | None = None) -> dict[str, Grid]:
    """Sort the choices whose paths look like `prefix.<number>.<name>` into grids.

    Args:
        choices: Values by path.
        sizes: The least number of columns by prefix.

    Returns:
        The grids by prefix, in the order in which they occur.
    """
    by_prefix: dict[str, dict[str, dict[int, JSON]]] = {}
    for path, value in choices.items():
        match = _PATH.match(path)
        if match:
            by_prefix.setdefault(match["prefix"], {}).setdefault(match["name"], {})[int(match["index"])] = value
    grids = {}
    for prefix, rows in by_prefix.items():
        size = max((sizes or {}).get(prefix, 0), 1 + max(index for row in rows.values() for index in row))
        if size <= 512:  # a path with a huge number is no layer
            grids[prefix] = Grid(prefix, size, {n: [row.get(i) for i in range(size)] for n, row in rows.items()})
    return grids


def dropped_layers(grid: Grid) -> list[int]:
    """Columns of a grid that are not run: `runs` is 0, `kept` is false, or nothing in the column is live."""
    gone = []
    for index in range(grid.size):
        column = {name: row[index] for name, row in grid.rows.items()}
        flags = [column[name] for name in _RUNS if name in column and column[name] is not None]
        if all(value is None for value in column.values()) or any(not flag for flag in flags):
            gone.append(index)
    return gone


def architecture_figure(
    candidate: Mapping[str, JSON], reference: Mapping[str, JSON], reference_name: str
) -> list[Figure]:
    """Draw every grid of an architecture, one chart a row, before the outline of a reference.

    Args:
        candidate: The candidate's choices by path.
        reference: The reference's choices; may be empty, then bars stand against the largest value of the row.
        reference_name: What the reference is called.

    Returns:
        One figure a grid; empty where no choice has a path like `prefix.<number>.<name>`.
    """
    others = grids_of(reference)
    figures = []
    for prefix, grid in grids_of(candidate, {name: g.size for name, g in others.items()}).items():
        other = others.get(prefix, Grid(prefix, grid.size, {}))
        grid, other = _with_heads(grid), _with_heads(other)
        gone = dropped_layers(grid)
        data: dict[str, JSON] = {
            "prefix": prefix,
            "dropped": list(gone),
            "candidate": {name: list(row) for name, row in grid.rows.items()},
            reference_name: {name: list(row) for name, row in other.rows.items()},
        }
        figures.append(
            Figure(
                _draw(grid, other, gone, reference_name, 860),
                _draw(grid, other, gone, reference_name, 360),
                caption=_caption(grid, other, gone, reference_name),
                data=data,
            )
        )
    return figures


def _with_heads(grid: Grid) -> Grid:
    """Add the row of query heads, where the choices are key-value heads and query heads for each of them."""
    if axes.KV_HEADS not in grid.rows or axes.QUERY_HEADS not in grid.rows:
        return grid
    pairs = zip(grid.rows[axes.KV_HEADS], grid.rows[axes.QUERY_HEADS], strict=True)
    heads: list[JSON] = [k * g if isinstance(k, int) and isinstance(g, int) else None for k, g in pairs]
    rows: dict[str, Sequence[JSON]] = {}
    for name, row in grid.rows.items():
        rows[name] = row
        if name == axes.KV_HEADS:
            rows["query_heads"] = heads
    rows.pop(axes.QUERY_HEADS)
    return Grid(grid.prefix, grid.size, rows)


def _caption(grid: Grid, other: Grid, gone: Sequence[int], name: str) -> str:
    parts = [f"{grid.prefix}: {grid.size - len(gone)} of {grid.size} kept"]
    kept = [i for i in range(grid.size) if i not in gone]
    for row, values in grid.rows.items():
        numbers = [v for i in kept if is_number(v := values[i])]
        whole = [v for v in other.rows.get(row, ()) if is_number(v)]
        if numbers and whole and row not in _RUNS and sum(whole):  # type: ignore[arg-type]
            parts.append(f"{row} in all {as_percent(sum(numbers) / sum(whole), 0)} of the {name}")  # type: ignore[arg-type]
    return "; ".join(parts) + "."


def _draw(grid: Grid, other: Grid, gone: Sequence[int], reference_name: str, width: int) -> Markup:
    narrow = width < 500
    left, top = (8, 30) if narrow else (128, 30)
    names = sorted(grid.rows, key=lambda name: name not in _RUNS)
    heights = {name: _FLAT if _kind(grid, other, name) == "word" or name in _RUNS else _TALL for name in names}
    above = 18 if narrow else 0
    words = {name: _words(grid, other, name) for name in names if heights[name] == _FLAT}
    key = sum(20 for values in words.values() if values)
    height = top + sum(h + 12 + above for h in heights.values()) + 40 + key
    canvas = Canvas(width, height, f"Choices of {grid.prefix} by position, candidate against {reference_name}")
    step = (width - left - 8) / grid.size
    _legend(canvas, left, reference_name, bool(other.rows), bool(gone))
    bottom = height - 34 - key
    for index in gone:
        canvas.add(
            "rect",
            title=f"{grid.prefix}.{index}: dropped",
            x=left + index * step,
            y=top,
            width=step,
            height=bottom - top,
            class_="dropped",
        )
    y = float(top)
    for name in names:
        y += above
        if narrow:
            canvas.text(left, y - 5, _row_title(grid, other, name), "label")
        else:
            canvas.text(left - 10, y + heights[name] / 2, name, "label", "end")
            canvas.text(left - 10, y + heights[name] / 2 + 14, _range_text(grid, other, name), "tick", "end")
        place = _Row(canvas, grid, other, name, left, step, y, heights[name])
        place.words(gone, words[name]) if name in words else place.bars(gone, reference_name)
        y += heights[name] + 12
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100) if n * step >= (22 if narrow else 18))
    for index in range(0, grid.size, every):
        canvas.text(left + (index + 0.5) * step, bottom + 12, str(index), "tick", "middle")
    canvas.text(left + grid.size * step / 2, bottom + 30, f"position in {grid.prefix}", "axis-title", "middle")
    _key(canvas, words, left, bottom + 50)
    return canvas.render()


def _kind(grid: Grid, other: Grid, name: str) -> str:
    values = [v for v in (*grid.rows[name], *other.rows.get(name, ())) if v is not None]
    return "number" if values and all(is_number(v) for v in values) else "word"


def _words(grid: Grid, other: Grid, name: str) -> list[str]:
    """The values of a row of words in a fixed order: the reference's own first, for the quietest colour."""
    if _kind(grid, other, name) == "number":
        return []
    values = [str(v) for v in (*other.rows.get(name, ()), *grid.rows[name]) if v is not None]
    return list(dict.fromkeys(values))


def _range_text(grid: Grid, other: Grid, name: str) -> str:
    if _kind(grid, other, name) == "word" or name in _RUNS:
        return ""
    return f"0 to {compact(_highest(grid, other, name), trim=True)}"


def _row_title(grid: Grid, other: Grid, name: str) -> str:
    text = _range_text(grid, other, name)
    return f"{name}  ({text})" if text else name


def _highest(grid: Grid, other: Grid, name: str) -> float:
    values = (*grid.rows[name], *other.rows.get(name, ()))
    return max((float(v) for v in values if is_number(v)), default=1.0) or 1.0  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Row:
    """One row of the chart: where it is and what it shows."""

    canvas: Canvas
    grid: Grid
    other: Grid
    name: str
    left: float
    step: float
    y: float
    height: float

    def bars(self, gone: Sequence[int], reference_name: str) -> None:
        """Bars for numbers, before the outline of the reference's."""
        scale = self.height / _highest(self.grid, self.other, self.name)
        bottom = self.y + self.height
        inner = max(1.0, self.step - max(1.0, 0.18 * self.step))
        reference = self.other.rows.get(self.name, [None] * self.grid.size)
        self.canvas.line(self.left, bottom, self.left + self.step * self.grid.size, bottom, "axis")
        for index, value in enumerate(self.grid.rows[self.name]):
            x = self.left + index * self.step + (self.step - inner) / 2
            base = reference[index] if index < len(reference) else None
            path = f"{self.grid.prefix}.{index}.{self.name}"
            if is_number(base):
                tall = float(base) * scale  # type: ignore[arg-type]
                self.canvas.add(
                    "rect",
                    x=x,
                    y=bottom - tall,
                    width=inner,
                    height=tall,
                    class_="outline gone" if index in gone else "outline",
                )
            if is_number(value) and index not in gone:
                tall = float(value) * scale  # type: ignore[arg-type]
                tip = f"{path} = {value}" + (f", {reference_name} {base}" if base is not None else "")
                self.canvas.add(
                    "rect",
                    title=tip,
                    x=x,
                    y=bottom - tall,
                    width=inner,
                    height=tall,
                    class_="bar candidate",
                    data_tip=tip,
                )

    def words(self, gone: Sequence[int], words: Sequence[str]) -> None:
        """Coloured cells for words and for how often a layer runs."""
        inner = max(1.0, self.step - max(1.0, 0.18 * self.step))
        for index, value in enumerate(self.grid.rows[self.name]):
            if value is None or (index in gone and self.name not in _RUNS):
                continue
            x = self.left + index * self.step + (self.step - inner) / 2
            css = f"word{words.index(str(value)) % 5}" if words else ("word-none" if not value else "word0")
            if not words and is_number(value) and float(value) > 1:  # type: ignore[arg-type]
                css = "word1"
            tip = f"{self.grid.prefix}.{index}.{self.name} = {value}"
            self.canvas.add(
                "rect",
                title=tip,
                x=x,
                y=self.y,
                width=inner,
                height=self.height,
                rx=2,
                class_=f"word {css}",
                data_tip=tip,
            )
            if self.step >= 14 and not words:
                ink = "word-text" if value else "tick"
                self.canvas.text(x + inner / 2, self.y + self.height / 2 + 4, str(value), ink, "middle")


def _legend(canvas: Canvas, left: float, reference_name: str, known: bool, any_gone: bool) -> None:
    entries = [("bar candidate", "candidate")]
    entries += [("outline", reference_name)] if known else []
    entries += [("dropped", "dropped")] if any_gone else []
    x = left
    for css, text in entries:
        canvas.add("rect", x=x, y=4, width=12, height=12, class_=css)
        canvas.text(x + 18, 14, text, "legend")
        x += 38 + 6.7 * len(text)


def _key(canvas: Canvas, words: Mapping[str, Sequence[str]], left: float, y: float) -> None:
    for name, values in words.items():
        if not values:
            continue
        x = left
        canvas.text(x, y, f"{name}:", "legend")
        x += 12 + 6.7 * len(name)
        for index, word in enumerate(values[:5]):
            canvas.add("rect", x=x, y=y - 10, width=12, height=12, rx=2, class_=f"word word{index}")
            canvas.text(x + 17, y, word[:24], "legend")
            x += 34 + 6.7 * min(24, len(word))
        y += 20
