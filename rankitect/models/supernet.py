"""Standalone models and supernets: one set of weights, of which any architecture is a prefix along every axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import nn

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Packing, Param, SearchSpace
from rankitect.graph.cost import FLOAT_BYTES
from rankitect.graph.facts import STARTS
from rankitect.models.copying import Piece, copied
from rankitect.models.identities import Listen, check_shared
from rankitect.models.memory import check_memory
from rankitect.models.numerics import RoundedWeights
from rankitect.models.plan import Plan, Step, make_plan, run_plan, weight_bounds
from rankitect.models.weights import (
    EVALUATION,
    ParameterHolder,
    SlicedParams,
    WeightTree,
    cut,
    find_owner,
    start_scales,
    weight_of,
)

__all__ = ["ActiveSubnet", "PlannedModel", "Standalone", "Supernet", "build", "device_of"]

Key = tuple[str, str]


def _parameters(space: SearchSpace) -> dict[Key, Param]:
    return {(n.weights, name): p for n in space.graph.nodes for name, p in n.params.items()}


def _initialise(tensor: torch.Tensor, param: Param, summed: int, generator: torch.Generator) -> None:
    if param.init == "ones":
        tensor.fill_(1.0)
    elif param.init == "zeros":
        tensor.zero_()
    elif param.init in ("normal", "fan_in"):
        tensor.normal_(0.0, 0.02 if param.init == "normal" else max(1, summed) ** -0.5, generator=generator)
    else:
        raise SpaceError(f"unknown start {param.init!r} of a weight; allowed: {', '.join(STARTS)}")


def _start(space: SearchSpace, shapes: Mapping[Key, tuple[int, ...]], seed: int) -> dict[Key, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    params = _parameters(space)
    # Tables are listed one by one in the refusal: they are what does not fit, and what a user can make smaller.
    tables = {".".join(k): math.prod(shape) * FLOAT_BYTES for k, shape in shapes.items() if params[k].table}
    rest = sum(math.prod(shape) * FLOAT_BYTES for k, shape in shapes.items() if not params[k].table)
    check_memory({**tables, "the other weights": rest}, f"The model of space {space.name!r}")
    fans = {key: math.prod(shape[a] for a in params[key].inputs) for key, shape in shapes.items()}
    joint: dict[str, int] = {}  # by owner: the inputs of all weights whose products are summed
    for key, fan in fans.items():
        if (beside := params[key].joint) is not None:
            joint[key[0]] = joint.get(key[0], beside) + fan
    tensors = {}
    for key, shape in shapes.items():
        tensors[key] = torch.empty(shape)
        _initialise(tensors[key], params[key], fans[key] if params[key].joint is None else joint[key[0]], generator)
    return tensors


class PlannedModel(nn.Module):
    """Runs a plan on the weights of a tree.

    Attributes:
        recompute: Whether a layer's activations are computed again in the backward pass.
        mode: What an evaluation does with the weights that are not trained (`rankitect.models.statistics` sets it).
    """

    recompute = False

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.mode = plan, EVALUATION
        self._rounded = RoundedWeights()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what an evaluation has rounded is freed."""
        self._rounded.clear()
        return super().train(mode)

    @property
    def tree(self) -> nn.Module:
        """What holds the weights."""
        return self

    def packed(self, ids: torch.Tensor, packing: Packing) -> torch.Tensor:
        """The logits of the next tokens for sequences that share their beginnings (`rankitect.models.packed`).

        Args:
            ids: Rows of tokens [B, T] int64.
            packing: What each token follows.

        Returns:
            [1, N, V] for the N rows that `packing.last` takes.
        """

        def turn(step: Step, p: Any, given: Sequence[torch.Tensor]) -> Any:
            return step.block.packed(p, packing, *given)

        logits: torch.Tensor = self._run((ids,), turn)
        return logits

    def _run(self, inputs: tuple[torch.Tensor, ...], call: Callable[..., Any] | None = None) -> Any:
        tree = self.tree
        owners = {s.weights: find_owner(tree, s.weights) for s in self.plan.steps if s.shapes}
        rounded = None if torch.is_grad_enabled() else self._rounded
        if rounded is None:  # training changes the weights: what an evaluation rounded is of no more use
            self._rounded.clear()

        mode = replace(self.mode, training=True) if self.training else self.mode

        def params(step: Step) -> SlicedParams:
            return SlicedParams(step, owners.get(step.weights, tree), rounded, mode)

        return run_plan(self.plan, inputs, params, call=call, recompute=self.recompute)


class Standalone(PlannedModel):
    """One architecture as a module of its own: it holds just what it uses, under names such as `layers.3.mlp.gate`."""

    def __init__(self, plan: Plan, tensors: Mapping[Key, torch.Tensor]) -> None:
        super().__init__(plan)
        tree = WeightTree(tensors, plan.untrained())
        for name, module in tree.named_children():
            self._modules[name] = module  # any name: `add_module` refuses "type", "half" and the like

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The model's outputs, for one tensor an input of the graph. Numbers are brought to the weights' precision."""
        weight = next(self.parameters(), None)
        if weight is not None:
            inputs = tuple(x.to(weight.dtype) if x.is_floating_point() else x for x in inputs)
        return self._run(inputs)

    def in_floats(self) -> Standalone:
        """A model of the same tensors in which nothing is rounded, in the same mode."""
        plan = self.plan.in_floats()
        plain = Standalone(plan, {(o, n): weight_of(self.owner(o), n).detach() for o, n in plan.shapes()})
        return plain.train(self.training)

    def owner(self, path: str) -> ParameterHolder:
        """The module that holds the weights of `path`, for example `layers.3.mlp`."""
        return find_owner(self, path)

    def lookup_tables(self) -> dict[str, tuple[ParameterHolder, str]]:
        """Who holds each table (a weight that is read row by row), and under which name; by parameter name."""
        return {f"{owner}.{name}": (self.owner(owner), name) for owner, name in self.plan.tables()}


class ActiveSubnet(PlannedModel):
    """A view of a supernet as one architecture, in the supernet's mode. Holds no weights: any number can be used in
    turns.

    Gradients go to the supernet's weights, and so do statistics, unless it was given some of its own (`mode`).
    """

    def __init__(self, plan: Plan, supernet: Supernet) -> None:
        super().__init__(plan)
        self._supernet = [supernet]  # in a list, so that the weights are not registered twice
        self.recompute, self.training = supernet.recompute, supernet.training

    @property
    def tree(self) -> nn.Module:
        """The supernet's weights."""
        return self._supernet[0].weights

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The architecture's outputs."""
        return self._run(inputs)


class Supernet(nn.Module):
    """The weights of a whole space, each at its largest shape.

    Args:
        space: The space.
        seed: Of the weights' start.
        tensors: Weights to use instead, by (owner, name); every weight must be there in its largest shape.

    Raises:
        SpaceError: A given weight is missing, unknown or of another shape, all do not fit into memory, a block of the
            user's does not keep what every block must, or the space stores scales of weights.

    Attributes:
        recompute: Whether its models compute a layer's activations again in the backward pass.
    """

    recompute = False

    def __init__(self, space: SearchSpace, seed: int = 0, tensors: Mapping[Key, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.space = space
        shapes = weight_bounds(space)
        if any(param.scales_of for param in _parameters(space).values()):
            raise SpaceError(f"space {space.name!r} stores scales of weights, which belong to one architecture")
        if tensors is not None:
            _check(tensors, shapes)
        untrained = {key for key, param in _parameters(space).items() if not param.trained}
        self.weights = WeightTree(tensors if tensors is not None else _start(space, shapes, seed), untrained)
        self._plans: dict[Architecture, Plan] = {}
        if self.checkable:
            check_shared(space, self.trace)

    @property
    def checkable(self) -> bool:
        """Whether blocks can be tried on its weights: in float32, on the processor, where they are."""
        return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in self.weights.parameters())

    def trace(self, architecture: Architecture, inputs: Sequence[torch.Tensor], listen: Listen) -> None:
        """Run an architecture, and tell every step before it runs and after it has."""
        plan = self.plan(architecture)
        owners = {s.weights: self.weights.owner(s.weights) for s in plan.steps if s.shapes}

        def params(step: Step) -> SlicedParams:
            listen(step, None)
            return SlicedParams(step, owners.get(step.weights, self.weights))

        def after(step: Step, p: Any, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            listen(step, outputs)
            return outputs

        run_plan(plan, inputs, params, after=after)

    def copy(self) -> Supernet:
        """A supernet with weights of its own and the same refits.

        On the processor, a weight takes memory of its own when either of the two first writes to it.
        """
        owner_of = self.weights.owner
        tensors = {(o, n): _apart(weight_of(owner_of(o), n).detach()) for o, n in weight_bounds(self.space)}
        copy = Supernet(self.space, tensors=tensors)
        for owner, _ in tensors:
            copy.weights.owner(owner).variants = self.weights.owner(owner).variants
        return copy

    def lookup_tables(self) -> dict[str, tuple[ParameterHolder, str]]:
        """Who holds each table (a weight that is read row by row), and under which name; by parameter name."""
        tables = [key for key, param in _parameters(self.space).items() if param.table]
        return {f"weights.{owner}.{name}": (self.weights.owner(owner), name) for owner, name in tables}

    def plan(self, architecture: Architecture) -> Plan:
        """The steps of an architecture (the last few are kept)."""
        if architecture not in self._plans:
            if len(self._plans) >= 64:
                self._plans.pop(next(iter(self._plans)))
            self._plans[architecture] = make_plan(self.space, self.space.validate(architecture))
        return self._plans[architecture]

    def activate(self, architecture: Architecture) -> ActiveSubnet:
        """The architecture as a view of these weights: slices, nothing copied."""
        return ActiveSubnet(self.plan(architecture), self)

    def extract(self, architecture: Architecture) -> Standalone:
        """The architecture as a model of its own, with copies of the weights that `activate` uses."""
        plan = self.plan(architecture)
        shapes = plan.shapes()
        return Standalone(
            plan, copied({key: partial(self._piece, *key, shape) for key, shape in shapes.items()}, shapes)
        )

    def _piece(self, owner: str, name: str, shape: tuple[int, ...]) -> Piece:
        module = self.weights.owner(owner)
        return cut(weight_of(module, name).detach(), shape, module.variants.get(name))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """A supernet has no one forward.

        Raises:
            SpaceError: Always: says what to call.
        """
        raise SpaceError("a supernet runs one architecture at a time: supernet.activate(architecture)(...)")


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, whose values are copied when they first change, where torch can do that."""
    return tensor._lazy_clone() if tensor.device.type == "cpu" else tensor.clone()


def _check(tensors: Mapping[Key, torch.Tensor], shapes: Mapping[Key, tuple[int, ...]]) -> None:
    def listed(keys: Iterable[Key]) -> str:
        return ", ".join(".".join(k) for k in sorted(keys)[:5])

    if missing := shapes.keys() - tensors.keys():
        raise SpaceError(f"{len(missing)} weights are missing: {listed(missing)}")
    if unknown := tensors.keys() - shapes.keys():
        raise SpaceError(f"{len(unknown)} weights are unknown to the space: {listed(unknown)}")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise SpaceError(f"weight {'.'.join(key)} is {list(tensors[key].shape)}, not {list(shape)}")


def device_of(model: nn.Module, other: torch.device | str = "cpu") -> torch.device:
    """Where a model's weights are, or those of the supernet that it is a part of; `other` where it has none."""
    held = model.tree if isinstance(model, PlannedModel) else model
    tensor = next(chain[torch.Tensor](held.parameters(), held.buffers()), None)
    return torch.device(other) if tensor is None else tensor.device


def build(space: SearchSpace, architecture: Architecture, seed: int = 0) -> Standalone:
    """An architecture as a freshly initialised model of its own.

    >>> from rankitect.search_spaces.mobile_llm import mobile_llm, point
    >>> space = mobile_llm()
    >>> model = build(space, point(space, "mobilellm-125m"))  # doctest: +SKIP
    """
    plan = make_plan(space, space.validate(architecture))
    tensors = _start(space, plan.shapes(), seed)
    start_scales(plan, tensors)
    return Standalone(plan, tensors)
