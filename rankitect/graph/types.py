"""Tensor types on wires, and the ports line in which a block states what it takes and gives."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.expr import Expr, ExprLike, as_expr, sym

__all__ = ["B", "P", "T", "TensorType", "parse_ports", "unify"]

B = sym("B")
"""Batch: examples or sequences of a call."""
T = sym("T")
"""Tokens of each sequence in a call."""
P = sym("P")
"""Tokens of each sequence that earlier calls have put in the cache (0 at prefill)."""


@dataclass(frozen=True)
class TensorType:
    """The shape of a tensor, in symbolic integers, and its kind of number ("float" or "int").

    On the input of a block, `gate` is 1 where the wire is used; it is no part of the type.
    """

    dims: tuple[Expr, ...]
    dtype: str = "float"
    gate: Expr = field(default_factory=lambda: as_expr(1), compare=False)

    @classmethod
    def of(cls, *dims: ExprLike, dtype: str = "float") -> TensorType:
        """A type from numbers, choices and expressions."""
        return cls(tuple(as_expr(d) for d in dims), dtype)

    def __getitem__(self, axis: int) -> Expr:
        return self.dims[axis]

    def __str__(self) -> str:
        return f"{'int' if self.dtype == 'int' else ''}[{', '.join(map(str, self.dims))}]"

    @property
    def numel(self) -> Expr:
        """The number of elements."""
        total = as_expr(1)
        for dim in self.dims:
            total = total * dim
        return total


@dataclass(frozen=True)
class Port:
    """One input or output of a ports line: axis names, and whether any number of wires may come."""

    axes: tuple[str, ...]
    dtype: str = "float"
    variadic: bool = False


@dataclass(frozen=True)
class Ports:
    """A parsed ports line."""

    text: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def _split(text: str) -> list[str]:
    """Split at commas outside of parentheses."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts if p.strip()]


def _port(text: str) -> Port:
    variadic = text.endswith(")+")
    if variadic:
        text = text[1:-2]
    text, _, dtype = text.partition(":")
    return Port(tuple(text.split()), dtype.strip() or "float", variadic)


@cache
def parse_ports(text: str) -> Ports:
    """Read a ports line such as `"B D, B F D -> B (F+1)*F//2"`.

    Axes are separated by blanks and ports by commas. A name is bound by its first use, or is a field of the block;
    `_` is any size; `...` any number of axes; `( ... _)+` one or more wires; `: int` after the axes is for ids.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise SpaceError(f"ports line {text!r} lacks '->' between inputs and outputs")
    return Ports(text, tuple(map(_port, _split(left))), tuple(map(_port, _split(right))))


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _formula(where: str, text: str, names: Mapping[str, Expr]) -> Expr:
    def walk(node: ast.expr) -> Expr:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            result: Expr = _OPERATORS[type(node.op)](walk(node.left), walk(node.right))
            return result
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return as_expr(node.value)
        if isinstance(node, ast.Name):
            if node.id not in names:
                raise SpaceError(
                    f"at {where}: {node.id!r} of output axis {text!r} is on no input and is no whole number, choice or "
                    "expression among the block's fields"
                )
            return names[node.id]
        raise SpaceError(f"at {where}: output axis {text!r} is not a formula of names, whole numbers, + - * // %")

    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        raise SpaceError(
            f"at {where}: output axis {text!r} is not a formula of names, whole numbers, + - * // %"
        ) from None
    return walk(tree.body)


def _bind(port: Port, index: int, got: TensorType, names: dict[str, Expr], group: list[tuple[Expr, ...]]) -> str | None:
    """Bind the axes of one input; give what is wrong, or None."""
    if got.dtype != port.dtype:
        return f"input {index} must be {port.dtype}, not {got.dtype}"
    axes = list(port.axes)
    dims = list(got.dims)
    if "..." in axes:
        at = axes.index("...")
        free = len(dims) - (len(axes) - 1)
        if free < 0:
            return f"input {index} needs at least {len(axes) - 1} axes ({' '.join(axes)}), not {len(dims)}"
        middle = tuple(dims[at : at + free])
        if group and group[0] != middle:
            return f"leading axes are {list(group[0])} on an earlier port but {list(middle)} on input {index}"
        group[:] = [middle]
        axes, dims = axes[:at] + axes[at + 1 :], dims[:at] + dims[at + free :]
    if len(axes) != len(dims):
        return f"input {index} needs {len(axes)} axes ({' '.join(axes)}), not {len(dims)}"
    for axis, dim in zip(axes, dims, strict=True):
        if axis == "_":
            continue
        wanted = as_expr(int(axis)) if axis.isdigit() else names.setdefault(axis, dim)
        if wanted != dim:
            where = "by the block" if axis.isdigit() else "on an earlier port or in the block"
            return f"axis {axis} is {wanted} {where} but {dim} on input {index}"
    return None


def unify(
    where: str, ports: Ports, inputs: Sequence[TensorType], fields: Mapping[str, Expr]
) -> tuple[tuple[TensorType, ...], dict[str, Expr]]:
    """Match the types on the wires with a ports line.

    Args:
        where: The node, for errors: path and block.
        ports: The parsed ports line.
        inputs: The types on the wires.
        fields: The block's numeric fields, which may be used as axis names.

    Returns:
        The output types, and every name bound to its dimension (fields included).

    Raises:
        SpaceError: The types do not fit: names the node, the port, and both sizes.
    """
    names = dict(fields)
    group: list[tuple[Expr, ...]] = []
    expected = list(ports.inputs)
    if expected and expected[-1].variadic:
        expected = expected[:-1] + [expected[-1]] * max(1, len(inputs) - len(expected) + 1)
    problem = None
    if len(expected) != len(inputs):
        problem = f"takes {len(expected)} inputs ({ports.text}), not {len(inputs)}"
    for index, (port, got) in enumerate(zip(expected, inputs, strict=False)):
        problem = problem or _bind(port, index, got, names, group)
    if problem:
        raise SpaceError(f"at {where}: {problem}; wires: {', '.join(map(str, inputs)) or 'none'}")
    outputs = []
    for port in ports.outputs:
        dims: list[Expr] = []
        for axis in port.axes:
            dims.extend(group[0] if group else ()) if axis == "..." else dims.append(_formula(where, axis, names))
        outputs.append(TensorType(tuple(dims), port.dtype))
    return tuple(outputs), names
