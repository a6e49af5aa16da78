"""From a graph to steps that a model runs: which blocks, on what, with which weights and sizes.

Standalone models, supernets and relaxed supernets differ only in where a step's weights come from and whether its
inputs are weighed; the walk over the steps (`run_plan`) and the way a weight is cut to size (`take`) exist once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Block, Edge, Expr, Node, SearchSpace
from rankitect.graph.block import Input, Zeros
from rankitect.models.recompute import run_recomputed
from rankitect.space.tables import Assignments, upper_bound

__all__ = [
    "LinearReading",
    "ParameterHolder",
    "Plan",
    "RowStore",
    "SlicedParams",
    "Step",
    "Variants",
    "WeightTree",
    "bounds",
    "cut",
    "find_owner",
    "looked_up",
    "make_plan",
    "relaxed_plan",
    "run_plan",
    "take",
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
        steps.append(Step(node.path, node.block, node.weights, edges, present, shapes, sizes, value, tables=tables))
    return Plan(tuple(n.path for n in space.graph.inputs), tuple(steps), tuple(space.graph.outputs), architecture)


def relaxed_plan(space: SearchSpace) -> Plan:
    """The plan of the whole graph, every dimension at its largest."""
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
        steps.append(Step(node.path, node.block, node.weights, edges, present, shapes, _sizes(node), bound, masked))
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


class Variants(Protocol):
    """How a weight changes with the prefix that is taken of it (see `backbone`): refits of pruned units."""

    def change(self, shape: Sequence[int]) -> torch.Tensor | None:
        """What to add to the prefix of this shape; None for nothing."""

    def mixed(self, weight: Callable[[Expr], torch.Tensor], dims: Sequence[Expr | None]) -> torch.Tensor:
        """The expected change, [outputs, units...] at its largest, given the probabilities of joint sizes."""


def cut(
    weight: torch.Tensor, shape: Sequence[int], variants: Variants | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The prefix of a weight along every axis, and what to add to it: the one way to get a part of another's weights.

    The prefix is a view; the weight itself where nothing is cut. With `variants`, there may be something to add.

    Raises:
        SpaceError: The weight is smaller than the prefix.
    """
    if tuple(weight.shape) == tuple(shape):
        return weight, None
    if weight.dim() != len(shape) or any(n > m for n, m in zip(shape, weight.shape, strict=True)):
        raise SpaceError(f"a weight of shape {list(weight.shape)} has no prefix of shape {list(shape)}")
    part = weight[tuple(slice(n) for n in shape)]
    return part, variants.change(shape) if variants is not None else None


def take(weight: torch.Tensor, shape: Sequence[int], variants: Variants | None = None) -> torch.Tensor:
    """What `cut` gives as one tensor: a view, unless there is something to add.

    Raises:
        SpaceError: The weight is smaller than the prefix.
    """
    part, change = cut(weight, shape, variants)
    return part if change is None else part + change


class RowStore(Protocol):
    """Who holds a table in place of the model (see `rankitect.training.embeddings`)."""

    def __call__(self, rows: torch.Tensor, bags: torch.Tensor | None) -> torch.Tensor:
        """What `Params.lookup` gives, at the table's whole width."""


def looked_up(
    owner: nn.Module, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None, width: int | None = None
) -> torch.Tensor:
    """Rows of a table, cut to `width` after they were looked up: a table is never sliced, as it may be large.

    Args:
        owner: The module that holds the table, or whose `stores` do.
        name: The table.
        rows: Row numbers.
        bags: Starts of bags; see `Params.lookup`.
        width: Columns to keep; None for all.
    """
    store = owner.stores.get(name) if isinstance(owner, ParameterHolder) else None
    if store is not None:
        vectors = store(rows, bags)
    elif bags is None:
        vectors = F.embedding(rows, getattr(owner, name))
    else:
        vectors = F.embedding_bag(rows, getattr(owner, name), bags, mode="sum")
    return vectors if width is None or vectors.shape[-1] == width else vectors[..., :width]


class LinearReading:
    """`Params.linear` for whoever has the weights as attributes."""

    __slots__ = ()

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis."""
        weight: torch.Tensor = getattr(self, name).flatten(0, -2)
        if x.shape[-1] < weight.shape[-1]:
            weight = weight[:, : x.shape[-1]]
        # The bias goes into the product: a pass of its own would cost as much as a small product.
        return F.linear(x, weight, None if bias is None else getattr(self, bias).flatten())


class SlicedParams(LinearReading):
    """Weights and sizes of one step under one architecture (the `Params` that blocks see)."""

    __slots__ = ("_step", "_tensors", "present")

    def __init__(self, step: Step, tensors: nn.Module) -> None:
        self._step = step
        self._tensors = tensors
        self.present = step.present

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):  # asked for by torch.compile and copy before there are weights
            raise AttributeError(name)
        variants = self._tensors.variants.get(name) if isinstance(self._tensors, ParameterHolder) else None
        return take(getattr(self._tensors, name), self._step.shapes[name], variants)

    def lookup(self, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a table, of the active width."""
        return looked_up(self._tensors, name, rows, bags, self._step.shapes[name][-1])

    def mask(self, name: str) -> None:
        """Nothing: an axis has just what is kept."""
        return

    def size(self, name: str) -> int:
        """The value of an axis name or field."""
        if name not in self._step.sizes:
            raise SpaceError(f"at {self._step.path}: {name!r} is no size that the architecture decides: ask a tensor")
        value: int = self._step.sizes[name]
        return value

    def sizes(self, dims: tuple[Expr | str, ...]) -> list[int]:
        """The values of dimensions."""
        return [self._step.sizes[d] if isinstance(d, str) else self._step.resolve(d) for d in dims]

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight applied to hidden units; what is left out is not computed."""
        return F.linear(h.flatten(-len(dims)), getattr(self, name).flatten(1))


class ParameterHolder(nn.Module):
    """Weights of one node, how they change with their size, and who holds the tables among them."""

    def __init__(self) -> None:
        super().__init__()
        self.variants: dict[str, Variants] = {}
        self.stores: dict[str, RowStore] = {}


class WeightTree(nn.Module):
    """Weights under readable names: `layers.3.mlp` and `gate` become the parameter `layers.3.mlp.gate`."""

    def __init__(self, tensors: Mapping[tuple[str, str], torch.Tensor]) -> None:
        super().__init__()
        for (owner, name), tensor in tensors.items():
            self.owner(owner, create=True).register_parameter(name, nn.Parameter(tensor))

    def owner(self, path: str, create: bool = False) -> ParameterHolder:
        """The module that holds the weights of `path`."""
        return find_owner(self, path, create)


def find_owner(root: nn.Module, path: str, create: bool = False) -> ParameterHolder:
    """The module below `root` that holds the weights of `path`."""
    module: nn.Module | None = root
    for part in path.split("."):
        assert module is not None
        if part not in module._modules and create:
            module._modules[part] = ParameterHolder()  # `add_module` refuses names such as "type", which Module has
        module = module._modules[part]
    assert isinstance(module, ParameterHolder)
    return module


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
