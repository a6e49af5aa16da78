"""Convolutions on images: B batch, C channels, H rows, W columns.

Every output has ceil(H / stride) rows and as many columns, whatever the kernel: images are padded with zeros by half of
it. Channels lie last in memory, in which torch's kernels are about twice as fast on a processor.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from rankitect.blocks.dense import ACTIVATIONS
from rankitect.blocks.vectors import check_act
from rankitect.errors import SpaceError
from rankitect.graph import Block, Call, Elementwise, Expr, Param, Params, TensorType, as_expr
from rankitect.space.expr import ExprLike
from rankitect.space.names import shown

__all__ = ["BatchNorm", "Conv2d", "Depthwise", "SqueezeExcite", "centre_out"]


@cache
def centre_out(side: int) -> tuple[int, ...]:
    """Where each tap of a square kernel stands when its taps are stored from the centre outwards.

    The taps of each smaller kernel, in the same order, are then the first of the larger: the crop is a prefix.

    Args:
        side: Rows of the kernel, odd.

    Returns:
        For each tap, row by row, its place in the stored order.

    >>> centre_out(3)
    (1, 2, 3, 4, 0, 5, 6, 7, 8)
    """
    half = side // 2
    taps = [(row - half, column - half) for row in range(side) for column in range(side)]
    order = sorted(range(len(taps)), key=lambda i: (max(map(abs, taps[i])), i))
    # Of one ring, the taps keep the order of rows in every kernel that holds it.
    places = [0] * len(taps)
    for place, tap in enumerate(order):
        places[tap] = place
    return tuple(places)


def _check_whole(block: str, name: str, value: Any, odd: bool = False) -> None:
    """Refuse what is no positive whole number, or an even one where it must be odd; an expression is left to the run.

    Raises:
        SpaceError: Names the block, the field and the value.
    """
    number = value.constant if isinstance(value, Expr) else value
    if number is None:
        return
    if isinstance(number, bool) or number != round(number) or number < 1 or (odd and not number % 2):
        kind = "an odd number" if odd else "a whole number"
        raise SpaceError(f"{block}: {name} is {shown(value)}; it must be {kind} from 1")


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Images with their channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def kernel_param(outputs: ExprLike, inputs: ExprLike, kernel: ExprLike) -> Param:
    """The weight of a convolution: [outputs, inputs of a group, rows, columns], or taps from the centre outwards on one
    axis, [outputs, inputs, taps], where choices decide how large the kernel is."""
    kernel = as_expr(kernel)
    if kernel.paths:
        return Param.of(outputs, inputs, kernel * kernel, inputs=(1, 2))
    return Param.of(outputs, inputs, kernel, kernel, inputs=(1, 2, 3))


def kernel_of(p: Params, name: str = "weight") -> torch.Tensor:
    """A convolution's weight as torch takes it, [outputs, inputs, rows, columns]; a relaxed model weighs its rings.

    Raises:
        SpaceError: The kernel has an even number of rows.
    """
    weight: torch.Tensor = getattr(p, name)
    if weight.dim() == 4:
        return weight
    taps = weight.shape[2]
    side = isqrt(taps)
    if not side % 2:
        raise SpaceError(f"a kernel of {side} rows has no centre: the values of `kernel` must be odd")
    kept = p.mask("kernel")
    if kept is not None:
        weight = weight * kept[_rings(taps, weight.device)]
    return weight.index_select(2, _places(side, weight.device)).unflatten(2, (side, side))


@cache
def _places(side: int, device: torch.device) -> torch.Tensor:
    """`centre_out` as an index."""
    with torch.inference_mode(False):  # also where the first to ask is an evaluation
        return torch.tensor(centre_out(side), device=device)


@cache
def _rings(taps: int, device: torch.device) -> torch.Tensor:
    """For each stored tap, the largest number of rows of a kernel that does not reach its ring."""
    with torch.inference_mode(False):
        return torch.tensor([2 * ((isqrt(place) + 1) // 2) for place in range(taps)], device=device)


def shrunk(size: Expr, stride: int) -> Expr:
    """Rows or columns that a stride leaves."""
    return (size + stride - 1) // stride


class Conv2d(Block):
    """A convolution: [B, C, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)].

    Args:
        width: Channels of the output.
        kernel: Rows and columns of the kernel, odd. Where choices decide it, a smaller kernel is the middle of the
            largest (arXiv 1908.09791, without its transformations).
        stride: Every so many rows and columns.
        bias: Whether there is one.
        group: Channels that are read by one output (those of its group); 0 for all. With groups, an open number of
            channels must be the same before and after.
        dilation: Distance of the taps of the kernel.
    """

    ports: ClassVar[str] = "B C H W -> B width (H+stride-1)//stride (W+stride-1)//stride"
    plain: ClassVar[tuple[str, ...]] = ("stride", "group", "dilation")
    width: ExprLike
    kernel: ExprLike = 3
    stride: int = 1
    bias: bool = False
    group: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        _check_whole("Conv2d", "kernel", self.kernel, odd=True)
        _check_whole("Conv2d", "stride", self.stride)
        _check_whole("Conv2d", "dilation", self.dilation)
        if self.group:
            _check_whole("Conv2d", "group", self.group)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        channels, width = inputs[0][1], as_expr(self.width)
        if self.group:
            if channels.constant is None or width.constant is None:
                if channels != width:
                    raise SpaceError(f"Conv2d: with groups, {channels} channels must stay as many, not become {width}")
            elif channels.constant % self.group or width.constant % (channels.constant // self.group):
                raise SpaceError(f"Conv2d: {channels} and {width} channels are no groups of {self.group} inputs")
        weights = {"weight": kernel_param(self.width, self.group or channels, self.kernel)}
        return {**weights, "bias": Param.of(self.width, init="zeros")} if self.bias else weights

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return self._convolved(p, channels_last(inputs[0]))

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        return self._convolved(p, inputs[0])

    def _convolved(self, p: Params, x: torch.Tensor) -> torch.Tensor:
        weight = kernel_of(p)
        groups = x.shape[1] // self.group if self.group else 1
        padding = self.dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, p.bias if self.bias else None, self.stride, padding, self.dilation, groups)

    def flops(self, *inputs: TensorType) -> Expr:
        batch, channels, rows, columns = inputs[0].dims
        size, taps = shrunk(rows, self.stride) * shrunk(columns, self.stride), as_expr(self.kernel) * self.kernel
        return 2 * batch * size * self.width * (self.group or channels) * taps


class Depthwise(Block):
    """A convolution of each channel by itself: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].

    Args:
        kernel: As of `Conv2d`.
        stride: Every so many rows and columns.
        dilation: Distance of the taps of the kernel.
    """

    ports: ClassVar[str] = "B C H W -> B C (H+stride-1)//stride (W+stride-1)//stride"
    plain: ClassVar[tuple[str, ...]] = ("stride", "dilation")
    passes_masks: ClassVar[bool] = True
    kernel: ExprLike = 3
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        _check_whole("Depthwise", "kernel", self.kernel, odd=True)
        _check_whole("Depthwise", "stride", self.stride)
        _check_whole("Depthwise", "dilation", self.dilation)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": kernel_param(inputs[0][1], 1, self.kernel)}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return self._convolved(p, channels_last(inputs[0]))

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        return self._convolved(p, inputs[0])

    def _convolved(self, p: Params, x: torch.Tensor) -> torch.Tensor:
        weight = kernel_of(p)
        padding = self.dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation, x.shape[1])

    def flops(self, *inputs: TensorType) -> Expr:
        batch, channels, rows, columns = inputs[0].dims
        return (
            2 * batch * channels * shrunk(rows, self.stride) * shrunk(columns, self.stride) * self.kernel * self.kernel
        )


class BatchNorm(Elementwise):
    """Batch normalisation of each channel (arXiv 1502.03167), then an activation: [B, C, ...] -> [B, C, ...].

    In training by the statistics of the batch, which move the running ones, as torch's; else by the running ones.

    Args:
        act: The activation.
        eps: Added to the variance.
        momentum: How far the running statistics move in a step of training.
    """

    ports: ClassVar[str] = "B C ... -> B C ..."
    passes_masks: ClassVar[bool] = False
    act: str = "none"
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_act("BatchNorm", self.act)
        if not 0 < self.momentum <= 1 or not self.eps > 0:
            raise SpaceError(f"BatchNorm: momentum {self.momentum} must be in (0, 1], and eps {self.eps} above 0")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        channels = inputs[0][1]
        return {
            "weight": Param.of(channels, init="ones"),
            "bias": Param.of(channels, init="zeros"),
            "mean": Param.of(channels, init="zeros", trained=False),
            "variance": Param.of(channels, init="ones", trained=False),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        momentum = p.momentum(self.momentum)
        y = F.batch_norm(inputs[0], p.mean, p.variance, p.weight, p.bias, p.training, momentum, self.eps)
        return ACTIVATIONS[self.act](y)


class SqueezeExcite(Block):
    """Each channel times a gate that reads the means of all channels (arXiv 1709.01507): [B, C, H, W] -> the same.

    Args:
        hidden: Hidden units between the means and the gates.
        act: Of the hidden units. The gate is a hard sigmoid, as in MobileNetV3 (arXiv 1905.02244).
    """

    ports: ClassVar[str] = "B C H W -> B C H W"
    passes_masks: ClassVar[bool] = True
    hidden: ExprLike
    act: str = "relu"

    def __post_init__(self) -> None:
        check_act("SqueezeExcite", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        channels = inputs[0][1]
        return {
            "reduce": Param.of(self.hidden, channels),
            "reduce_bias": Param.of(self.hidden, init="zeros"),
            "expand": Param.of(channels, self.hidden),
            "expand_bias": Param.of(channels, init="zeros"),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        means = x.mean((2, 3), keepdim=True).flatten(1)
        hidden = ACTIVATIONS[self.act](p.linear(means, "reduce", "reduce_bias"))
        gate = F.hardsigmoid(p.read(hidden, "expand", ("hidden",)) + p.expand_bias)
        return x * gate[:, :, None, None]

    def flops(self, *inputs: TensorType) -> Expr:
        return 4 * inputs[0][0] * inputs[0][1] * self.hidden
