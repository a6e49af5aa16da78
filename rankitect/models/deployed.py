"""A model as the calls of a deployed program: the prefill of a prompt, and the decode of one token with a cache.

Both are the same plan as the standalone model's, run by `Block.deploy` instead of `Block.run`. Caches are inputs that
are only read, and what is to be added to them are outputs: nothing is copied, and any runtime can hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.errors import DeployError, SpaceError
from rankitect.graph.quantized import FLOAT
from rankitect.models.deployed_weights import (
    QuantizedMatrix,
    QuantizedTable,
    cache_trouble,
    matrix_trouble,
    table_trouble,
)
from rankitect.models.numerics import Numerics, fake_weight
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.weights import SlicedParams, WeightTree, find_owner, start_scales, take
from rankitect.space.repeats import LAYERS

__all__ = ["Cache", "DeployedCall", "Segment", "segments"]


@dataclass(frozen=True)
class Cache:
    """One cached tensor of a block.

    Attributes:
        path: The block.
        shape: Its shape; slots of tokens on the axis `slots`.
        slots: The axis of the slots.
        window: How many tokens back are seen, the present one included; None for all.
    """

    path: str
    shape: tuple[int, ...]
    slots: int
    window: int | None


class DeployedCall(nn.Module):
    """The forward of one call, to be exported.

    Inputs: the plan's (ids [1, T] for a whole model); then, in a prefill, `last` [1, T], one where the next token is
    predicted from and zero elsewhere; in a decode, the position, int64 [1], a mask [slots] for each different window,
    and the cached tensors. Outputs: the plan's, then what is to be cached.

    Args:
        plan: The steps.
        weights: Holds the weights under the plan's names.
        tokens: Tokens of the prompt, or 1 in a decode.
        capacity: Tokens that the longest sequence holds.
        decode: Which call.
        example: Inputs of the plan, for shapes.

    Raises:
        SpaceError: A decode leaves no room for a token before.
    """

    def __init__(
        self, plan: Plan, weights: nn.Module, capacity: int, decode: bool, example: Sequence[torch.Tensor]
    ) -> None:
        super().__init__()
        if capacity < 2:
            raise SpaceError(f"a sequence of {capacity} tokens leaves nothing to decode: at least 2")
        self.plan, self.capacity, self.decode = plan, capacity, decode
        self._weights = [weights]  # in a list: only what the call uses is registered, in the form in which it is used
        self._keys: dict[Hashable, str] = {}
        self.matrices, self.lookups = nn.ModuleDict(), nn.ModuleDict()
        self.caches: list[Cache] = []
        self.masks: list[int | None] = []
        self._example = tuple(example)
        self._uses_last = False
        self._probe()

    def _probe(self) -> None:
        """Run once on zeros, to learn which constants and caches the blocks ask for."""
        probe = _Running(self, self._example, probing=True)
        with torch.no_grad():
            self._run(probe, self._example)
        self.caches, self._uses_last = probe.caches, probe.uses_last
        self.masks = list(dict.fromkeys(c.window for c in self.caches)) if self.decode else []

    @property
    def tokens(self) -> int:
        """How many tokens one call computes."""
        return self._example[0].shape[1]

    def slots(self, window: int | None) -> int:
        """Slots of a cache for tokens before the present one."""
        return self.capacity - 1 if window is None else min(self.capacity, window) - 1

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the right shapes: a full cache, and the last token of the prompt."""
        if not self.decode:
            return (*self._example, torch.eye(self.tokens)[-1:]) if self._uses_last else self._example
        masks = [torch.zeros(self.slots(w)) for w in self.masks]
        generator = torch.Generator().manual_seed(0)
        past = [torch.randn(self.past_shape(c), generator=generator) for c in self.caches]
        return (*self._example, torch.tensor([self.capacity - 1]), *masks, *past)

    def past_shape(self, cache: Cache) -> tuple[int, ...]:
        """Shape of a cached tensor as an input."""
        return tuple(self.slots(cache.window) if i == cache.slots else n for i, n in enumerate(cache.shape))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one call. Inputs and outputs are described at the class."""
        call = _Running(self, inputs)
        outputs = self._run(call, inputs[: len(self.plan.inputs)])
        return (*(outputs if isinstance(outputs, tuple) else (outputs,)), *call.fresh)

    def _run(self, call: _Running, inputs: Sequence[torch.Tensor]) -> Any:
        def turn(step: Step, p: Any, given: Sequence[torch.Tensor]) -> Any:
            call.path = step.path
            return step.block.deploy(p, call, *given)

        return run_plan(self.plan, inputs, lambda s: _DeployedParams(s, self), call=turn)

    def constant(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A registered tensor, made at its first use."""
        if key not in self._keys:
            self._keys[key] = name = f"constant{len(self._keys)}"
            self.register_buffer(name, make().detach().contiguous())
        return self.get_buffer(self._keys[key])

    def weight(self, step: Step, name: str) -> torch.Tensor:
        """A weight as it is held, under the step's sizes."""
        weight = getattr(find_owner(self._weights[0], step.weights), name)
        return take(weight, step.shapes[name])

    def matrix(self, step: Step, name: str, outputs: int, bias: str | None = None) -> nn.Module:
        """A weight as a matrix in its own bits; the first `outputs` axes are its rows."""
        key = _module_key(step, name) + ("" if bias is None else "_biased")
        if key not in self.matrices:
            numerics = step.numerics.get(name)
            if (trouble := matrix_trouble(*_bits(numerics), step.act_bits)) is not None:
                raise DeployError(f"{step.path}, weight {name!r}, cannot be exported: {trouble}.")
            weight = self.weight(step, name).detach()
            added = None if bias is None else self.weight(step, bias).detach().flatten()
            self.matrices[key] = (
                _matrix(weight.flatten(outputs).flatten(0, outputs - 1), added)
                if numerics is None
                else QuantizedMatrix(weight, numerics, self._scale(step, numerics), added)
            )
        return self.matrices[key]

    def table(self, step: Step, name: str) -> nn.Module:
        """A weight as a table in its own bits, whose rows are looked up."""
        key = _module_key(step, name)
        if key not in self.lookups:
            weight, numerics = self.weight(step, name).detach(), step.numerics.get(name)
            if (trouble := table_trouble(_bits(numerics)[0])) is not None:
                raise DeployError(f"{step.path}, weight {name!r}, cannot be exported: {trouble}.")
            self.lookups[key] = (
                nn.Embedding.from_pretrained(weight)
                if numerics is None
                else QuantizedTable(weight, numerics, self._scale(step, numerics))
            )
        return self.lookups[key]

    def _scale(self, step: Step, numerics: Numerics) -> torch.Tensor | None:
        """The stored scales of a weight; None where they follow from it."""
        return None if numerics.scale is None else self.weight(step, numerics.scale).detach()


def _module_key(step: Step, name: str) -> str:
    """What a weight is registered as; one that two blocks have in different bits is held twice."""
    bits = "".join(f"_{n}" for n in _bits(step.numerics.get(name))) if name in step.numerics else ""
    return f"{step.weights}.{name}".replace(".", "_") + bits


def _bits(numerics: Numerics | None) -> tuple[int, int]:
    return (FLOAT, 0) if numerics is None else (numerics.bits, numerics.group)


def _matrix(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer with a weight [outputs, inputs] that is not copied."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


class _DeployedParams(SlicedParams):
    """Weights of one step, each registered in the form in which it is used."""

    __slots__ = ("_program",)

    def __init__(self, step: Step, program: DeployedCall) -> None:
        super().__init__(step, program)
        self._program = program

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):  # as in `SlicedParams`
            raise AttributeError(name)
        step, program = self._step, self._program
        if name not in step.numerics:
            return program.constant((step.weights, name), lambda: program.weight(step, name))
        numerics = step.numerics[name]
        scale = None if numerics.scale is None else program.weight(step, numerics.scale)
        rounded = partial(fake_weight, program.weight(step, name), numerics, scale)
        return program.constant((step.weights, name, numerics), rounded)

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """The weight as a matrix, whatever form it is held in."""
        shape = self._step.shapes[name]
        if x.shape[-1] < shape[-1]:
            x = F.pad(x, (0, shape[-1] - x.shape[-1]))
        result: torch.Tensor = self._program.matrix(self._step, name, len(shape) - 1, bias)(x)
        return result

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight as a matrix, whatever form it is held in."""
        result: torch.Tensor = self._program.matrix(self._step, name, 1)(h.flatten(-len(dims)))
        return result

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it."""
        if (trouble := cache_trouble(self._step.cache_bits)) is not None:
            raise DeployError(f"{self._step.path} cannot be exported: {trouble}.")
        return x

    def lookup(self, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a table, whatever form it is held in."""
        if bags is not None:
            raise SpaceError(f"{self._step.path}: tables with bags stay outside of deployed programs")
        rows_of_table: torch.Tensor = self._program.table(self._step, name)(rows)
        return rows_of_table


class _Running:
    """The `Call` of one forward."""

    def __init__(self, program: DeployedCall, inputs: Sequence[torch.Tensor], probing: bool = False) -> None:
        self._program, self._probing = program, probing
        self._rest = list(inputs[len(program.plan.inputs) :])
        self._next = 0
        self.path = ""
        self.fresh: list[torch.Tensor] = []
        self.caches: list[Cache] = []
        self.uses_last = False

    @property
    def decode(self) -> bool:
        return self._program.decode

    @property
    def capacity(self) -> int:
        return self._program.capacity

    @property
    def position(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int64) if self._probing else self._rest[0]

    def constant(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return self._program.constant(key, make)

    def past(self, window: int | None, *shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        slots = self._program.slots(window)
        if self._probing:
            self.caches += [Cache(self.path, tuple(s), s.index(-1), window) for s in shapes]
            return (*(torch.zeros([slots if n < 0 else n for n in s]) for s in shapes), torch.zeros(slots))
        masks = self._program.masks
        at = 1 + len(masks) + self._next
        self._next += len(shapes)
        return (*self._rest[at : at + len(shapes)], self._rest[1 + masks.index(window)])

    def keep(self, *fresh: torch.Tensor) -> None:
        self.fresh += fresh

    def last(self, x: torch.Tensor) -> torch.Tensor:
        self.uses_last = True
        if self.decode or self._probing:
            return x[:, -1:]
        return torch.bmm(self._rest[0].view(1, 1, -1), x)


@dataclass(frozen=True)
class Segment:
    """A part of a model that is measured alone: what stands before the first layer, one layer, what follows.

    Attributes:
        name: "layers.3"; "" for the rest of the model, before and after the layers.
        plan: Its steps, as a plan of their own.
    """

    name: str
    plan: Plan


def segments(plan: Plan, scope: str = LAYERS) -> list[Segment]:
    """A model cut at its repeated scope.

    A layer without weights (one that is left out) is no segment. Weightless steps that read the model's inputs alone
    (positions) are part of every segment that needs them.

    Args:
        plan: A model with one stream of hidden states through its layers.
        scope: The scope of the repeats.

    Raises:
        SpaceError: A layer has no single input and output.
    """
    by_name: dict[str, list[Step]] = {}
    for step in plan.steps:
        parts = step.path.split(".")
        by_name.setdefault(".".join(parts[:2]) if parts[0] == scope else "", []).append(step)
    # Steps such as the positions are cheap and have no weights: a part that needs them computes them itself.
    rest = by_name.pop("", [])
    free = {s.path: s for s in rest if not s.shapes and all(e.source in plan.inputs for e in s.edges)}
    inner = [_layer(name, s, free, plan) for name, s in by_name.items() if any(step.shapes for step in s)]
    ends = _rest(rest, by_name, plan)
    return [*inner, Segment("", ends)]


def _layer(name: str, steps: Sequence[Step], free: Mapping[str, Step], plan: Plan) -> Segment:
    inside = {s.path for s in steps}
    sources = list(dict.fromkeys(e.source for s in steps for e in s.edges if e.source not in inside))
    shared = [free[path] for path in sources if path in free]
    streams = [path for path in sources if path not in free]
    used = {e.source for s in plan.steps if s.path not in inside for e in s.edges} | {e.source for e in plan.outputs}
    outputs = [s.path for s in steps if s.path in used]
    if len(streams) != 1 or len(outputs) != 1:
        raise SpaceError(
            f"{name} has {len(streams)} inputs and {len(outputs)} outputs: only a single stream can be cut"
        )
    needed = list(dict.fromkeys([*streams, *(e.source for s in shared for e in s.edges)]))
    edge = replace(steps[0].edges[0], source=outputs[0], index=0)
    return Segment(name, Plan(tuple(needed), (*shared, *steps), (edge,)))


def _rest(steps: Sequence[Step], layers: Mapping[str, Sequence[Step]], plan: Plan) -> Plan:
    """The steps outside the layers, joined as though there were no layers."""
    inside = {s.path for layer in layers.values() for s in layer}
    before = [s.path for s in steps if not any(e.source in inside for e in s.edges)]
    streams = {e.source for layer in layers.values() for s in layer for e in s.edges} & set(before)
    entry = [path for path in streams if any(s.path == path and s.shapes for s in steps)]
    joined = []
    for s in steps:
        edges = tuple(replace(e, source=entry[0], index=0) if e.source in inside else e for e in s.edges)
        joined.append(replace(s, edges=edges))
    used = {e.source for s in joined for e in s.edges} | {e.source for e in plan.outputs}
    return Plan(plan.inputs, tuple(s for s in joined if s.path in used), plan.outputs)


def random_weights(plan: Plan, seed: int = 0) -> WeightTree:
    """Weights of the right shapes for measuring time, which values do not change."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {k: torch.randn(shape, generator=generator) * 0.02 for k, shape in plan.shapes().items()}
    tensors |= {k: torch.ones(shape) for k, shape in plan.untrained().items()}  # variances are positive
    start_scales(plan, tensors)
    return WeightTree(tensors, plan.untrained())
