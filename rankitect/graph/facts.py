"""What a block states of itself where it is put on wires: its weights, its FLOPs, what it keeps between calls.

Blocks are written by users as well. What a method of theirs gives is checked here, once, so that a wrong type is told
with the block's place and name, and not by whoever reads it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.graph.block import Block
from rankitect.graph.params import Param, Params
from rankitect.graph.quantized import with_numerics
from rankitect.graph.types import Ports, TensorType, parse_ports
from rankitect.space.expr import Expr, as_expr
from rankitect.space.names import shown

__all__ = ["STARTS", "facts_of", "ports_of"]

STARTS = ("fan_in", "normal", "ones", "zeros")
"""How a weight may start (`Param.init`)."""

_TAKEN = frozenset(name for name in vars(Params) if not name.startswith("_")) | {"present"}
"""Names that `Params` has itself, so that no weight can be read by them."""


def ports_of(where: str, block: Block) -> Ports:
    """The ports line of a block.

    Raises:
        SpaceError: It has none, or one that is no text, or is none.
    """
    ports = _stated(where, block, "ports", lambda: block.ports)
    if not isinstance(ports, str):
        raise SpaceError(f"at {where}: `ports` must be a text such as 'B D -> B D', not {shown(ports)}")
    return parse_ports(ports)


def facts_of(where: str, block: Block, inputs: Sequence[TensorType]) -> tuple[Mapping[str, Param], Expr, Expr]:
    """The weights of a block on inputs, its FLOPs, and the elements that it keeps for later calls.

    Args:
        where: The block's place, for errors.
        block: The block.
        inputs: Types of its inputs.

    Raises:
        SpaceError: A method of the block failed, or gave what it must not: says which, where, and what it may give.
    """
    params = _stated(where, block, "params", lambda: block.params(*inputs))
    if not isinstance(params, Mapping):
        raise SpaceError(f"at {where}: `params` must give a mapping from names to `Param`, not {shown(params)}")
    for name, param in params.items():
        _check_param(where, name, param)
    params = with_numerics(where, block, params)
    flops = _stated(where, block, "flops", lambda: block.flops(*inputs))
    cache = _stated(where, block, "cache", lambda: block.cache(*inputs))
    return params, _cost(where, "flops", flops), _cost(where, "cache", cache)


def _stated(where: str, block: Block, method: str, call: Callable[[], Any]) -> Any:
    """What a method of a block gives; what it raises with the block's place and name."""
    try:
        return call()
    except SpaceError as error:
        raise (error if where in str(error) else SpaceError(f"at {where}: {error}")) from error.__cause__
    except Exception as error:  # the code of whoever wrote the block
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise SpaceError(f"at {where}: `{method}` of {block.label} ended in {reason}") from error


def _cost(where: str, method: str, value: Any) -> Expr:
    """A number of operations or elements as an expression."""
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    expr = as_expr(value) if number or isinstance(value, Expr) else None
    if expr is None or (expr.constant is not None and expr.constant < 0):
        raise SpaceError(
            f"at {where}: `{method}` must give a whole number from 0 or an expression of sizes, not {shown(value)}"
        )
    return expr


def _check_param(where: str, name: Any, param: Any) -> None:
    """Refuse a weight that no model could hold, or no block could read."""
    if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
        raise SpaceError(
            f"at {where}: a weight cannot be called {shown(name)}: its name must be a Python identifier other than "
            f"{', '.join(sorted(_TAKEN))}"
        )
    if not isinstance(param, Param):
        raise SpaceError(f"at {where}: `params` must give a `Param` for {name!r}, not {shown(param)}")
    if not isinstance(param.shape, tuple) or not all(isinstance(d, Expr) for d in param.shape):
        raise SpaceError(f"at {where}: the shape of {name!r} is {shown(param.shape)}: make the weight with `Param.of`")
    if free := frozenset[str]().union(*(d.symbols for d in param.shape)):
        raise SpaceError(f"at {where}: the shape of {name!r} depends on {min(free)}, which only a batch decides")
    if param.init not in STARTS:
        raise SpaceError(f"at {where}: unknown start {shown(param.init)} of {name!r}; allowed: {', '.join(STARTS)}")
    axes = len(param.shape)
    if param.init == "fan_in" and not all(isinstance(a, int) and -axes <= a < axes for a in param.inputs):
        raise SpaceError(f"at {where}: {name!r} has {axes} axes, and its inputs are {shown(param.inputs)}")
    if not isinstance(param.trained, bool) or (param.table and not param.trained):
        raise SpaceError(f"at {where}: trained={shown(param.trained)} of {name!r}: true, or false where it is no table")
    if not isinstance(param.gate, Expr):
        raise SpaceError(f"at {where}: the gate of {name!r} must be a condition, not {shown(param.gate)}")
