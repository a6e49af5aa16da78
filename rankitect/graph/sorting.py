"""Which axes of a block's weights and wires count the same units, so that these must be put into one order.

The units of a dimension that a choice decides have an order: a supernet keeps the first ones. What a block states of
its weights (`Param.shape`) and wires (its ports line) says which axes count them; it is a claim on what `run` does,
which `rankitect.models.sorting` tries out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from rankitect.errors import SpaceError
from rankitect.graph.block import Block
from rankitect.graph.params import Param
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.space.expr import Expr, as_expr, sym

__all__ = ["Tie", "ties_of"]


@dataclass(frozen=True)
class Tie:
    """Axes of one block that count the same units.

    Attributes:
        inputs: Inputs, each with its axis.
        outputs: Outputs, each with its axis.
        weights: Weights, each with its axis.
        plain: Whether the units are counted by these axes alone. If not, something else depends on their number in
            another way (as pairs of them), and they cannot be put into another order.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    weights: tuple[tuple[str, int], ...]
    plain: bool


def ties_of(block: Block, inputs: Sequence[TensorType]) -> list[Tie] | None:
    """What a block claims of each dimension of its own that choices decide.

    Args:
        block: The block.
        inputs: The types of its inputs.

    Returns:
        A tie for each; None where the block must know its sizes, so that they cannot be told apart.
    """
    values = {f.name: getattr(block, f.name) for f in fields(block)}  # type: ignore[arg-type]
    own = {name: as_expr(value) for name, value in values.items() if _open(value)}
    # A size by which a block decides how a weight is laid out, such as a kernel's, is told from no other.
    own = {name: value for name, value in own.items() if _marked(block, {name: sym("units")}, inputs, inputs)}
    for apart in (True, False):  # first each size by itself, then those that are equal together, as groups need them
        marks: dict[object, Expr] = {}

        def mark(dim: Expr, where: object, marks: dict[object, Expr] = marks, apart: bool = apart) -> Expr:
            return marks.setdefault(where if apart else dim, sym(f"units {len(marks)}"))

        types = [replace(t, dims=tuple(mark(d, ("wire", d)) if _open(d) else d for d in t.dims)) for t in inputs]
        units = {name: mark(value, ("field", name)) for name, value in own.items()}
        if (facts := _marked(block, units, types, inputs)) is not None:
            return [_tie(unit, types, *facts) for unit in marks.values()]
    return None


def _marked(
    block: Block, units: Mapping[str, Expr], types: Sequence[TensorType], inputs: Sequence[TensorType]
) -> tuple[tuple[TensorType, ...], dict[str, Param]] | None:
    """What a block with marks in fields and inputs says of its outputs and weights; None where it cannot, or where its
    weights would have other axes."""
    try:
        marked = replace(block, **units) if units else block  # type: ignore[type-var]
        outputs, _ = unify("", parse_ports(block.ports), types, marked.fields())
        params, stated = dict(marked.params(*types)), block.params(*inputs)
    except (SpaceError, ArithmeticError, LookupError, TypeError, ValueError):  # it must know its sizes
        return None
    alike = {k: len(p.shape) for k, p in params.items()} == {k: len(p.shape) for k, p in stated.items()}
    return (outputs, params) if alike else None


def _open(value: object) -> bool:
    return isinstance(value, Expr) and bool(value.paths) and not value.symbols


def _tie(unit: Expr, inputs: Sequence[TensorType], outputs: Sequence[TensorType], params: dict[str, Param]) -> Tie:
    def held(types: Sequence[TensorType]) -> tuple[tuple[int, int], ...]:
        return tuple((i, a) for i, t in enumerate(types) for a, d in enumerate(t.dims) if d == unit)

    weights = tuple((name, a) for name, p in params.items() for a, d in enumerate(p.shape) if d == unit)
    plain = not any(unit.symbols & dim.symbols for dim in _others(unit, outputs, params))
    return Tie(held(inputs), held(outputs), weights, plain)


def _others(unit: Expr, outputs: Sequence[TensorType], params: dict[str, Param]) -> Iterator[Expr]:
    """Every size that is not just the number of the units."""
    for dims in (*(t.dims for t in outputs), *(p.shape for p in params.values())):
        yield from (d for d in dims if d != unit)
