"""Blocks on vectors of any number of leading axes: norms, sums and joins of vectors of different widths, gates.

Shapes: B batch, D and K widths.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from rankitect.blocks.dense import ACTIVATIONS
from rankitect.errors import SpaceError
from rankitect.graph import Elementwise, Expr, Param, Params, Quantized, TensorType, as_expr
from rankitect.space.expr import ExprLike

__all__ = [
    "Activation",
    "Concat",
    "Gate",
    "LayerNorm",
    "Pad",
    "Scale",
    "TiedLinear",
    "Total",
    "check_act",
    "padded",
    "standardised",
]


def check_act(block: str, act: str) -> None:
    """Refuse an unknown activation.

    Raises:
        SpaceError: Names the block and the known ones.
    """
    if act not in ACTIVATIONS:
        raise SpaceError(f"{block}: activation {act!r} is unknown; allowed: {', '.join(ACTIVATIONS)}")


def standardised(
    x: torch.Tensor, size: Any, kept: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """Layer norm over the last axis, of which `size` entries count: those that `kept` keeps, all where it is None."""
    if kept is None:
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    centred = (x - x.sum(-1, keepdim=True) / size) * kept
    return centred * torch.rsqrt(centred.square().sum(-1, keepdim=True) / size + eps) * weight + bias


class LayerNorm(Elementwise):
    """Layer norm over the last axis (arXiv 1607.06450), then an activation: [..., D] -> [..., D].

    Mean and variance are those of the channels that the architecture keeps.
    """

    ports: ClassVar[str] = "... D -> ... D"
    passes_masks: ClassVar[bool] = False
    act: str = "none"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_act("LayerNorm", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(inputs[0][-1], init="ones"), "bias": Param.of(inputs[0][-1], init="zeros")}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.act](standardised(inputs[0], p.size("D"), p.mask("D"), p.weight, p.bias, self.eps))


def padded(x: torch.Tensor, size: int, axis: int = -1) -> torch.Tensor:
    """`x` with zeros appended along an axis, or the end of that axis cut off."""
    missing = size - x.shape[axis]
    if missing <= 0:
        return x if missing == 0 else x.narrow(axis, 0, size)
    behind = (x.dim() - 1 - axis % x.dim()) * 2
    return F.pad(x, (0,) * (behind + 1) + (missing,))


class Pad(Elementwise):
    """The sum of its inputs, each padded with zeros or cut to a width: [..., D_i] for each -> [..., width].

    With inputs of that width it is their sum, with one such input the identity.
    """

    ports: ClassVar[str] = "(... _)+ -> ... width"
    passes_masks: ClassVar[bool] = False
    width: ExprLike

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        (width,) = p.sizes(("width",))
        total = padded(inputs[0], width)
        for x in inputs[1:]:
            total = total + padded(x, width)
        return total


class TiedLinear(Quantized):
    """One linear layer on the sum of its inputs, each padded with zeros: [..., D_i] for each -> [..., width].

    Args:
        width: Outputs.
        most: The largest D_i.
    """

    ports: ClassVar[str] = "(... _)+ -> ... width"
    width: ExprLike
    most: int

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(self.width, self.most), "bias": Param.of(self.width, init="zeros")}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = p.bias
        for x in inputs:
            total = p.linear(x, "weight") + total
        return total

    def flops(self, *inputs: TensorType) -> Expr:
        return sum((2 * x.numel * self.width * x.gate for x in inputs), start=as_expr(0))


class Gate(Elementwise):
    """The second input times the sigmoid of the first (NASRec, arXiv 2207.07187): [..., D], [..., D] -> [..., D].

    Args:
        scale: The gate's largest value: 1, or 2 where an open gate is to leave the input as it is (FinalMLP).
    """

    ports: ClassVar[str] = "..., ... -> ..."
    scale: float = 1.0

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(inputs[0]) * inputs[1]
        return gate if self.scale == 1.0 else self.scale * gate


class Activation(Elementwise):
    """An activation on its own: [..., D] -> [..., D]."""

    ports: ClassVar[str] = "... -> ..."
    act: str = "relu"

    def __post_init__(self) -> None:
        check_act("Activation", self.act)

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.act](inputs[0])


class Scale(Elementwise):
    """A fixed multiple: [..., D] -> [..., D].

    Args:
        factor: What is multiplied with.
    """

    ports: ClassVar[str] = "... -> ..."
    factor: float

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * self.factor


class Total(Elementwise):
    """The sum over the last axis: [..., D] -> [..., 1]."""

    ports: ClassVar[str] = "... D -> ... 1"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].sum(-1, keepdim=True)


class Concat(Elementwise):
    """Two vectors side by side: [B, D], [B, K] -> [B, D + K]. D is no choice: what follows it would shift."""

    ports: ClassVar[str] = "B D, B K -> B D+K"

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        if inputs[0][1].constant is None:
            raise SpaceError(f"Concat: the first input's width {inputs[0][1]} must be fixed; put it second")
        return {}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, dim=1)
