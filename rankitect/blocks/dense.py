"""Dense blocks: linear layers, embeddings, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from rankitect.errors import SpaceError
from rankitect.graph import Call, Elementwise, Expr, Packing, Param, Params, Quantized, TensorType, added, as_expr
from rankitect.space.expr import ExprLike
from rankitect.space.names import shown

__all__ = ["ACTIVATIONS", "UNSEEN", "Embed", "Head", "Linear", "Norm", "TiedHead", "deployed_rms", "norm_start"]

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "tanh": torch.tanh,
}
"""Activations that map 0 to 0, so that a left-out channel stays left out."""


class Linear(Quantized):
    """A linear layer on one or more inputs, each with a weight of its own: [..., D_i] for each input -> [..., width].

    Several inputs act as their concatenation (whose weight would hold theirs side by side), with nothing to shift when
    one is absent.

    Args:
        width: Outputs.
        act: Activation of the sum.
        bias: Whether there is one.
        beside: Inputs of another layer whose output is added to this one's: they count for the start of the weights.
    """

    ports: ClassVar[str] = "(... _)+ -> ... width"
    width: ExprLike
    act: str = "none"
    bias: bool = True
    beside: int = 0

    def __post_init__(self) -> None:
        if self.act not in ACTIVATIONS:
            raise SpaceError(f"Linear: activation {self.act!r} is unknown; allowed: {', '.join(ACTIVATIONS)}")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weights = {_name(i): Param.of(self.width, x[-1], gate=x.gate, joint=self.beside) for i, x in enumerate(inputs)}
        return {**weights, "bias": Param.of(self.width, init="zeros")} if self.bias else weights

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        total: Any = None
        for i, x in zip(p.present, inputs, strict=True):
            bias = "bias" if self.bias and total is None else None
            y = p.linear(x, _name(i), bias)
            total = y if total is None else total + y
        return ACTIVATIONS[self.act](p.bias if total is None else total)

    def flops(self, *inputs: TensorType) -> Expr:
        return sum((2 * x.numel * self.width * x.gate for x in inputs), start=as_expr(0))


def _name(i: int) -> str:
    return "weight" if i == 0 else f"weight{i}"


UNSEEN = -100.0
"""The score of a token that a head has no row for: as good as impossible, and small enough for float16."""


class Embed(Quantized):
    """Rows of a table: ids [B, T] -> [B, T, width].

    Args:
        vocab: Rows.
        width: Columns.
        scale: The rows are multiplied by this; a head that is tied to the table reads it as it is.
    """

    ports: ClassVar[str] = "B T : int -> B T width"
    vocab: int
    width: ExprLike
    scale: float = 1.0

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(self.vocab, self.width, init="normal", inputs=())}  # ids select, nothing is summed

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return self._scaled(p.lookup("weight", inputs[0]))

    def _scaled(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.scale == 1 else rows * self.scale

    def flops(self, *inputs: TensorType) -> Expr:
        return as_expr(0)


class Head(Quantized):
    """Scores of all tokens by a table of its own: [B, T, D] -> [B, T, vocab].

    Args:
        vocab: Tokens.
        tokens: The tokens that can come next, each with a row of the table; all others score `UNSEEN`. Empty: every
            token has a row.
    """

    ports: ClassVar[str] = "B T D -> B T vocab"
    vocab: int
    tokens: tuple[int, ...] = added(default=())

    def __post_init__(self) -> None:
        rows = self.tokens
        if not isinstance(rows, tuple) or any(isinstance(t, bool) or not isinstance(t, int) for t in rows):
            raise SpaceError(f"{self.label}: tokens are whole numbers, not {shown(rows)}")
        if len(set(rows)) < len(rows) or (rows and not 0 <= min(rows) <= max(rows) < self.vocab):
            raise SpaceError(f"{self.label}: tokens are different ones of {shown(self.vocab)}, not {shown(rows)}")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(len(self.tokens) or self.vocab, inputs[0][-1], init="normal")}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return self._spread(self._scores(p, inputs[0]), torch.tensor)

    def _scores(self, p: Params, x: torch.Tensor) -> torch.Tensor:
        """Scores of the tokens that have a row."""
        return p.linear(x, "weight")

    def _spread(self, scores: torch.Tensor, constant: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """Scores of the kept tokens among those of all, as whoever calls the model expects them."""
        if not self.tokens:
            return scores
        places = constant(list(self.tokens)).to(scores.device)
        return scores.new_full((*scores.shape[:-1], self.vocab), UNSEEN).index_copy(-1, places, scores)

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        def constant(tokens: Any) -> torch.Tensor:
            return call.constant(("tokens", self.tokens), lambda: torch.tensor(tokens))

        return self._spread(self._scores(p, call.last(inputs[0])), constant)

    def packed(self, p: Params, packing: Packing, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.packed`. Only of the rows that tokens are predicted from: [1, N, vocab]."""
        return self.run(p, packing.last(inputs[0]))

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[0].numel * (len(self.tokens) or self.vocab)


class TiedHead(Head):
    """Scores of all tokens by an embedding's table (attach with `weights=` its node): [B, T, D] -> [B, T, vocab].

    The table has the embedding's bits where rows are looked up, and this block's as a matrix.

    Args:
        mix: Whether channels are multiplied by a matrix D x D first. A table in another basis than the stream's norm
            stays shared by it: far fewer weights than a second table.
    """

    scale_suffix: ClassVar[str] = "_head_scale"
    mix: bool = added(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mix, bool):
            raise SpaceError(f"TiedHead: mix is true or false, not {shown(self.mix)}")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][-1]
        return {**super().params(*inputs), **({"mix": Param.of(width, width)} if self.mix else {})}

    def _scores(self, p: Params, x: torch.Tensor) -> torch.Tensor:
        return super()._scores(p, p.linear(x, "mix") if self.mix else x)

    def flops(self, *inputs: TensorType) -> Expr:
        table, x = super().flops(*inputs), inputs[0]
        return table + 2 * x.numel * x[-1] if self.mix else table


class Norm(Elementwise):
    """RMS normalisation over the last axis (arXiv 1910.07467): [..., D] -> [..., D].

    The mean is over the channels that the architecture keeps.

    Args:
        eps: Added to the mean square.
        offset: Added to the weight, which then starts at 1 - `offset`: 1 where a weight of 0 changes nothing.
    """

    ports: ClassVar[str] = "... D -> ... D"
    eps: float = 1e-5
    offset: float = 0.0

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param.of(inputs[0][-1], init=norm_start("Norm", self.offset))}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x, weight = inputs[0], p.weight + self.offset if self.offset else p.weight
        size = p.size("D")
        if isinstance(size, int):
            return F.rms_norm(x, (size,), weight, self.eps)
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / size + self.eps) * weight

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        return deployed_rms(call, inputs[0], p.weight + self.offset if self.offset else p.weight, self.eps)


def norm_start(block: str, offset: float) -> str:
    """How the weight of a norm starts (`Param.init`), so that it changes nothing.

    Raises:
        SpaceError: The offset is neither 0 nor 1.
    """
    if offset not in (0, 1):
        raise SpaceError(f"{block}: offset is {offset}; it must be 0 or 1")
    return "zeros" if offset else "ones"


def deployed_rms(call: Call, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS normalisation over the last axis of a deployed program, [..., D] and [D] -> [..., D]."""
    size = x.shape[-1]
    # The mean as a product: XNNPACK has matrix products, but no mean over the last axis alone.
    mean = call.constant(("mean", size), lambda: torch.full((1, size), 1.0 / size))
    return x * torch.rsqrt(F.linear(x * x, mean) + eps) * weight
