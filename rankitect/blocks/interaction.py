"""Interactions of features: dot products, factorization machines, cross networks, bilinear fusion.

Shapes: B batch, F fields, E width of a field's vector, D and K widths of vectors.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from rankitect.graph import Block, Call, Elementwise, Expr, Param, Params, Quantized, TensorType
from rankitect.space.expr import ExprLike

__all__ = ["FM", "Bilinear", "Cross", "Dot", "LowRankCross"]


def _products(x: torch.Tensor) -> torch.Tensor:
    """Dot products of all fields with all: [B, F, E] -> [B, F*F]."""
    return torch.bmm(x, x.transpose(1, 2)).flatten(1)


def _pairs(fields: int, device: torch.device | None = None) -> torch.Tensor:
    """Where different fields meet, below the diagonal."""
    i, j = torch.tril_indices(fields, fields, -1, device=device)
    return i * fields + j


class Dot(Block):
    """Dot products of all pairs of fields (DLRM, arXiv 1906.00091): [B, F, E] -> [B, F*(F-1)/2].

    Pairs are in the order of the lower triangle's rows, so that those of fewer fields are a prefix.
    """

    ports: ClassVar[str] = "B F E -> B F*(F-1)//2"
    passes_masks: ClassVar[bool] = True

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return _products(x).index_select(1, _pairs(x.shape[1], x.device))

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        fields = inputs[0].shape[1]
        return _products(inputs[0]).index_select(1, call.constant(("pairs", fields), lambda: _pairs(fields)))

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[0].numel * inputs[0][1]


class FM(Elementwise):
    """Products of all pairs of fields, summed over pairs (factorization machine, Rendle 2010, in linear time).

    [B, F_i, E] for each input -> [B, E]: ((sum of fields)^2 - sum of squares) / 2, over the fields of all inputs. Its
    `Total` is the interaction of DeepFM (arXiv 1703.04247).
    """

    ports: ClassVar[str] = "(B _ E)+ -> B E"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        total, squares = inputs[0].sum(1), inputs[0].square().sum(1)
        for x in inputs[1:]:
            total, squares = total + x.sum(1), squares + x.square().sum(1)
        return 0.5 * (total.square() - squares)


class Cross(Quantized):
    """A layer of the cross network v2 (DCN-V2, arXiv 2008.13535): [B, D], [B, D] -> [B, D], x0 * (W x + b) + x.

    The first input is x0, the second the layer's.
    """

    ports: ClassVar[str] = "B D, B D -> B D"
    passes_masks: ClassVar[bool] = True

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][1]
        return {"weight": Param.of(width, width), "bias": Param.of(width, init="zeros")}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x0, x = inputs
        return torch.addcmul(x, x0, p.linear(x, "weight", "bias"))

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[0].numel * inputs[0][1]


class LowRankCross(Quantized):
    """`Cross` with a matrix of low rank (arXiv 2008.13535, section 3.4): x0 * (U V x + b) + x.

    Args:
        rank: Columns of U, rows of V.
    """

    ports: ClassVar[str] = "B D, B D -> B D"
    passes_masks: ClassVar[bool] = True
    rank: ExprLike

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][1]
        return {
            "down": Param.of(self.rank, width),
            "up": Param.of(width, self.rank),
            "bias": Param.of(width, init="zeros"),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x0, x = inputs
        return torch.addcmul(x, x0, p.read(p.linear(x, "down"), "up", ("rank",)) + p.bias)

    def flops(self, *inputs: TensorType) -> Expr:
        return 4 * inputs[0].numel * self.rank


class Bilinear(Quantized):
    """Bilinear fusion of two vectors (FinalMLP with one head, arXiv 2304.00902): [B, D], [B, K] -> [B, 1], x' W y."""

    ports: ClassVar[str] = "B D, B K -> B 1"

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(inputs[0][1], inputs[1][1], inputs=(0, 1))}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x, y = inputs
        return (x * p.linear(y, "weight")).sum(1, keepdim=True)

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[1].numel * inputs[0][1]
