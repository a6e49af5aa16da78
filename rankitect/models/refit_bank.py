"""The changes of one weight for all of its sizes, each number stored once, in the order in which mixtures read them.

A size keeps a prefix of the units along each axis. Where the sizes end, the axes are cut into cells; in a cell, a size
has either all of its numbers or none. So a cell holds the rows of the sizes that reach it, and no zeros are stored or
multiplied: for widths in equal steps that is half of one row of full length for every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import torch

__all__ = ["RefitBank"]

Units = tuple[int, ...]


@dataclass(frozen=True)
class _Cell:
    """A part of a weight, and what the sizes that reach it change there.

    Attributes:
        place: Where it is in the weight, [outputs, units...].
        numbers: Those of the sizes that reach it.
        sizes: The same, [S] int64.
        values: Their changes, [S, outputs, units of the cell...].
    """

    place: tuple[slice, ...]
    numbers: tuple[int, ...]
    sizes: torch.Tensor
    values: torch.Tensor


class RefitBank:
    """See the module.

    Args:
        full: The weight at its largest, [outputs, units...].
        options: The sizes, one tuple over the units' axes each.
        change: Gives what to add to the prefix of a size, [outputs, *size]; asked once for each.
    """

    def __init__(self, full: torch.Tensor, options: Sequence[Units], change: Callable[[Units], torch.Tensor]) -> None:
        self._shape, self._number = full.shape, {units: number for number, units in enumerate(options)}
        ends = [[0, *sorted(set(axis))] for axis in zip(*options, strict=True)]
        self._cells = []
        for spans in product(*(list(pairwise(axis)) for axis in ends)):
            place = (slice(None), *(slice(*span) for span in spans))
            reached = [number for number, units in enumerate(options) if _reaches(units, place)]
            if reached:
                values = full.new_empty(len(reached), *full[place].shape)
                sizes = torch.tensor(reached, device=full.device)
                self._cells.append(_Cell(place, tuple(reached), sizes, values))
        for units in options:
            whole = change(units)
            for cell, row in self._rows(units):
                row.copy_(whole[cell.place])

    def _rows(self, units: Units) -> list[tuple[_Cell, torch.Tensor]]:
        """The cells that a size reaches, each with its row there."""
        number = self._number[units]
        return [(cell, cell.values[cell.numbers.index(number)]) for cell in self._cells if _reaches(units, cell.place)]

    def change(self, units: Units) -> torch.Tensor:
        """What to add to the prefix of a size, [outputs, *units]; a copy."""
        whole = self._cells[0].values.new_empty(self._shape[0], *units)
        for cell, row in self._rows(units):
            whole[cell.place] = row
        return whole

    def mixed(self, chances: torch.Tensor) -> torch.Tensor:
        """The expected change at its largest, [outputs, units...], given each size's probability, [sizes]."""
        result: torch.Tensor = _Mixed.apply(chances, self)
        return result


def _reaches(units: Units, place: tuple[slice, ...]) -> bool:
    """Whether a size has the numbers of a cell."""
    return all(part.stop <= kept for part, kept in zip(place[1:], units, strict=True))


class _Mixed(torch.autograd.Function):
    """Linear in the probabilities; the changes themselves are constants. In float32, as the weights are."""

    @staticmethod
    def forward(ctx: Any, chances: torch.Tensor, bank: RefitBank) -> torch.Tensor:
        ctx.bank, ctx.dtype = bank, chances.dtype  # probabilities may have been computed in bfloat16
        chances = chances.to(bank._cells[0].values.dtype)
        mixed = chances.new_zeros(bank._shape)
        kind = chances.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            for cell in bank._cells:
                mixed[cell.place] = (chances[cell.sizes] @ cell.values.flatten(1)).view(cell.values.shape[1:])
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        bank, (slope,) = ctx.bank, grads
        slope = slope.to(bank._cells[0].values.dtype)
        result = slope.new_zeros(len(bank._number))
        for cell in bank._cells:
            result.index_add_(0, cell.sizes, cell.values.flatten(1) @ slope[cell.place].flatten())
        return result.to(ctx.dtype), None
