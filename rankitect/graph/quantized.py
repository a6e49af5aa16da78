"""The numbers in which a block computes, as fields of the block: the bits of its weights, activations and caches.

What a weight takes in a file, how a model rounds and what a runtime is given all follow from these fields, so that a
compressed model is a pair of graph and architecture as every other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, added
from rankitect.graph.params import Param
from rankitect.space.expr import Expr, ExprLike, as_expr
from rankitect.space.names import shown

__all__ = ["BITS", "FLOAT", "GROUP", "INTEGER_BITS", "RANGES", "Quantized", "with_numerics"]

FLOAT = 32
"""Bits of what is not quantized."""
INTEGER_BITS = 8
"""The most bits of an integer; 16 bits are a float16."""
BITS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT)
"""Bits that a weight, an activation or a cached number may have."""
GROUP = 32
"""Weights of 4 bits that share a scale where only the bits are said: the smallest group that XNNPACK takes."""
RANGES = ("minmax", "stored")
"""Where the scales of weights come from: their largest absolute value, or parameters of the model."""


class Quantized(Block):
    """A block with weights that may be of few bits. Derive from it instead of `Block`; every default is a float.

    Weights of two dimensions and more are meant; biases and norms stay floats. A weight is a matrix of outputs by
    inputs, and rounded to integers from -2^(b-1) to 2^(b-1)-1 times a scale; what `Params` gives is rounded already.

    Args:
        bits: Of weights: one of `BITS`.
        scale_group: Weights along the input dimension that share a scale; 0 where a whole output does.
        act_bits: Of activations that go into `Params.linear` and `Params.read`: each token is rounded by its own range.
        cache_bits: Of what is kept for later calls.
        ranges: "minmax": a scale follows from the weights that share it. "stored": scales are parameters of the model,
            called `<weight>_scale`, which is how searched and learned ranges are kept.
    """

    scale_suffix: ClassVar[str] = "_scale"
    """What the name of stored scales adds to their weight's. A block that reads another's weight needs its own."""

    _: dataclasses.KW_ONLY  # `added` says so as well; this is for type checkers
    bits: ExprLike = added(default=FLOAT)
    scale_group: ExprLike = added(default=0)
    act_bits: ExprLike = added(default=FLOAT)
    cache_bits: ExprLike = added(default=FLOAT)
    ranges: str = added(default="minmax")

    @property
    def cache_width(self) -> int:
        """Elements of one of the vectors that are kept for later calls: each vector is rounded by its own range."""
        return 1

    @property
    def has_open_numerics(self) -> bool:
        """Whether choices of the space decide them."""
        return any(isinstance(value, Expr) and value.paths for value in self.numerics().values())

    def numerics(self) -> dict[str, Any]:
        """The fields of `Quantized` that the block states: none where all is float."""
        names = {f.name for f in dataclasses.fields(Quantized)}
        return {name: value for name, value in self.stated().items() if name in names}


def with_numerics(where: str, block: Block, params: Mapping[str, Param]) -> Mapping[str, Param]:
    """A block's weights with the numerics that its fields state, and the stored scales beside them.

    Args:
        where: The block's place, for errors.
        block: The block.
        params: Its weights.

    Raises:
        SpaceError: A field is no number or expression, or a weight's input axes do not stand last.
    """
    if not isinstance(block, Quantized):
        return params
    for name in ("bits", "scale_group", "act_bits", "cache_bits"):
        value = getattr(block, name)
        if isinstance(value, bool) or not isinstance(value, int | Expr):
            raise SpaceError(f"at {where}: {name} must be a whole number or an expression, not {shown(value)}")
    if block.ranges not in RANGES:
        raise SpaceError(f"at {where}: ranges is {shown(block.ranges)}; allowed: {', '.join(RANGES)}")
    bits, group = as_expr(block.bits), as_expr(block.scale_group)
    if bits == FLOAT:
        return params
    complete = dict(params)
    for name, param in params.items():
        if not param.is_matrix:
            continue
        if param.rows is None:
            raise SpaceError(f"at {where}: {name!r} cannot be quantized, as its input axes do not stand last")
        complete[name] = dataclasses.replace(param, bits=bits, scale_group=group)
        if block.ranges == "stored" and (scales := _scales(name, complete[name])) is not None:
            complete[name + block.scale_suffix] = scales
    return complete


def _scales(name: str, param: Param) -> Param | None:
    """The stored scales of a weight, [outputs..., groups]; None where it never has any."""
    gate = param.gate * param.bits.le(INTEGER_BITS)
    if gate == 0:
        return None
    inputs = prod(param.shape[param.rows :], start=as_expr(1))
    group = param.scale_group
    if group.constant is not None:
        groups = inputs // group if group.constant else as_expr(1)
    else:
        whole = group.eq(0)
        groups = inputs // (group + whole * (inputs + inputs.eq(0)))
    return Param((*param.shape[: param.rows], groups), init="ones", gate=gate, scales_of=name)
