"""The parts of a model that are timed alone: each distinct layer once, and what stands around the layers.

A model's latency is composed of its parts': a search meets thousands of architectures, and few different layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import torch

from rankitect.graph import Expr
from rankitect.graph.quantized import FLOAT
from rankitect.graph.stored import FLOAT_BYTES, stored_bytes
from rankitect.models.deployed import DeployedCall, Segment, random_weights, segments
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.weights import SlicedParams, WeightTree, find_owner
from rankitect.space.repeats import LAYERS

__all__ = ["Part", "Workload", "parts_of", "reference_part"]


@dataclass(frozen=True)
class Workload:
    """A kind of call that is timed.

    Attributes:
        mode: "prefill" reads a whole prompt; "decode" computes the last token of a context whose others are cached.
        tokens: The length of the prompt or of the context, in tokens.
    """

    mode: Literal["prefill", "decode"]
    tokens: int

    @property
    def called(self) -> int:
        """How many tokens one call computes."""
        return self.tokens if self.mode == "prefill" else 1

    def __str__(self) -> str:
        return f"{self.mode} {self.tokens}"


@dataclass(frozen=True)
class Part:
    """One part under one workload.

    Attributes:
        name: The layer's scope ("layers.3"), or "" for what stands around the layers. For people.
        plan: The steps of this part.
        workload: What is timed.
        inputs: Shapes of the plan's inputs.
        key: Equal for parts that are the same program.
    """

    name: str
    plan: Plan
    workload: Workload
    inputs: tuple[tuple[int, ...], ...]
    key: str

    def program(self) -> DeployedCall:
        """The call to lower, with random weights: values do not change the time."""
        generator = torch.Generator().manual_seed(0)
        example = [
            torch.zeros(shape, dtype=torch.int64) if len(shape) == 2 else torch.randn(shape, generator=generator)
            for shape in self.inputs
        ]
        weights = random_weights(self.plan)
        return DeployedCall(self.plan, weights, self.workload.tokens, self.workload.mode == "decode", example)

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, each in its own bits."""
        scales = {(s.weights, n.scale) for s in self.plan.steps for n in s.numerics.values()}
        stored = {}
        for step in self.plan.steps:
            for name, shape in step.shapes.items():
                n = step.numerics.get(name)
                size = FLOAT_BYTES * prod(shape)
                if n is not None:
                    rows = prod(shape[: n.rows])
                    size = int(stored_bytes(rows, prod(shape[n.rows :]), n.bits, n.group).constant or 0)
                if (step.weights, name) not in scales:
                    stored[step.weights, name, n] = size
        return sum(stored.values())

    def work(self) -> tuple[float, float, int]:
        """FLOPs, bytes that go in and out (caches among them), and steps, counted in a run of the deployed form."""
        from torch.utils.flop_counter import FlopCounterMode

        floats = [replace(s, numerics={}, act_bits=FLOAT, cache_bits=FLOAT) for s in self.plan.steps]
        program = replace(self, plan=replace(self.plan, steps=tuple(floats))).program()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            inputs = program.example()
            outputs = program(*inputs)
        moved = sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
        return float(counter.get_total_flops()), float(moved), len(self.plan.steps)


def parts_of(plan: Plan, workload: Workload) -> list[Part]:
    """The parts of a model, in the order in which they run, what stands around the layers last.

    Raises:
        SpaceError: The model is no single stream through layers.
    """
    shapes = _shapes(plan, workload.called)
    parts = []
    for segment in segments(plan):
        inputs = tuple(shapes[path] for path in segment.plan.inputs)
        parts.append(Part(segment.name, segment.plan, workload, inputs, _key(segment, workload, inputs)))
    return parts


def _shapes(plan: Plan, tokens: int) -> dict[str, tuple[int, ...]]:
    """Shape of what each step gives, for one sequence: a run without numbers."""
    shape_of: dict[str, tuple[int, ...]] = {}

    def note(step: Step, p: Any, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        shape_of[step.path] = tuple(outputs[0].shape)
        return outputs

    with torch.no_grad(), torch.device("meta"):
        tree = WeightTree({key: torch.empty(shape) for key, shape in plan.shapes().items()})
        ids = [torch.empty(1, tokens, dtype=torch.int64) for _ in plan.inputs]
        owners = {s.weights: find_owner(tree, s.weights) for s in plan.steps if s.shapes}
        run_plan(plan, ids, lambda s: SlicedParams(s, owners.get(s.weights, tree)), after=note)
    return {**shape_of, **dict.fromkeys(plan.inputs, (1, tokens))}


def _key(segment: Segment, workload: Workload, inputs: Sequence[tuple[int, ...]]) -> str:
    """Fingerprint of a part: its blocks, sizes and wires, without the names that say where it stands."""
    names = {path: f"in{i}" for i, path in enumerate(segment.plan.inputs)}
    names |= {step.path: f"step{i}" for i, step in enumerate(segment.plan.steps)}
    steps = []
    for step in segment.plan.steps:
        block = step.block
        plain = {k: v for k, v in block.stated().items() if not isinstance(v, Expr)}
        steps.append(
            {
                "block": f"{type(block).__module__}.{type(block).__qualname__}",
                "fields": {k: repr(v) for k, v in sorted(plain.items())},
                "sizes": {k: int(v) for k, v in sorted(step.sizes.items())},
                "shapes": {k: list(v) for k, v in sorted(step.shapes.items())},
                "edges": [[names[e.source], e.index] for e in step.edges],
            }
        )
    text = json.dumps({"steps": steps, "inputs": inputs, "workload": str(workload)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def reference_part(workload: Workload, width: int = 576, kv: int = 3, group: int = 3, ffn: int = 1536) -> Part:
    """A fixed decoder layer (the sizes of SmolLM2-135M), beside which every other program is timed."""
    from rankitect.blocks import GQA, Embed, Norm, Rope, SwiGLU, TiedHead
    from rankitect.graph import B, Graph, SearchSpace, T
    from rankitect.models.plan import make_plan

    g = Graph("reference")
    ids = g.input("ids", B, T, dtype="int")
    rope = Rope(32)(ids, name="rope")
    x = Embed(64, width)(ids, name="embed")
    with g.inside(LAYERS), g.inside("0"):
        x = x + GQA(kv, group, 64)(Norm()(x, name="norm1"), rope, name="attention")
        x = x + SwiGLU(ffn)(Norm()(x, name="norm2"), name="mlp")
    g.out = TiedHead(64)(x, name="head", weights="embed")
    space = SearchSpace(g, version="1")
    return parts_of(make_plan(space, space.architecture({})), workload)[0]
