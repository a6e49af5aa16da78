"""One batch of encoded rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["RankingBatch"]


@dataclass(frozen=True, eq=False)
class RankingBatch:
    """B rows, encoded.

    Attributes:
        numeric: Normalised numbers, [B, N] float32; N may be 0. Missing values are 0, the training split's mean.
        ids: Rows of each feature's own table, [B, S] int64, S the sum of the features' slots
            (`rankitect.data.ranking.features`: 0 unknown or rare, 1 missing, from 2 on real values, -1 an unused slot).
        label: 0 or 1, [B] float32.
        weight: Importance of each row, [B] float32; None where all count the same.
        group: Rows of one user (or other cluster) have the same number, [B] int64, not dense; None without such a key.
        row: Place of the first row in the order of reading: the row of the split when it is read in order.
    """

    numeric: Tensor
    ids: Tensor
    label: Tensor
    weight: Tensor | None = None
    group: Tensor | None = None
    row: int = 0

    def __len__(self) -> int:
        return int(self.label.shape[0])

    def part(self, rows: slice) -> RankingBatch:
        """Some of the rows."""
        if rows == slice(None):
            return self
        return replace(self, **{name: x[rows] for name, x in vars(self).items() if name != "row" and x is not None})

    def to(self, device: torch.device | str) -> RankingBatch:
        """The rows on a device; itself where they are there."""
        if str(device) == str(self.label.device):
            return self
        return replace(
            self, **{name: x.to(device) for name, x in vars(self).items() if name != "row" and x is not None}
        )

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """What a ranking model is called with: (numeric, ids)."""
        return self.numeric, self.ids
