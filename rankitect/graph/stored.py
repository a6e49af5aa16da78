"""What a weight takes in a file, as an expression of its bits: integers, and the scales that multiply them.

The numbers are those of ExecuTorch's files for XNNPACK, and of our own tables there: weights of 4 bits share a byte by
two along a row, a group's scale is a bfloat16, and that of a whole row a float32.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Final

from rankitect.graph.params import Param
from rankitect.graph.quantized import BITS, FLOAT, INTEGER_BITS
from rankitect.space.expr import Expr, ExprLike, as_expr

__all__ = ["CACHE_SCALE_BYTES", "FLOAT_BYTES", "cached_bytes", "param_bytes", "stored_bytes"]

FLOAT_BYTES: Final = 4
GROUP_SCALE_BYTES: Final = 2
ROW_SCALE_BYTES: Final = 4
CACHE_SCALE_BYTES: Final = 4
"""Scale and zero point of a cached vector, 16 bits each."""


def stored_bytes(rows: ExprLike, inputs: ExprLike, bits: ExprLike, group: ExprLike) -> Expr:
    """Bytes of a matrix in a file.

    Args:
        rows: Its outputs.
        inputs: Weights of each.
        bits: Of each weight, one of `BITS`.
        group: Weights that share a scale; 0 for all of a row. A last group may be smaller.

    >>> stored_bytes(10, 64, 4, 32)
    360
    """
    rows, inputs, bits, group = as_expr(rows), as_expr(inputs), as_expr(bits), as_expr(group)
    total = as_expr(0)
    for known in BITS:
        if (chosen := bits.eq(known)) != 0:
            size = inputs * (known // 8) if known % 8 == 0 else (inputs * known + 7) // 8
            total = total + chosen * rows * size
    integers = bits.le(INTEGER_BITS)
    return total if integers == 0 else total + integers * rows * _scale_bytes(inputs, group)


def _scale_bytes(inputs: Expr, group: Expr) -> Expr:
    """Bytes of the scales of a row."""
    if group.constant is not None:
        size = int(group.constant)
        return GROUP_SCALE_BYTES * ((inputs + size - 1) // size) if size else as_expr(ROW_SCALE_BYTES)
    whole = group.eq(0)
    size_or_one = group + whole
    groups = (inputs + size_or_one - 1) // size_or_one
    return whole * ROW_SCALE_BYTES + (1 - whole) * GROUP_SCALE_BYTES * groups


def param_bytes(param: Param, bits: ExprLike | None = None, group: ExprLike | None = None) -> Expr:
    """Bytes of a block's weight in a file, its scales included.

    Args:
        param: The weight.
        bits: In place of its own, if it is a matrix.
        group: The same of what shares a scale.
    """
    if not param.is_matrix:
        return FLOAT_BYTES * param.numel
    bits, group = as_expr(param.bits if bits is None else bits), param.scale_group if group is None else group
    if bits == FLOAT:
        return FLOAT_BYTES * param.numel
    outputs = param.rows or 1
    rows, inputs = (prod(dims, start=as_expr(1)) for dims in (param.shape[:outputs], param.shape[outputs:]))
    return stored_bytes(rows, inputs, bits, group)


def cached_bytes(elements: Expr, vectors: Expr, bits: ExprLike) -> Expr:
    """Bytes of what a block keeps for later calls.

    Args:
        elements: How many numbers are kept.
        vectors: How many vectors they are, each of which has a scale of its own.
        bits: Of each number.
    """
    bits = as_expr(bits)
    if bits.constant is not None:
        size = elements * int(bits.constant) * as_expr(1)
        return _eighth(size) + (CACHE_SCALE_BYTES * vectors if int(bits.constant) <= INTEGER_BITS else 0)
    return _eighth(elements * bits) + bits.le(INTEGER_BITS) * CACHE_SCALE_BYTES * vectors


def _eighth(bits: Expr) -> Expr:
    return bits * as_expr(Fraction(1, 8))
