"""Hidden units in the order of their importance, for the blocks of any space.

A narrower architecture keeps the first units of every dimension, so that the most important ones should stand first
(once-for-all, arXiv 1908.09791, section 3.2). Units that several weights share, such as the channels that a convolution
writes, a norm scales and another convolution reads, are moved in all of them at once, with what an optimiser remembers
of each: the largest architecture computes what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Expr, SearchSpace
from rankitect.graph.block import Input, Zeros
from rankitect.graph.nodes import Node
from rankitect.graph.quantized import FLOAT
from rankitect.graph.sorting import Tie, ties_of
from rankitect.models.plan import Step, bounds, relaxed_plan
from rankitect.models.supernet import Supernet
from rankitect.models.weights import ParameterHolder, SlicedParams, cut, weight_of
from rankitect.space.tables import Assignments

__all__ = ["UnitGroup", "sort_units", "unit_groups", "unit_scores"]

Key = tuple[str, str]
_SMALL = {"B": 2, "T": 4, "P": 0}
"""Free dimensions of what a block is tried on."""
_TOLERANCE = 1e-6
"""Of a trial in float64, relative to the largest output: a wrong claim errs by about 1."""


@dataclass(frozen=True)
class UnitGroup:
    """Units that are counted by one dimension wherever they stand.

    Attributes:
        name: The first weight that counts them, as `<owner>.<weight>`, with its axis where that is not the first.
        size: How many there are at most.
        writes: The weights that stand beside them, with the axis that counts them.
        reads: Those among them that sum over the units.
    """

    name: str
    size: int
    writes: tuple[tuple[Key, int], ...]
    reads: tuple[tuple[Key, int], ...]


def unit_groups(space: SearchSpace) -> list[UnitGroup]:
    """All units of a space that can be put into another order, in the order of the graph.

    A dimension whose units a block does not treat alike (what it claims is tried out on random numbers), or that is an
    axis of the model's inputs or outputs, is left out.
    """
    return _Reading(space).groups()


class _Reading:
    """Joins the axes of wires and weights that count the same units."""

    def __init__(self, space: SearchSpace) -> None:
        self._space, self._bound = space, bounds(space)
        self._parent: dict[Any, Any] = {}
        self._fixed: set[Any] = set()
        self._weights: dict[tuple[Key, int], bool] = {}  # those that choices decide: whether they sum over the units
        self._known: dict[Any, bool] = {}
        steps = {step.path: step for step in relaxed_plan(space).steps}
        for node in space.graph.nodes:
            if isinstance(node.block, Input):
                self._fix(("wire", node.path, 0, axis) for axis in range(len(node.outputs[0].dims)))
            else:
                self._add(node, steps[node.path])
        for edge in space.graph.outputs:
            dims = space.graph.node(edge.source).outputs[edge.index].dims
            self._fix(("wire", edge.source, edge.index, axis) for axis in range(len(dims)))

    # --- joining --------------------------------------------------------------------------------------------------
    def _root(self, axis: Any) -> Any:
        while self._parent.setdefault(axis, axis) != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis

    def _join(self, axes: Sequence[Any]) -> None:
        for other in axes[1:]:
            self._parent[self._root(other)] = self._root(axes[0])

    def _fix(self, axes: Iterable[Any]) -> None:
        self._fixed.update(axes)

    def _add(self, node: Node, step: Step) -> None:
        sources = [(edge.source, edge.index) for edge in node.inputs]
        for name, param in node.params.items():
            sums = {a % len(param.shape) for a in param.inputs} if param.is_matrix else set()
            for axis, dim in enumerate(param.shape):
                if dim.paths:
                    slot = (node.weights, name), axis
                    self._weights[slot] = self._weights.get(slot, False) or axis in sums
        ties = [] if isinstance(node.block, Zeros) else ties_of(node.block, self._space.graph.types(node.inputs))
        seen: set[Any] = set()
        for tie in ties or ():
            axes = [
                *(("wire", *sources[i], axis) for i, axis in tie.inputs),
                *(("wire", node.path, i, axis) for i, axis in tie.outputs),
                *(("weight", (node.weights, name), axis) for name, axis in tie.weights),
            ]
            self._join(axes)
            seen.update(axes)
            if not tie.plain or not self._holds(node, step, tie):
                self._fix(axes)
        if not isinstance(node.block, Zeros):  # whose units are all alike
            self._fix(axis for axis in self._open_axes(node, sources) if axis not in seen)

    def _open_axes(self, node: Node, sources: Sequence[tuple[str, int]]) -> Iterable[Any]:
        """Every axis that choices decide, of the weights and wires of a node."""
        for path, index in (*sources, *((node.path, i) for i in range(len(node.outputs)))):
            for axis, dim in enumerate(self._space.graph.node(path).outputs[index].dims):
                if dim.paths:
                    yield "wire", path, index, axis
        for name, param in node.params.items():
            yield from (("weight", (node.weights, name), a) for a, d in enumerate(param.shape) if d.paths)

    # --- trying out -------------------------------------------------------------------------------------------------
    def _holds(self, node: Node, step: Step, tie: Tie) -> bool:
        """Whether a block gives the same in another order when its weights and inputs are in that order."""
        types = [t for i, t in enumerate(self._space.graph.types(node.inputs)) if i in step.present]
        inputs = tuple((tuple(self._number(d) for d in t.dims), t.dtype) for t in types)
        key = (type(node.block), str(node.block), tuple(sorted(step.shapes.items())), step.present, inputs, tie)
        if key not in self._known:
            self._known[key] = _Trial(self._whole(step), inputs).holds(tie)
        return self._known[key]

    def _whole(self, step: Step) -> Step:
        """A step with everything at its largest, and nothing rounded."""
        sizes = {name: self._bound(e) for name, e in step.sizes.items() if isinstance(e, Expr) and not e.symbols}
        return replace(step, sizes=sizes, masked=(), numerics={}, act_bits=FLOAT, cache_bits=FLOAT)

    def _number(self, dim: Expr) -> int:
        if not dim.symbols:
            return self._bound(dim)
        some = dict.fromkeys(self._space.choices, 0)
        return int(dim.evaluate(Assignments(self._space.choices, some, {**self._space.defaults, **_SMALL})))

    # --- the result -------------------------------------------------------------------------------------------------
    def groups(self) -> list[UnitGroup]:
        """The groups that nothing fixes."""
        fixed = {self._root(axis) for axis in self._fixed}
        by_root: dict[Any, list[tuple[Key, int]]] = {}
        for key, axis in self._weights:
            by_root.setdefault(self._root(("weight", key, axis)), []).append((key, axis))
        shapes = {(n.weights, name): p.shape for n in self._space.graph.nodes for name, p in n.params.items()}
        groups = []
        for root, slots in by_root.items():
            reads = tuple(slot for slot in slots if self._weights[slot])
            if root in fixed or not reads or len(reads) == len(slots):
                continue
            (key, axis), *_ = slots
            size = self._bound(shapes[key][axis])
            name = ".".join(key) + (f"[{axis}]" if axis else "")
            groups.append(UnitGroup(name, size, tuple(s for s in slots if s not in reads), reads))
        return groups


class _Trial:
    """A step on random weights and inputs.

    Args:
        step: The step, at its largest.
        inputs: Shape and kind of each input that it keeps.
    """

    def __init__(self, step: Step, inputs: Sequence[tuple[tuple[int, ...], str]]) -> None:
        self._step, self._draw = step, torch.Generator().manual_seed(0)
        # Above 0, as a variance must be.
        self._weights = {name: 0.1 + self._random(torch.rand, shape) for name, shape in step.shapes.items()}
        self._inputs = [
            self._random(torch.randn, shape) if kind == "float" else torch.zeros(shape, dtype=torch.int64)
            for shape, kind in inputs
        ]

    def _random(self, kind: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        return kind(shape, dtype=torch.float64, generator=self._draw)

    def holds(self, tie: Tie) -> bool:
        """Whether the step gives the same, in another order, where all that counts its units is in that order."""
        present = self._step.present
        inputs = [(present.index(i), axis) for i, axis in tie.inputs if i in present]
        weights = [(name, axis) for name, axis in tie.weights if name in self._weights]
        counts = {self._weights[name].shape[axis] for name, axis in weights}
        counts |= {self._inputs[i].shape[axis] for i, axis in inputs}
        if not counts:
            return True  # units that come from nowhere, and are alike
        if len(counts) != 1:
            return False
        order = torch.randperm(counts.pop(), generator=self._draw)
        other, given = dict(self._weights), list(self._inputs)
        for name, axis in weights:
            other[name] = other[name].index_select(axis, order)
        for i, axis in inputs:
            given[i] = given[i].index_select(axis, order)
        try:
            with torch.no_grad():
                plain, moved = self._run(self._weights, self._inputs), self._run(other, given)
        except (SpaceError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):  # the block's own code
            return False
        for i, axis in tie.outputs:
            plain[i] = plain[i].index_select(axis, order)
        return all(_close(one, another) for one, another in zip(plain, moved, strict=True))

    def _run(self, weights: Mapping[str, torch.Tensor], given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        holder = ParameterHolder()
        for name, weight in weights.items():
            holder.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        result = self._step.block.run(SlicedParams(self._step, holder), *given)
        return list(result) if isinstance(result, tuple) else [result]


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or not one.numel():
        return one.shape == other.shape
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp_min(1e-9))


def unit_scores(
    supernet: Supernet, group: UnitGroup, shapes: Mapping[Key, tuple[int, ...]] | None = None
) -> torch.Tensor:
    """The importance of each unit: the sum of the absolute weights that read it (once-for-all's measure).

    Args:
        supernet: The weights.
        group: The units.
        shapes: The part of each weight that counts, by (owner, name); None for all of every weight.

    Returns:
        [n] for the n units that every weight of the group holds in these shapes.
    """
    units = _units(group, shapes)
    total = torch.zeros(units)
    for key, axis in group.reads:
        weight = weight_of(supernet.weights.owner(key[0]), key[1]).detach()
        if shapes is not None:
            if key not in shapes:
                continue
            weight, _ = cut(weight, shapes[key])
        total += weight.abs().float().movedim(axis, 0).flatten(1).sum(1)[:units].cpu()
    return total


def _units(group: UnitGroup, shapes: Mapping[Key, tuple[int, ...]] | None) -> int:
    """How many of the first units all weights hold that have a shape; 0 where none has."""
    if shapes is None:
        return group.size
    held = [shapes[key][axis] for key, axis in (*group.writes, *group.reads) if key in shapes]
    return min(held, default=0)


def sort_units(
    supernet: Supernet,
    scores: Mapping[str, torch.Tensor] | None = None,
    moments: Mapping[str, torch.Tensor] | None = None,
    groups: Sequence[UnitGroup] | None = None,
    reference: Architecture | None = None,
) -> dict[str, torch.Tensor]:
    """Put the units of shared weights in the order of their importance, the most important first, in place.

    Running statistics and an optimiser's moments are moved along. The reference computes what it did before.

    Args:
        supernet: The weights.
        scores: By a group's name, the importance of each of its units, [size]; `unit_scores` for all others.
        moments: What an optimiser remembers, as `GuardedOptimizer.state` gives it: live tensors by
            `<moment>/<parameter>`, of which those of a weight's shape are moved.
        groups: What to sort; None for `unit_groups` of the space. Groups with a table that something else holds while
            it is trained, or with a weight that was refitted to its units' order, are left as they are.
        reference: The architecture that was trained, where it is not the largest of the space: its units are sorted by
            its own weights, and the units beyond them, which nothing has trained, stay where they are.

    Returns:
        For each group that was sorted, where its units were before, [size].

    Raises:
        SpaceError: The scores of a group are not one for each unit.
    """
    orders: dict[str, torch.Tensor] = {}
    beside: dict[str, list[torch.Tensor]] = {}
    for called, moment in (moments or {}).items():
        beside.setdefault(called.partition("/")[2].removeprefix("weights."), []).append(moment)
    shapes = None if reference is None else supernet.plan(reference).shapes()
    for group in unit_groups(supernet.space) if groups is None else groups:
        slots = (*group.writes, *group.reads)
        owners = {key: supernet.weights.owner(key[0]) for key, _ in slots}
        if any(key[1] in owner.stores or key[1] in owner.variants for key, owner in owners.items()):
            continue
        values = (scores or {}).get(group.name)
        if values is not None and values.shape != (group.size,):
            raise SpaceError(f"the units of {group.name} are {group.size}, and their scores {list(values.shape)}")
        units = _units(group, shapes)
        if not units:
            continue
        values = unit_scores(supernet, group, shapes) if values is None else values[:units]
        first = values.argsort(descending=True, stable=True).cpu()
        orders[group.name] = order = torch.cat([first, torch.arange(units, group.size)])
        for key, axis in slots:
            weight = weight_of(owners[key], key[1])
            same = [m for m in beside.get(".".join(key), ()) if m.shape == weight.shape]
            _reorder((weight, *same), axis, order)
    return orders


@torch.no_grad()
def _reorder(tensors: Iterable[torch.Tensor], axis: int, order: torch.Tensor) -> None:
    for tensor in tensors:
        tensor.copy_(tensor.index_select(axis, order.to(tensor.device)))
