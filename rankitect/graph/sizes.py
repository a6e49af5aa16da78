"""Sizes that no tensor can have: found when a space is made, not when a model of it is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rankitect.errors import SpaceError, short
from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness
from rankitect.graph.wires import ONE
from rankitect.space.expr import Expr
from rankitect.space.names import shown
from rankitect.space.tables import Assignments, joint_grid

__all__ = ["check_sizes", "counterexample"]

MAX_JOINT = 1 << 20
"""Joint values of choices over which a size is looked at."""


def check_sizes(graph: Graph, live: Liveness) -> None:
    """Refuse a graph in which a size of a tensor can be negative; 0 leaves out what it counts.

    Raises:
        SpaceError: Names the node, the size, and values of choices that make it so.
    """
    checked: set[Expr] = set()
    for node in graph.nodes:
        for what, size, gate in _sizes(graph, node.path):
            if size in checked or size.symbols:
                continue
            gate = live.nodes[node.path] * gate
            if _least(graph, size) >= 0:
                checked.add(size)
            elif (example := counterexample(graph, [size], gate, lambda values: values[0] < 0)) is not None:
                raise SpaceError(
                    f"at {node.path} ({node.block.label}): the size {short(str(size), 80)} of {what} {example}; "
                    "a size is at least 0"
                )


def _sizes(graph: Graph, path: str) -> Iterator[tuple[str, Expr, Expr]]:
    """The sizes of a node's outputs and weights, each with what it is of, and when that is there while the node is."""
    node = graph.node(path)
    for output in node.outputs:
        yield from (("an output", dim, ONE) for dim in output.dims)
    for name, param in node.params.items():
        yield from ((f"the weight {name!r}", dim, param.gate) for dim in param.shape)


def _least(graph: Graph, size: Expr) -> float:
    """The least value or its sign, whatever the rules say; 0 where there are too many joint values to look at."""
    if size.constant is not None:
        return -1.0 if size.constant < 0 else 0.0  # not as a float: a number from outside may be too large for one
    paths = sorted(size.paths)
    if math.prod(len(graph.choices[p].values) for p in paths) > MAX_JOINT:
        return 0
    return float(np.min(size.evaluate(Assignments(graph.choices, joint_grid(graph.choices, paths), {}))))


def counterexample(
    graph: Graph, numbers: Sequence[Expr], gate: Expr, bad: Callable[[list[np.ndarray]], np.ndarray]
) -> str | None:
    """Values of choices under which numbers are bad where what they belong to is there and no rule is broken.

    Args:
        graph: The graph.
        numbers: Expressions.
        gate: When what they belong to is there.
        bad: Which of the joint values of the numbers are bad.

    Returns:
        What the first number then is, for a message; None where there is no such case, or too many to look at.
    """
    paths = sorted(frozenset[str]().union(gate.paths, *(number.paths for number in numbers)))
    shape = [len(graph.choices[p].values) for p in paths]
    if math.prod(shape) > MAX_JOINT:
        return None
    batch = Assignments(graph.choices, joint_grid(graph.choices, paths), {})
    wrong = bad([np.asarray(number.evaluate(batch)) for number in numbers]) & (np.asarray(gate.evaluate(batch)) != 0)
    for rule in graph.rules:
        if rule.condition.paths <= set(paths):
            wrong = wrong & (np.asarray(rule.condition.evaluate(batch)) != 0)
    wrong = np.broadcast_to(wrong, shape)
    if not wrong.any():
        return None
    chosen = {p: int(i) for p, i in zip(paths, np.argwhere(wrong)[0], strict=True)}
    result = numbers[0].evaluate(Assignments(graph.choices, chosen, {}))
    decisive = frozenset[str]().union(*(number.paths for number in numbers))
    named = ", ".join(f"{p}={shown(graph.choices[p].values[i], 30)}" for p, i in chosen.items() if p in decisive)
    return f"is {result} for {named}" if named else f"is {result}"
