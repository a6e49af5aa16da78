"""Pools of images: B batch, C channels, H rows, W columns. Sizes are those of `rankitect.blocks.convolution`."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from rankitect.errors import SpaceError
from rankitect.graph import Elementwise, Params

__all__ = ["AvgPool", "GlobalPool", "MaxPool"]


class _Pool(Elementwise):
    """A pool over windows: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].

    Args:
        kernel: Rows and columns of a window: odd, or equal to the stride. What a window has outside of the image
            counts for nothing.
        stride: Every so many rows and columns.
    """

    ports: ClassVar[str] = "B C H W -> B C (H+stride-1)//stride (W+stride-1)//stride"
    plain: ClassVar[tuple[str, ...]] = ("kernel", "stride")
    kernel: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        for name, value in (("kernel", self.kernel), ("stride", self.stride)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpaceError(f"{self.label}: {name} is {value}; it must be a whole number from 1")
        if not self.kernel % 2 and self.kernel != self.stride:
            raise SpaceError(f"{self.label}: an even kernel ({self.kernel}) needs a stride that is equal to it")

    def _padding(self, x: torch.Tensor) -> tuple[int, bool]:
        """Rows around the image, and whether a last window that is not whole counts."""
        if self.kernel % 2:
            return self.kernel // 2, False
        return 0, any(size % self.stride for size in x.shape[2:])


class AvgPool(_Pool):
    """The mean of each window, [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]; arguments: see `_Pool`."""

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        padding, whole = self._padding(inputs[0])
        return F.avg_pool2d(inputs[0], self.kernel, self.stride, padding, whole, count_include_pad=False)


class MaxPool(_Pool):
    """The largest value of each window, of the same sizes as `AvgPool`. Arguments: those of `_Pool`."""

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        padding, whole = self._padding(inputs[0])
        return F.max_pool2d(inputs[0], self.kernel, self.stride, padding, 1, whole)


class GlobalPool(Elementwise):
    """The mean of each channel over the image: [B, C, H, W] -> [B, C]."""

    ports: ClassVar[str] = "B C H W -> B C"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].mean((2, 3), keepdim=True).flatten(1)
