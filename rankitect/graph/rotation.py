"""Which weights of a block read the channels of its inputs, and which write those of its outputs: read from its params.

A model computes the same in any orthonormal basis of a wire's channels, if the weights that read the wire and those
that write it are turned into that basis. What a block states of its weights (`Param.shape`, `Param.inputs`) says which
these are, as far as they are matrices: a claim on what `run` does, which `rankitect.quantization.streams` tries out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

from rankitect.graph.block import Block
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.space.expr import Expr, sym

__all__ = ["Channels", "Side", "channels_of"]

Side = tuple[tuple[str, int], ...]
"""Weights with the axis (from 0) that stands for some channels."""


@dataclass(frozen=True)
class Channels:
    """What a block claims of the last axes of its wires.

    Attributes:
        reads: For each input, the weights that sum over its channels.
        writes: The weights that give the channels of the output.
        same: The inputs whose channels are those of the output, as in a sum.
        gain: The weight that multiplies each channel after a norm; None where there is none.
    """

    reads: tuple[Side, ...]
    writes: Side
    same: tuple[int, ...]
    gain: str | None


def channels_of(block: Block, inputs: Sequence[TensorType]) -> Channels | None:
    """What a block claims of its wires; None for one of several outputs, or of none with channels.

    Args:
        block: The block.
        inputs: The types of its inputs.
    """
    # A symbol for each input's width tells its channels from other sizes that happen to be equal.
    marks = [sym(f"channels of input {i}") for i in range(len(inputs))]
    marked = [replace(t, dims=(*t.dims[:-1], m)) for t, m in zip(inputs, marks, strict=True)]
    own_width = _with_mark(block)
    for candidate, types in product((own_width, block), (marked, _alike(inputs, marks), list(inputs))):
        try:
            outputs, _ = unify("", parse_ports(candidate.ports), types, candidate.fields())
            params = candidate.params(*types)
        except (ArithmeticError, LookupError, TypeError, ValueError):  # a block may need to know its sizes
            continue
        break
    else:
        return None
    if len(outputs) != 1 or not outputs[0].dims:
        return None
    own = [t[-1] for t in types]
    out = outputs[0][-1]
    matrices = {name: p for name, p in params.items() if len(p.shape) > 1}
    sums = {name: {a % len(p.shape) for a in p.inputs} for name, p in matrices.items()}

    def read(width: Expr) -> Side:
        return tuple(
            (name, a) for name, p in matrices.items() for a, d in enumerate(p.shape) if a in sums[name] and d == width
        )

    writes = tuple(
        (name, a) for name, p in matrices.items() for a, d in enumerate(p.shape) if a not in sums[name] and d == out
    )
    vectors = [name for name, p in params.items() if len(p.shape) == 1 and p.shape[0] == out]
    if writes:
        writes += tuple((name, 0) for name in vectors)
    same = tuple(i for i, width in enumerate(own) if width == out and types[i].dtype == "float")
    gain = vectors[0] if len(vectors) == 1 and not matrices and len(params) == 1 and len(inputs) == 1 else None
    return Channels(tuple(read(width) for width in own), writes, same, gain)


def _with_mark(block: Block) -> Block:
    """The block with a symbol in the field that is the width of its output, if one is."""
    axis = next((port.axes[-1] for port in parse_ports(block.ports).outputs if port.axes), "")
    if axis not in block.fields() or not any(f.name == axis for f in fields(block)):  # type: ignore[arg-type]
        return block
    try:
        return replace(block, **{axis: sym("channels of the output")})  # type: ignore[type-var]
    except (TypeError, ValueError):  # the block must know it
        return block


def _alike(inputs: Sequence[TensorType], marks: Sequence[Expr]) -> list[TensorType]:
    """The inputs with one symbol for all widths that are equal, as a sum needs them."""
    first: dict[Expr, Expr] = {}
    return [replace(t, dims=(*t.dims[:-1], first.setdefault(t[-1], m))) for t, m in zip(inputs, marks, strict=True)]
