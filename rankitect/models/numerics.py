"""Rounding to few bits, as a runtime computes it: weights by groups, activations by token, with gradients.

Weights are symmetric: level * scale, with levels from -2^(b-1) to 2^(b-1)-1 and the scale amax / (2^(b-1)-1). Scales of
groups are bfloat16 numbers, as XNNPACK keeps them; those of whole rows are float32. Activations are asymmetric, with
zero among their levels. Both equal torchao's fake quantizers to the bit.

Gradients go straight through (arXiv 1308.3432), so that nothing has to be kept for the backward pass. Scales that are
parameters learn by the rule of LSQ (arXiv 1902.08153).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rankitect.errors import SpaceError
from rankitect.graph.quantized import FLOAT, INTEGER_BITS

__all__ = [
    "Numerics",
    "RoundedWeights",
    "fake_tokens",
    "fake_weight",
    "levels_of",
    "quantized_levels",
    "weight_scales",
]

_CHUNK = 1 << 15
"""Elements that are rounded at a time on a processor: they stay in its cache."""
_SMALLEST = torch.finfo(torch.float32).smallest_normal


@dataclass(frozen=True)
class Numerics:
    """How a weight is rounded.

    Attributes:
        bits: Of each element.
        group: How many inputs share a scale; 0 for all.
        rows: How many leading axes of the weight are outputs.
        scale: The name of its stored scales; None where they follow from the weight.
    """

    bits: int
    group: int = 0
    rows: int = 1
    scale: str | None = None

    @property
    def is_integer(self) -> bool:
        """Whether it is rounded to integers with scales, rather than to float16."""
        return self.bits <= INTEGER_BITS

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scales of a weight, [outputs..., groups].

        Raises:
            SpaceError: The group does not divide the inputs.
        """
        inputs = math.prod(shape[self.rows :])
        if self.group and inputs % self.group:
            raise SpaceError(f"groups of {self.group} do not divide {inputs} inputs")
        return (*shape[: self.rows], inputs // self.group if self.group else 1)


def levels_of(bits: int) -> tuple[int, int]:
    """The least and the largest integer of so many bits.

    >>> levels_of(4)
    (-8, 7)
    """
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def weight_scales(weight: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """The scales that follow from a weight's largest absolute values, [outputs..., groups].

    Raises:
        SpaceError: The group does not divide the inputs.
    """
    shape = numerics.scale_shape(tuple(weight.shape))
    with torch.no_grad():
        largest = _grouped(weight.detach(), shape).abs().amax(-1)
        return _held(largest / levels_of(numerics.bits)[1], numerics).reshape(shape)


def _held(scale: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """A scale as the runtime holds it."""
    scale = scale.clamp_min(_SMALLEST)
    return scale.to(torch.bfloat16).to(scale.dtype) if numerics.group else scale


def _grouped(weight: torch.Tensor, scale_shape: tuple[int, ...]) -> torch.Tensor:
    """A weight as [scales, elements of each], in float32 where it is in less."""
    wide = weight.float() if weight.dtype in (torch.bfloat16, torch.float16) else weight
    return wide.reshape(math.prod(scale_shape), -1)


def quantized_levels(
    weight: torch.Tensor, numerics: Numerics, scale: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The integers of a weight (int8, in its shape) and the scales that they are multiplied with.

    Args:
        weight: The weight.
        numerics: Of at most 8 bits.
        scale: Stored scales; by default those that follow from the weight.
    """
    scale = weight_scales(weight, numerics) if scale is None else _held(scale.detach(), numerics)
    least, most = levels_of(numerics.bits)
    rows = _grouped(weight.detach(), tuple(scale.shape))
    levels = (rows * scale.reshape(-1, 1).reciprocal()).round_().clamp_(least, most)
    return levels.to(torch.int8).view(weight.shape), scale


def fake_weight(weight: torch.Tensor, numerics: Numerics, scale: torch.Tensor | None = None) -> torch.Tensor:
    """A weight rounded to what a file holds of it, in floats; its gradient is the rounded weight's.

    Args:
        weight: The weight.
        numerics: How.
        scale: Stored scales, which get a gradient, too (LSQ); what they cut off then gets none.

    Raises:
        SpaceError: The group does not divide the inputs.
    """
    if numerics.bits == FLOAT:
        return weight
    result: torch.Tensor
    if not numerics.is_integer:
        result = _Half.apply(weight)
    elif scale is None:
        result = _Rounded.apply(weight, numerics)
    else:
        result = _Stored.apply(weight, scale, numerics)
    return result


def fake_tokens(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Activations rounded to so many bits, each vector of the last axis by its own range; straight-through gradient."""
    if bits == FLOAT:
        return x
    result: torch.Tensor = _Half.apply(x) if bits > INTEGER_BITS else _Tokens.apply(x, bits)
    return result


def _chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Equal parts of the rows of all tensors, small enough for a processor's cache."""
    rows = max(1, _CHUNK // max(1, tensors[0].shape[-1])) if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(t.split(max(1, rows)) for t in tensors), strict=True)


class _Half(torch.autograd.Function):
    """Rounding to float16."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float16).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        return slopes[0]


class _Rounded(torch.autograd.Function):
    """A weight rounded with the scales that follow from it: nothing is cut off, so that all of the gradient passes."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, numerics: Numerics) -> torch.Tensor:
        rows = _grouped(weight, numerics.scale_shape(tuple(weight.shape)))
        result, most = torch.empty_like(rows), levels_of(numerics.bits)[1]
        for part, out in _chunks(rows, result):
            scale = torch.abs(part, out=out).amax(-1, keepdim=True).div_(most)
            scale = _held(scale, numerics)
            torch.mul(part, scale.reciprocal(), out=out).round_().mul_(scale)
        return result.view(weight.shape).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slopes[0], None


class _Stored(torch.autograd.Function):
    """A weight rounded with given scales, which learn as well (LSQ)."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, scale: torch.Tensor, numerics: Numerics) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.numerics = numerics
        rows, held = _grouped(weight, tuple(scale.shape)), _held(scale.detach(), numerics).reshape(-1, 1)
        result, (least, most) = torch.empty_like(rows), levels_of(numerics.bits)
        for part, s, out in _chunks(rows, held, result):
            torch.mul(part, s.reciprocal(), out=out).round_().clamp_(least, most).mul_(s)
        return result.view(weight.shape).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        weight, scale = ctx.saved_tensors
        numerics: Numerics = ctx.numerics
        rows, held = _grouped(weight, tuple(scale.shape)), _held(scale.detach(), numerics).reshape(-1, 1)
        slope = slopes[0].reshape(rows.shape)
        passed, learned = torch.empty_like(slope), torch.empty_like(held)
        least, most = levels_of(numerics.bits)
        learns = ctx.needs_input_grad[1]
        # The gradient of a clamp, in one kernel: the first argument where the second is within, else 0.
        within = torch.ops.aten.hardtanh_backward
        for part, s, up, out, down in _chunks(rows, held, slope, passed, learned):
            level = part * s.reciprocal()
            within.grad_input(up, level, least - 0.5, most + 0.5, grad_input=out)
            if learns:  # within: the level minus what was asked for; outside: the bound
                moved = level.round().clamp_(least, most).sub_(within(level, level, least - 0.5, most + 0.5))
                torch.sum(moved.mul_(up), -1, keepdim=True, out=down)
        if not learns:
            return passed.view(weight.shape), None, None
        share = 1.0 / math.sqrt(rows.shape[1] * most)
        return passed.view(weight.shape), learned.mul_(share).view(scale.shape).to(scale.dtype), None


class _Tokens(torch.autograd.Function):
    """Activations rounded by the range of each token."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bits: int) -> torch.Tensor:
        least, most = levels_of(bits)
        rows = x.reshape(-1, x.shape[-1])
        rows = rows.float() if x.dtype in (torch.bfloat16, torch.float16) else rows
        result = torch.empty_like(rows)
        for part, out in _chunks(rows, result):
            # Not `aminmax`, which takes longer than both of these.
            low, high = part.amin(-1, keepdim=True).clamp_(max=0.0), part.amax(-1, keepdim=True)
            scale = high.clamp_(min=0.0).sub_(low).div_(most - least).clamp_min_(_SMALLEST)
            zero = low.div_(scale).round_().neg_().add_(least).clamp_(least, most)
            torch.mul(part, scale.reciprocal(), out=out).round_().add_(zero).clamp_(least, most)
            out.sub_(zero).mul_(scale)
        return result.view(x.shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slopes[0], None


class RoundedWeights:
    """Weights that an evaluation has rounded, each kept until it changes, so that a batch does not round them again.

    Owned by a model and of no use to a copy of it.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[tuple[weakref.ref[torch.Tensor], ...], tuple[Any, ...], torch.Tensor]] = {}

    def __deepcopy__(self, memo: Mapping[int, Any]) -> RoundedWeights:
        return RoundedWeights()

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": {}}

    def of(self, key: Hashable, sources: tuple[torch.Tensor, ...], make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The rounded weight of a key.

        Args:
            key: Names it, and says how it is rounded.
            sources: What it is made of; where they are other tensors, or changed, it is made again.
            make: Makes it.
        """
        if any(t.is_inference() for t in sources):  # whether these were changed is not known
            return make()
        state = tuple((t.data_ptr(), t._version) for t in sources)
        refs, known, weight = self._kept.get(key, ((), (), None))
        if weight is None or known != state or any(ref() is not t for ref, t in zip(refs, sources, strict=True)):
            weight = make()
            self._kept[key] = (tuple(weakref.ref(t) for t in sources), state, weight)
        return weight

    def clear(self) -> None:
        """Free the memory."""
        self._kept.clear()
