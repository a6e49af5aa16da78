"""The weights of a block: what it states of each, and what it gets of them when it runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rankitect.graph.types import TensorType
from rankitect.space.expr import Expr, ExprLike, as_expr

if TYPE_CHECKING:
    import torch

__all__ = ["Param", "Params"]


@dataclass(frozen=True)
class Param:
    """The shape and the start of one weight.

    Args:
        shape: Dimensions; a supernet allocates each at its upper bound and uses a prefix along each axis.
        init: "fan_in" (normal, variance 1 over the product of the `inputs` axes), "normal" (deviation 0.02), "ones" or
            "zeros".
        inputs: The axes over which an output sums, for "fan_in" and for whoever asks what the weight reads and writes.
        joint: Not None where the products of all such weights of the block are summed, as if one weight held them side
            by side: their variance is then 1 over all of their inputs, and so many more that are added elsewhere.
        gate: 1 where the weight is used while its block is (that of the input which it belongs to).
        table: Whether it is only ever read row by row (`Params.lookup`): embeddings, which may be held and trained
            apart.
        bits: Of each element (see `rankitect.graph.Quantized`, which fills this in).
        scale_group: How many inputs share a scale; 0 for all.
        scales_of: The weight whose stored scales these are; they are no parameters of their own. "" for a weight.
        trained: False for what no gradient reaches, such as running statistics: no parameter, and a buffer of models.
            The block itself moves it while it trains (`Params.momentum`).
    """

    shape: tuple[Expr, ...]
    init: str = "fan_in"
    inputs: tuple[int, ...] = (-1,)
    gate: Expr = dataclasses.field(default_factory=lambda: as_expr(1))
    table: bool = False
    joint: int | None = None
    bits: Expr = dataclasses.field(default_factory=lambda: as_expr(32))
    scale_group: Expr = dataclasses.field(default_factory=lambda: as_expr(0))
    scales_of: str = ""
    trained: bool = True

    @classmethod
    def of(
        cls,
        *dims: ExprLike,
        init: str = "fan_in",
        inputs: tuple[int, ...] = (-1,),
        gate: ExprLike = 1,
        table: bool = False,
        joint: int | None = None,
        trained: bool = True,
    ) -> Param:
        """A parameter from numbers, choices and expressions."""
        return cls(tuple(as_expr(d) for d in dims), init, inputs, as_expr(gate), table, joint, trained=trained)

    @property
    def is_table(self) -> bool:
        """Whether the block reads it row by row, whatever others do with it."""
        return self.table or not self.inputs

    @property
    def numel(self) -> Expr:
        """The number of elements."""
        return TensorType(self.shape).numel

    @property
    def is_matrix(self) -> bool:
        """Whether it is multiplied with activations: biases and the weights of norms, which start as one number, are
        not."""
        return len(self.shape) > 1 and self.init not in ("ones", "zeros")

    @property
    def rows(self) -> int | None:
        """How many leading axes are outputs, the others being inputs; None where the inputs do not stand last. A weight
        that sums over nothing is a table of rows along the last axis."""
        axes = len(self.shape)
        inputs = {a % axes for a in self.inputs} or {axes - 1}
        first = axes - len(inputs)
        return max(1, first) if inputs == set(range(first, axes)) else None


class Params(Protocol):
    """What `Block.run` gets beside its inputs: weights, sizes, and the masks of a relaxed model."""

    present: tuple[int, ...]
    """Positions of the inputs that are there (all, unless wires were picked)."""

    def __getattr__(self, name: str) -> torch.Tensor:
        """The weight `name`, already sliced to the active architecture."""

    def size(self, name: str) -> Any:
        """The size bound to an axis name or field: an int, or its (differentiable) expectation in a relaxed model.

        Use it where the number itself counts (the divisor of a mean); take shapes from tensors.
        """

    @property
    def training(self) -> bool:
        """Whether statistics are those of the batch; else they are the stored ones (weights that are not trained)."""

    def momentum(self, usual: float) -> float:
        """How far the block moves its weights that are not trained, in place, towards what this batch says of them.

        Args:
            usual: The share in a step of training.

        Returns:
            That share; 1 / n in the n-th batch where statistics are taken anew (their mean over the batches); 0 where
            nothing may change, as in an evaluation and where activations are computed again for a backward pass.
        """

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight `name` applied to hidden units: sums over their axes, [..., units...] -> [..., outputs].

        Every internal dimension (one that is neither on an input nor on an output) must be summed here: this is where a
        relaxed model masks the units that an architecture leaves out, and where a pretrained model's units are ranked.

        Args:
            h: Hidden units on the last `len(dims)` axes.
            name: A weight of shape [outputs, units...].
            dims: The field or axis name of each of the units' axes; None for an axis that is no choice.
        """

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """The weight `name`, [outputs..., D], applied to the last axis: [..., D] -> [..., all outputs].

        A deployed program holds such a weight as a matrix, quantized if it is to be.

        Args:
            x: Inputs; where they are fewer than the weight has, its first ones are meant.
            name: The weight.
            bias: The weight that is added to the outputs, [outputs...]; None for none.
        """

    def lookup(self, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of the weight `name`, a `table`: the only way to read one.

        Args:
            name: A weight of shape [rows, width].
            rows: Row numbers, of any shape; of one axis where there are bags.
            bags: Where in `rows` each bag starts, [M]: its rows are summed, none are zeros. Default: no sums.

        Returns:
            [*rows.shape, width], or [M, width] with bags.
        """

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it: rounded to the block's `cache_bits`.

        Args:
            x: [..., D]; each vector of the last axis has a range of its own.
        """

    def mask(self, name: str) -> torch.Tensor | None:
        """How likely each entry along an axis is kept, [largest size]; None where the axis has just what is kept.

        For what zeros do not leave out by themselves, as a softmax over the axis.
        """

    def sizes(self, dims: tuple[Expr | str, ...]) -> list[int]:
        """The sizes of dimensions as computed: under the architecture, or the largest in a relaxed model.

        An axis name or field is better than an expression, which `torch.compile` cannot look into.
        """
