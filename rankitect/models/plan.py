"""From a graph to steps that a model runs: which blocks, on what, with which weights and sizes.

Standalone models, supernets and relaxed supernets differ only in where a step's weights come from and whether its
inputs are weighed; the walk over the steps (`run_plan`) exists once, as does the way a weight is cut to size and
rounded (`rankitect.models.weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Block, Edge, Expr, Node, SearchSpace, as_expr
from rankitect.graph.block import Input, Zeros
from rankitect.graph.quantized import FLOAT, Quantized
from rankitect.models.numerics import Numerics
from rankitect.models.recompute import run_recomputed
from rankitect.space.tables import Assignments, upper_bound

__all__ = [
    "Plan",
    "Step",
    "bounds",
    "make_plan",
    "relaxed_plan",
    "run_plan",
    "weight_bounds",
]


@dataclass(frozen=True)
class Step:
    """One block as a plan runs it: on which inputs, with which weights and sizes.

    Attributes:
        path: The path of the node.
        block: The block to run.
        weights: The path of the node that owns the weights.
        edges: The inputs that the architecture keeps.
        present: Their positions among all inputs of the node.
        shapes: Shape of each weight under the architecture (at its largest in a relaxed plan).
        sizes: Value of each axis name and field (an expression in a relaxed plan).
        resolve: The number of a dimension in this plan.
        masked: In a relaxed plan, the outputs' axes that need a mask: (output, axis, dimension).
        tables: Which of the weights are tables, read row by row.
        untrained: Which of the weights are not trained, such as running statistics.
        numerics: How the weights are rounded that are not floats, by name.
        act_bits: Of activations that go into matrices.
        cache_bits: Of what is kept for later calls.
    """

    path: str
    block: Block
    weights: str
    edges: tuple[Edge, ...]
    present: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, Any]
    resolve: Callable[[Expr], int]
    masked: tuple[tuple[int, int, Expr], ...] = ()
    tables: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    numerics: Mapping[str, Numerics] = field(default_factory=dict)
    act_bits: int = FLOAT
    cache_bits: int = FLOAT

    @property
    def is_float(self) -> bool:
        """Whether nothing of it is rounded."""
        return not self.numerics and self.act_bits == FLOAT and self.cache_bits == FLOAT


@dataclass(frozen=True)
class Plan:
    """The steps of a model, in an order in which they can run.

    Attributes:
        inputs: Paths of the graph's sources.
        steps: The steps.
        outputs: What the model gives.
        architecture: What closes the choices; None in a relaxed plan.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Edge, ...]
    architecture: Architecture | None = None

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Plan:
        """Itself: nothing of a plan changes, and its dimensions are compared by identity."""
        return self

    def tables(self) -> list[tuple[str, str]]:
        """The tables by (owner, name)."""
        return list(dict.fromkeys((s.weights, name) for s in self.steps for name in s.tables))

    def untrained(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Shape of every weight that is not trained, by (owner, name)."""
        return {(s.weights, name): s.shapes[name] for s in self.steps for name in s.untrained}

    @property
    def is_float(self) -> bool:
        """Whether nothing in the model is rounded."""
        return all(step.is_float for step in self.steps)

    def in_floats(self) -> Plan:
        """The same steps, with nothing rounded."""
        plain = [replace(s, numerics={}, act_bits=FLOAT, cache_bits=FLOAT) for s in self.steps]
        scales = [{n.scale for n in s.numerics.values()} for s in self.steps]
        steps = [
            replace(s, shapes={name: shape for name, shape in s.shapes.items() if name not in unused})
            for s, unused in zip(plain, scales, strict=True)
        ]
        return replace(self, steps=tuple(steps))

    def shapes(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Shape of every weight by (owner, name)."""
        return {(s.weights, name): shape for s in self.steps for name, shape in s.shapes.items()}


class _Fixed:
    """Values of dimensions under one architecture."""

    def __init__(self, space: SearchSpace, architecture: Architecture) -> None:
        columns = space.encode([architecture])
        self._batch = Assignments(space.choices, {p: int(c[0]) for p, c in columns.items()}, {})
        self._known: dict[Expr, int] = {}

    def __call__(self, expr: Expr) -> int:
        if expr.constant is not None:
            return int(expr.constant)
        if expr not in self._known:
            self._known[expr] = int(expr.evaluate(self._batch))
        return self._known[expr]

    def open_sizes(self, sizes: Mapping[str, Expr]) -> dict[str, Any]:
        return {k: self(e) for k, e in sizes.items() if not e.symbols}


def _sizes(node: Node) -> Mapping[str, Expr]:
    """Every size that a block may ask for by name."""
    return {**node.sizes, **node.block.decided()} if isinstance(node.block, Zeros) else node.sizes


def make_plan(space: SearchSpace, architecture: Architecture) -> Plan:
    """The plan of one architecture: live nodes only, every dimension a number."""
    value = _Fixed(space, architecture)
    live = {path: value(gate) for path, gate in space.live.nodes.items()}
    steps = []
    for node in space.graph.nodes:
        if isinstance(node.block, Input) or not live[node.path]:
            continue
        present = tuple(i for i, e in enumerate(node.inputs) if value(e.gate))
        edges = tuple(node.inputs[i] for i in present)
        shapes = {name: tuple(value(d) for d in p.shape) for name, p in node.params.items() if value(p.gate)}
        sizes, tables = value.open_sizes(_sizes(node)), tuple(name for name, p in node.params.items() if p.table)
        step = Step(node.path, node.block, node.weights, edges, present, shapes, sizes, value, tables=tables)
        steps.append(_rounded(replace(step, untrained=_untrained(node, shapes)), node))
    return Plan(tuple(n.path for n in space.graph.inputs), tuple(steps), tuple(space.graph.outputs), architecture)


def _untrained(node: Node, shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """The weights of a step that are not trained."""
    return tuple(name for name in shapes if not node.params[name].trained)


def _rounded(step: Step, node: Node) -> Step:
    """A step with the numerics that its block states."""
    block, value = node.block, step.resolve
    if not isinstance(block, Quantized):
        return step
    numerics = {}
    for name, shape in step.shapes.items():
        param = node.params[name]
        if (bits := value(param.bits)) == FLOAT:
            continue
        scale = name + block.scale_suffix
        stored = scale if scale in step.shapes else None
        numerics[name] = Numerics(bits, value(param.scale_group), param.rows or 1, stored)
        _check_numerics(f"at {step.path}: the weight {name!r}", numerics[name], shape)
    act_bits, cache_bits = value(as_expr(block.act_bits)), value(as_expr(block.cache_bits))
    return replace(step, numerics=numerics, act_bits=act_bits, cache_bits=cache_bits)


def _check_numerics(what: str, numerics: Numerics, shape: tuple[int, ...]) -> None:
    try:
        numerics.scale_shape(shape)
    except SpaceError as error:
        raise SpaceError(f"{what}: {error}") from None


def relaxed_plan(space: SearchSpace) -> Plan:
    """The plan of the whole graph, every dimension at its largest.

    Raises:
        SpaceError: Choices decide the size of an input, such as the resolution of images.
    """
    for node in space.graph.inputs:
        if deciding := sorted(frozenset[str]().union(*(d.paths for d in node.outputs[0].dims))):
            raise SpaceError(
                f"the relaxed model cannot mix inputs of several sizes: the choice {deciding[0]!r} decides the size of "
                f"{node.path!r}. Choose a method that activates one architecture at a time (one_shot, once_for_all), "
                "or give the choice one value"
            )
    bound = bounds(space)
    steps = []
    for node in space.graph.nodes:
        if isinstance(node.block, Input):
            continue
        # An input that is always zero adds nothing to a mixture, unless all inputs are.
        useful = [i for i, e in enumerate(node.inputs) if not isinstance(space.graph.node(e.source).block, Zeros)]
        present = tuple(useful or range(len(node.inputs)))
        shapes = {name: tuple(bound(d) for d in p.shape) for name, p in node.params.items()}
        masked: tuple[tuple[int, int, Expr], ...] = ()
        if not node.block.passes_masks:
            masked = tuple(
                (index, axis, d)
                for index, output in enumerate(node.outputs)
                for axis, d in enumerate(output.dims)
                if d.paths and not d.symbols
            )
        edges = tuple(node.inputs[i] for i in present)
        step = Step(node.path, node.block, node.weights, edges, present, shapes, _sizes(node), bound, masked)
        steps.append(replace(step, untrained=_untrained(node, shapes)))
    return Plan(tuple(n.path for n in space.graph.inputs), tuple(steps), tuple(space.graph.outputs))


def bounds(space: SearchSpace) -> Callable[[Expr], int]:
    """The largest value of a dimension in a space."""
    rules = [r.condition for r in space.graph.rules]
    known: dict[Expr, int] = {}

    def bound(expr: Expr) -> int:
        if expr not in known:
            known[expr] = upper_bound(expr, space.choices, rules)
        return known[expr]

    return bound


def weight_bounds(space: SearchSpace) -> dict[tuple[str, str], tuple[int, ...]]:
    """The shape in which a supernet holds each weight, by (owner, name)."""
    bound = bounds(space)
    return {
        (n.weights, name): tuple(bound(d) for d in p.shape) for n in space.graph.nodes for name, p in n.params.items()
    }


def run_plan(
    plan: Plan,
    inputs: Sequence[torch.Tensor],
    params: Callable[[Step], Any],
    mix: Callable[[Edge, torch.Tensor], torch.Tensor] | None = None,
    after: Callable[[Step, Any, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]] | None = None,
    call: Callable[[Step, Any, Sequence[torch.Tensor]], Any] | None = None,
    recompute: bool = False,
) -> Any:
    """Run the steps of a plan.

    Args:
        plan: The plan.
        inputs: One tensor for each of the plan's inputs.
        params: Weights of a step.
        mix: In a relaxed model, weighs an input by its edge's gate.
        after: In a relaxed model, masks the outputs of a step.
        call: In a deployed program, runs a step's block.
        recompute: Whether the activations of a layer are computed again in the backward pass, instead of kept.

    Returns:
        The output, or a tuple where there are several.
    """
    if len(inputs) != len(plan.inputs):
        raise SpaceError(f"the model takes {len(plan.inputs)} inputs ({', '.join(plan.inputs)}), not {len(inputs)}")
    values: dict[str, tuple[torch.Tensor, ...]] = {path: (x,) for path, x in zip(plan.inputs, inputs, strict=True)}
    lasts = list(_last_uses(plan))

    def run(numbers: range, values: dict[str, tuple[torch.Tensor, ...]]) -> None:
        for i in numbers:
            step = plan.steps[i]
            given = [values[e.source][e.index] for e in step.edges]
            if mix is not None:
                given = [mix(e, x) for e, x in zip(step.edges, given, strict=True)]
            p = params(step)
            result = step.block.run(p, *given) if call is None else call(step, p, given)
            outputs = result if isinstance(result, tuple) else (result,)
            values[step.path] = outputs if after is None else after(step, p, outputs)
            for path in lasts[i]:  # without this, all activations of an inference would stay in memory until its end
                del values[path]

    if recompute and torch.is_grad_enabled():
        run_recomputed(plan, values, run)
    else:
        run(range(len(plan.steps)), values)
    outputs = tuple(values[e.source][e.index] for e in plan.outputs)
    return outputs if len(outputs) != 1 else outputs[0]


def _last_uses(plan: Plan) -> Iterator[tuple[str, ...]]:
    """For each step, the values that nobody needs after it."""
    last = {e.source: i for i, s in enumerate(plan.steps) for e in s.edges}
    kept = {e.source for e in plan.outputs}
    by_step: dict[int, list[str]] = {}
    for path, i in last.items():
        if path not in kept:
            by_step.setdefault(i, []).append(path)
    return (tuple(by_step.get(i, ())) for i in range(len(plan.steps)))
