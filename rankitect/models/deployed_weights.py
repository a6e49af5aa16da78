"""The weights of a deployed program in few bits: integers and scales, in operators that XNNPACK takes as one product.

What a program computes is what `rankitect.models.numerics` fakes: the same integers, the same scales.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.errors import DeployError
from rankitect.graph.quantized import FLOAT, GROUP, INTEGER_BITS
from rankitect.models.numerics import Numerics, levels_of, quantized_levels

__all__ = [
    "ACTIVATION_BITS",
    "GROUPS_OF",
    "QuantizedMatrix",
    "QuantizedTable",
    "cache_trouble",
    "matrix_trouble",
    "table_trouble",
    "without_notes",
]

GROUPS_OF = GROUP
"""XNNPACK takes groups of a multiple of so many weights."""
ACTIVATION_BITS = 8
"""Bits of the activations that XNNPACK multiplies with integer weights."""


def matrix_trouble(bits: int, group: int, act_bits: int) -> str | None:
    """Why XNNPACK has no product of such weights and activations; None where it has."""
    if bits == FLOAT:
        return None if act_bits == FLOAT else f"activations of {act_bits} bits need weights of 4 or 8 bits"
    if bits not in (4, 8):
        return f"weights of {bits} bits are not among those that the runtime has: 4, 8 and {FLOAT}"
    if act_bits != ACTIVATION_BITS:
        return f"weights of {bits} bits need activations of {ACTIVATION_BITS} bits, not {act_bits}"
    if bits == 8 and group:
        return f"weights of 8 bits have a scale for each output, not for groups of {group}"
    if group % GROUPS_OF:
        return f"weights of 4 bits have groups of a multiple of {GROUPS_OF}, or a scale for each output, not {group}"
    return None


def table_trouble(bits: int) -> str | None:
    """Why a program holds no table of such rows; None where it does."""
    return None if bits in (4, 8, 16, FLOAT) else f"tables of {bits} bits are not among those that there are: 4, 8, 16"


def cache_trouble(bits: int) -> str | None:
    """Why a program keeps no keys and values of so many bits; None where it does."""
    return None if bits == FLOAT else f"programs keep keys and values in {FLOAT} bits, not in {bits}"


def _integers(
    weight: torch.Tensor, numerics: Numerics, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels as a matrix, int8 [outputs, inputs], and their scales, [outputs, groups]."""
    levels, scales = quantized_levels(weight.detach(), numerics, scale)
    return levels.flatten(numerics.rows).flatten(0, -2), scales.detach().float().flatten(0, -2)


class QuantizedMatrix(nn.Module):
    """A matrix of 4 or 8 bits, applied to activations that are rounded to 8 bits, each token by its own range.

    Args:
        weight: [outputs..., inputs...].
        numerics: How it is rounded; what `matrix_trouble` accepts.
        scale: Its stored scales; None where they follow from the weight.
        bias: Added to the outputs, [outputs...].

    Raises:
        DeployError: torchao is not installed.

    Attributes:
        rounds_tokens: Whether activations are rounded; turned off to see what that does.
    """

    levels: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self, weight: torch.Tensor, numerics: Numerics, scale: torch.Tensor | None, bias: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        _import_operators()
        levels, scales = _integers(weight, numerics, scale)
        self.bits, self.group, self.rounds_tokens = numerics.bits, numerics.group, True
        self._pad = levels.shape[1] % 2 if self.bits == 4 else 0  # two weights share a byte
        self.register_buffer("levels", F.pad(levels, (0, self._pad)).contiguous())
        self.register_buffer("scale", (scales if self.group else scales[:, 0]).contiguous())
        kind = torch.int8 if self.group else torch.int64
        self.register_buffer("zero", torch.zeros(self.scale.shape, dtype=kind))
        self.register_buffer("bias", None if bias is None else bias.detach().flatten().contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., inputs] -> [..., outputs]."""
        from torchao.quantization.quant_primitives import dequantize_affine

        least, most = levels_of(self.bits)
        if self.group:
            block = (1, self.group)
            weight = dequantize_affine(self.levels, block, self.scale, self.zero, torch.int8, least, most)
        else:
            per_channel = torch.ops.quantized_decomposed.dequantize_per_channel
            weight = per_channel(self.levels, self.scale, self.zero, 0, least, most, torch.int8)
        padded = F.pad(x, (0, self._pad)) if self._pad else x
        return F.linear(_rounded_tokens(padded) if self.rounds_tokens else padded, weight, self.bias)


@contextmanager
def without_notes() -> Iterator[None]:
    """Without the notes of the exporting libraries, which say nothing that a user could act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _import_operators() -> None:
    """Load the operators that XNNPACK's partitioner knows.

    Raises:
        DeployError: torchao is not installed.
    """
    try:
        with without_notes():
            import torch.ao.quantization.fx._decomposed  # noqa: F401, registers quantized_decomposed
            import torchao.quantization.quant_primitives  # noqa: F401
    except ImportError as error:
        raise DeployError(
            "Programs of few bits need torchao: pip install 'rankitect[deploy]' (in this repository: make venv "
            "EXTRAS=deploy)."
        ) from error


def _rounded_tokens(x: torch.Tensor) -> torch.Tensor:
    """What `fake_tokens` gives for 8 bits, in the operators that XNNPACK computes as one."""
    # The operators themselves, not torchao's functions, which switch gradients off: torch.export splits a program at
    # each switch, and the time to put it together again grows with the square of their number.
    operators = torch.ops.torchao
    block = (*[1] * (x.dim() - 1), x.shape[-1])
    ends = levels_of(ACTIVATION_BITS)
    scale, zero = operators.choose_qparams_affine(
        x, "ASYMMETRIC", block, torch.int8, *ends, zero_point_dtype=torch.int8
    )
    levels = operators.quantize_affine(x, block, scale, zero, torch.int8, *ends)
    result: torch.Tensor = operators.dequantize_affine(
        levels, block, scale, zero, torch.int8, *ends, output_dtype=x.dtype
    )
    return result


class QuantizedTable(nn.Module):
    """Rows of 4, 8 or 16 bits, read by the portable operators of every runtime.

    Args:
        weight: [rows, width].
        numerics: How it is rounded; what `table_trouble` accepts.
        scale: Its stored scales; None where they follow from the weight.
    """

    levels: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, numerics: Numerics, scale: torch.Tensor | None) -> None:
        super().__init__()
        self.bits, self.width = numerics.bits, weight.shape[1]
        if numerics.bits > INTEGER_BITS:
            self.register_buffer("levels", weight.detach().to(torch.float16))
            return
        levels, scales = _integers(weight, numerics, scale)
        self.register_buffer("levels", _packed(levels) if self.bits == 4 else levels)
        self.register_buffer("scale", scales.to(torch.bfloat16) if numerics.group else scales)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Row numbers of any shape -> [*rows.shape, width]."""
        values = F.embedding(rows, self.levels).to(torch.float32)
        if self.bits > INTEGER_BITS:
            return values
        if self.bits == 4:
            high = torch.floor(values * (1 / 16))
            values = torch.stack([values - 16 * high, high], -1).flatten(-2)[..., : self.width] - 8
        scale = F.embedding(rows, self.scale).to(torch.float32)
        if scale.shape[-1] == 1:
            return values * scale
        return (values.unflatten(-1, (scale.shape[-1], -1)) * scale.unsqueeze(-1)).flatten(-2)


def _packed(levels: torch.Tensor) -> torch.Tensor:
    """Two levels of 4 bits a byte, the first in the lower half: [rows, width] -> uint8 [rows, (width + 1) // 2]."""
    shifted = (F.pad(levels, (0, levels.shape[1] % 2)) + 8).to(torch.uint8)
    return shifted[:, ::2] | (shifted[:, 1::2] << 4)
