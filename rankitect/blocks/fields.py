"""Blocks on the vectors of an example's fields: linear layers over the field axis, self-attention, norms, reshapes.

Shapes: B batch, F fields (categorical features, or what was made of them), E width of a field's vector.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from rankitect.blocks.dense import ACTIVATIONS, _name
from rankitect.blocks.vectors import check_act, padded, standardised
from rankitect.errors import SpaceError
from rankitect.graph import Elementwise, Expr, Param, Params, Quantized, TensorType, as_expr
from rankitect.space.expr import ExprLike

__all__ = [
    "AsField",
    "FieldAttention",
    "FieldLinear",
    "FieldNorm",
    "FieldPad",
    "FlatLinear",
    "Flatten",
    "Join",
    "ToFields",
]

NEVER = 1e-12
"""Added to the probability that a field is kept, before its logarithm is a logit: as good as never, and finite."""


class FieldLinear(Quantized):
    """A linear layer over the field axis, the "embedding fully connected" layer of NASRec (arXiv 2207.07187).

    [B, F_i, E] for each input -> [B, count, E]; several inputs act as their concatenation along the field axis.
    """

    ports: ClassVar[str] = "(B _ E)+ -> B count E"
    count: ExprLike
    act: str = "none"
    bias: bool = True

    def __post_init__(self) -> None:
        check_act("FieldLinear", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weights = {_name(i): Param.of(self.count, x[1], gate=x.gate, joint=0) for i, x in enumerate(inputs)}
        return {**weights, "bias": Param.of(self.count, init="zeros")} if self.bias else weights

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        total: Any = p.bias if self.bias else 0
        for i, x in zip(p.present, inputs, strict=True):
            total = p.linear(x.transpose(1, 2), _name(i)) + total
        fields: torch.Tensor = ACTIVATIONS[self.act](total).transpose(1, 2)
        return fields

    def flops(self, *inputs: TensorType) -> Expr:
        return sum((2 * x.numel * self.count * x.gate for x in inputs), start=as_expr(0))


class FieldNorm(Elementwise):
    """Layer norm over the field axis, for each channel: [B, F, E] -> [B, F, E]."""

    ports: ClassVar[str] = "B F E -> B F E"
    passes_masks: ClassVar[bool] = False
    act: str = "none"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_act("FieldNorm", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(inputs[0][1], init="ones"), "bias": Param.of(inputs[0][1], init="zeros")}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        turned = inputs[0].transpose(1, 2)
        normed = standardised(turned, p.size("F"), p.mask("F"), p.weight, p.bias, self.eps)
        return ACTIVATIONS[self.act](normed).transpose(1, 2)


class FieldAttention(Quantized):
    """Multi-head self-attention over the fields (AutoInt, arXiv 1810.11921): [B, F, E] -> [B, F, E].

    Scores are divided by the root of the head's size, and heads are joined by an output projection, as in Transformers
    (arXiv 1706.03762).

    Args:
        heads: Number of heads.
        head: Size of a head.
    """

    ports: ClassVar[str] = "B F E -> B F E"
    heads: ExprLike
    head: int

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][2]
        weights = {name: Param.of(self.heads, self.head, width) for name in "qkv"}
        return {**weights, "o": Param.of(width, self.heads, self.head, inputs=(1, 2))}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        q, k, v = (p.linear(x, name).unflatten(2, (-1, self.head)).transpose(1, 2) for name in "qkv")
        kept = p.mask("F")
        bias = None if kept is None else (kept.to(x.dtype) + NEVER).log().expand(x.shape[1], -1)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return p.read(h.transpose(1, 2), "o", ("heads", None))

    def flops(self, *inputs: TensorType) -> Expr:
        x, inner = inputs[0], as_expr(self.heads) * self.head
        return 8 * x.numel * inner + 4 * x[0] * x[1] * x[1] * inner


class FlatLinear(Quantized):
    """A linear layer on all channels of all fields: [B, F_i, E_i] for each input -> [B, width]."""

    ports: ClassVar[str] = "(B _ _)+ -> B width"
    width: ExprLike
    act: str = "none"
    bias: bool = True

    def __post_init__(self) -> None:
        check_act("FlatLinear", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weights = {
            _name(i): Param.of(self.width, x[1], x[2], inputs=(1, 2), gate=x.gate, joint=0)
            for i, x in enumerate(inputs)
        }
        return {**weights, "bias": Param.of(self.width, init="zeros")} if self.bias else weights

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        total: Any = p.bias if self.bias else 0
        for i, x in zip(p.present, inputs, strict=True):
            total = p.read(x, _name(i), (None, None)) + total
        return ACTIVATIONS[self.act](total)

    def flops(self, *inputs: TensorType) -> Expr:
        return sum((2 * x.numel * self.width * x.gate for x in inputs), start=as_expr(0))


class ToFields(Quantized):
    """A linear layer from a vector to fields, so that dense features can interact with embeddings: [B, D] -> [B, F, E].

    Args:
        count: How many fields.
        width: Their width.
        act: Activation.
    """

    ports: ClassVar[str] = "B D -> B count width"
    count: ExprLike
    width: ExprLike
    act: str = "none"

    def __post_init__(self) -> None:
        check_act("ToFields", self.act)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {
            "weight": Param.of(self.count, self.width, inputs[0][1]),
            "bias": Param.of(self.count, self.width, init="zeros"),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        fields = p.linear(inputs[0], "weight", "bias").unflatten(1, tuple(p.sizes(("count", "width"))))
        return ACTIVATIONS[self.act](fields)

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[0].numel * self.count * self.width


class AsField(Elementwise):
    """A vector as a field of its own: [B, D] -> [B, 1, D]."""

    ports: ClassVar[str] = "B D -> B 1 D"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].unsqueeze(1)


class FieldPad(Elementwise):
    """The sum of its inputs, each padded with empty fields or cut: [B, F_i, E] for each -> [B, count, E]."""

    ports: ClassVar[str] = "(B _ E)+ -> B count E"
    passes_masks: ClassVar[bool] = False
    count: ExprLike

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        (count,) = p.sizes(("count",))
        total = padded(inputs[0], count, 1)
        for x in inputs[1:]:
            total = total + padded(x, count, 1)
        return total


class Join(Elementwise):
    """Fields after fields: [B, F, E], [B, G, E] -> [B, F + G, E]. F is no choice: what follows it would shift."""

    ports: ClassVar[str] = "B F E, B G E -> B F+G E"

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        if inputs[0][1].constant is None:
            raise SpaceError(f"Join: the first input's number of fields {inputs[0][1]} must be fixed; put it second")
        return {}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, dim=1)


class Flatten(Elementwise):
    """All channels of all fields as one vector: [B, F, E] -> [B, F*E].

    Args:
        order: "fields" puts field after field, for a fixed E, and copies nothing; "width" puts channel after channel,
            so that a smaller E is a prefix, for a fixed F.
    """

    ports: ClassVar[str] = "B F E -> B F*E"
    order: str = "fields"

    def __post_init__(self) -> None:
        if self.order not in ("fields", "width"):
            raise SpaceError(f"Flatten: order must be 'fields' or 'width', not {self.order!r}")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        inner = inputs[0][2] if self.order == "fields" else inputs[0][1]
        if inner.constant is None:
            raise SpaceError(f"Flatten: with order={self.order!r} the inner axis must be fixed, but it is {inner}")
        return {}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return (x if self.order == "fields" else x.transpose(1, 2)).flatten(1)
