"""Pairs of architectures that show which design rules hold: alike in what they cost, different in one respect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.models.families import axes
from rankitect.tasks.language.uniform import Cost, depths, nearest, patterned, widths

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["SHARE", "Contrast", "contrasts", "spread"]

SHARE = 0.75
"""Latency at which depth is held against width, of the reference's."""
SKIPPED = 6
"""Layers without attention, where a model has five times as many: rows of one, two and three divide it."""


@dataclass(frozen=True)
class Contrast:
    """A question, and the architectures that answer it, by what each stands for."""

    question: str
    sides: Mapping[str, Architecture]


def contrasts(
    space: SearchSpace, reference: Architecture, latency: Cost, influence: Mapping[str, float]
) -> list[Contrast]:
    """The questions that a space can answer.

    Depth against width: layers of least influence dropped, or one narrower feed-forward width in all layers, at equal
    latency. Skip, window or width: attention left out in some layers, or looking through a window in the same ones, or
    a feed-forward width with the latency of the skips. Skips in a row: as many layers without attention, standing alone
    or together.

    Args:
        space: A space of the family `mobile_llm`.
        reference: Its largest architecture.
        latency: Of an architecture.
        influence: Block influence by scope, "layers.3".
    """
    asked = []
    narrow, target = list(widths(space, reference)), SHARE * latency(reference)
    if axes.drops(space.choices):
        sides = {
            "fewer layers, full width": nearest(depths(space, reference, influence), latency, target),
            "all layers, narrower": nearest(narrow, latency, target),
        }
        asked.append(Contrast("Shallow and wide, or deep and thin, at equal latency?", sides))
    patterns = {i: space.choices.get(axes.path(axes.PATTERN, i)) for i in axes.layers(space.choices)}
    values = {i: pattern.values for i, pattern in patterns.items() if pattern is not None}
    attending = list(values)
    total = len(attending)
    count = SKIPPED if total >= 5 * SKIPPED else min(2, total // 2)
    if not count or axes.SKIP not in values[attending[0]]:
        return asked
    single = [attending[i] for i in spread(total, count, 1)]
    alone = patterned(space, reference, single, axes.SKIP)
    sides = {f"{count} layers skip attention": alone}
    if all(axes.WINDOW in values[i] for i in single):  # a layer with a window of its own may have no smaller one
        sides["a window in the same layers"] = patterned(space, reference, single, axes.WINDOW)
    sides["narrower feed-forward at the skips' latency"] = nearest(narrow, latency, latency(alone))
    asked.append(Contrast("Skip attention, look through a window, or narrow the feed-forward?", sides))
    rows = [n for n in (1, 2, 3) if count % n == 0 and count >= n]
    sides = {
        f"{n} in a row": patterned(space, reference, [attending[i] for i in spread(total, count, n)], axes.SKIP)
        for n in rows
    }
    if len(sides) > 1:
        asked.append(Contrast(f"How many of {count} skips in a row?", sides))
    return asked


def spread(total: int, count: int, row: int) -> list[int]:
    """Numbers of `count` of `total` layers in rows of `row`, the rows spread evenly, around the middle of the depth.

    >>> spread(30, 6, 1), spread(30, 6, 3)
    ([2, 7, 12, 17, 22, 27], [6, 7, 8, 21, 22, 23])
    """
    rows = count // row
    starts = [int((i + 0.5) * total / rows - row / 2) for i in range(rows)]
    return [start + n for start in starts for n in range(row)]
