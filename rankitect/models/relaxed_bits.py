"""Bits as open choices of a relaxed supernet: a weight is the mixture of its roundings, by the probability of each.

At certain choices a mixture is the rounding itself, so that a relaxed supernet equals the active one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rankitect.graph import Expr, Node, SearchSpace, as_expr
from rankitect.graph.quantized import FLOAT, Quantized
from rankitect.models.numerics import Numerics, fake_tokens, fake_weight
from rankitect.space.tables import Assignments, joint_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MixedBits", "mixed_bits"]

Chances = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class MixedBits:
    """The numbers of a block for all joint values of the choices that decide them.

    Attributes:
        paths: These choices.
        shape: How many values each has.
        weights: (bits, group) of weights, for each joint value.
        tokens: Bits of activations, for each.
        cached: Bits of what is kept, for each.
        matrices: For each weight that is rounded, how many of its axes are outputs, and its input dimensions.
    """

    paths: tuple[str, ...]
    shape: tuple[int, ...]
    weights: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    cached: tuple[int, ...]
    matrices: Mapping[str, tuple[int, tuple[Expr, ...]]]

    def _mixed(self, values: Sequence[Any], chances: Chances, rounded: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """The sum of what each value gives, by its probability; those that are impossible are not computed."""
        if len(set(values)) == 1:
            return rounded(values[0])
        joint = chances(self.paths[0])
        for path in self.paths[1:]:
            joint = joint[..., None] * chances(path)
        joint = joint.flatten()
        total: Any = None
        for value in dict.fromkeys(values):
            at = [i for i, known in enumerate(values) if known == value]
            chance = joint[at].sum()
            if float(chance.detach()) == 0.0 and not chance.requires_grad:
                continue
            part = chance * rounded(value)
            total = part if total is None else total + part
        result: torch.Tensor = total
        return result

    def weight(self, name: str, weight: torch.Tensor, chances: Chances, rows: int | None = None) -> torch.Tensor:
        """A weight in its mixture of bits.

        Args:
            name: The weight.
            weight: As a float, zero where it is certainly left out: it decides the scales of what it stands beside.
            chances: Gives the probabilities of a choice's values.
            rows: How many axes are outputs, where that is not what the block says: of rows that were looked up.
        """
        if name not in self.matrices:
            return weight
        outputs = self.matrices[name][0] if rows is None else rows

        def rounded(numbers: tuple[int, int]) -> torch.Tensor:
            bits, group = numbers
            return weight if bits == FLOAT else fake_weight(weight, Numerics(bits, group, outputs))

        return self._mixed(self.weights, chances, rounded)

    def activations(self, x: torch.Tensor, chances: Chances) -> torch.Tensor:
        """Activations as matrices get them."""
        return self._mixed(self.tokens, chances, lambda bits: fake_tokens(x, bits))

    def kept(self, x: torch.Tensor, chances: Chances) -> torch.Tensor:
        """What later calls read."""
        return self._mixed(self.cached, chances, lambda bits: fake_tokens(x, bits))

    def supported(self, name: str, weight: torch.Tensor, mask: Callable[[Expr], torch.Tensor]) -> torch.Tensor:
        """A weight without the inputs that are certainly left out.

        Args:
            name: The weight.
            weight: At its largest.
            mask: Gives the probability that each entry of a dimension is kept.
        """
        if name not in self.matrices:
            return weight
        outputs, dims = self.matrices[name]
        for axis, dim in enumerate(dims, outputs):
            if dim.constant is None:
                inside = (mask(dim).detach() > 0).to(weight.dtype)
                if not bool(inside.all()):
                    weight = weight * inside.view(-1, *([1] * (weight.dim() - axis - 1)))
        return weight


def mixed_bits(space: SearchSpace) -> dict[str, MixedBits]:
    """The blocks of a space whose numbers are not all floats, by the paths of their nodes."""
    return {node.path: mixed for node in space.graph.nodes if (mixed := _of_node(space, node)) is not None}


def _of_node(space: SearchSpace, node: Node) -> MixedBits | None:
    block = node.block
    if not isinstance(block, Quantized) or not block.numerics():
        return None
    exprs = [as_expr(e) for e in (block.bits, block.scale_group, block.act_bits, block.cache_bits)]
    paths = tuple(sorted({path for e in exprs for path in e.paths}))
    shape = tuple(len(space.choices[p].values) for p in paths)
    assigned = Assignments(space.choices, joint_grid(space.choices, paths), {})
    bits, group, tokens, cached = (list(_spread(e.evaluate(assigned), shape)) for e in exprs)
    matrices = {
        name: (param.rows or 1, tuple(param.shape[param.rows or 1 :]))
        for name, param in node.params.items()
        if param.is_matrix
    }
    return MixedBits(paths, shape, tuple(zip(bits, group, strict=True)), tuple(tokens), tuple(cached), matrices)


def _spread(values: Any, shape: tuple[int, ...]) -> Iterator[int]:
    """The value for each joint value of choices, in order."""
    return iter(np.broadcast_to(np.asarray(values, dtype=np.int64), shape).reshape(prod(shape)).tolist())
