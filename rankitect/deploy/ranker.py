"""Rankers as programs: all that follows the lookups of embedding tables, which stay where the tables are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankitect.data.files import file_sha256, write_whole
from rankitect.deploy.artifact import runtime_version
from rankitect.deploy.lowering import lower
from rankitect.deploy.precision import precision_of, quantized_share, require_lowerable
from rankitect.deploy.quality import ProgramQuality, ranker_quality, report_quality
from rankitect.errors import SpaceError
from rankitect.models.deployed import DeployedCall
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, find_owner

__all__ = [
    "BATCHES",
    "CARD",
    "PROGRAM",
    "Batched",
    "DensePart",
    "dense_part",
    "export_ranker",
    "write_batches",
]

BATCHES = (1, 64)
"""Examples of one call."""
CARD, PROGRAM = "ranker.json", "ranker.pte"


@dataclass(frozen=True)
class DensePart:
    """A ranker after its lookups.

    Attributes:
        plan: Its steps; its inputs are those of the model that are read beside the lookups, then the lookups' outputs.
        model: Holds the weights.
    """

    plan: Plan
    model: Standalone

    def inputs(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Its inputs for the model's: those that are read, then the looked-up embeddings, [B, F, width] each."""
        plan, model = self.model.plan, self.model
        values: dict[str, torch.Tensor] = dict(zip(plan.inputs, given, strict=True))
        if not any(step.tables for step in plan.steps):
            return tuple(values[name].contiguous() for name in self.plan.inputs)

        def look(step: Step, p: Any, inputs: Sequence[torch.Tensor]) -> Any:
            outputs = step.block.run(p, *inputs)
            if step.tables:
                values[step.path] = outputs
            return outputs

        def params(step: Step) -> SlicedParams:
            return SlicedParams(step, find_owner(model, step.weights) if step.shapes else model)

        with torch.no_grad():
            run_plan(plan, given, params, call=look)
        return tuple(values[name].contiguous() for name in self.plan.inputs)

    def call(self, *given: torch.Tensor) -> DeployedCall:
        """The program's method for inputs of the model's like these."""
        return DeployedCall(self.plan, self.model, 2, False, self.inputs(*given))


def dense_part(model: Standalone) -> DensePart:
    """A ranker cut after its lookups.

    Raises:
        SpaceError: Nothing follows them.
    """
    plan = model.plan
    looked = {step.path for step in plan.steps if step.tables}
    steps = tuple(step for step in plan.steps if step.path not in looked)
    used = list(dict.fromkeys(e.source for s in steps for e in s.edges))
    given = [name for name in plan.inputs if name in used] + [path for path in used if path in looked]
    if not steps or any(e.source in looked for e in plan.outputs):
        raise SpaceError("nothing follows the ranker's embedding tables: there is no program to export")
    return DensePart(Plan(tuple(given), steps, plan.outputs), model)


def export_ranker(
    folder: Path,
    model: Standalone,
    examples: Sequence[torch.Tensor],
    *,
    labels: torch.Tensor | None = None,
    batches: Sequence[int] = BATCHES,
) -> dict[str, str]:
    """Write a ranker's dense part as a program with a method for each batch size. The card comes last.

    Args:
        folder: Created if it does not exist.
        model: The ranker.
        examples: The model's inputs for real rows, [n, ...] each, on which the program's quality is compared with that
            of the model in float32; card and log say both.
        labels: 0 or 1 for each of the rows, [n]; without them logits are compared.
        batches: Examples of one call; the methods are called "batch_1" and so on.

    Returns:
        Paths relative to the folder, by artifact: "program", "program_card".

    Raises:
        DeployError: The model cannot be exported, the runtime lacks some of its bits, or the program does not give what
            the model gives.
        OSError: The disk is full or cannot be written.
        SpaceError: Nothing follows the lookups.
    """
    part = dense_part(model)
    require_lowerable(part.plan)
    methods = {f"batch_{n}": part.call(*(x[:1].expand(n, *x.shape[1:]) for x in examples)) for n in batches}

    def judge(program: Path, method: str, batch: int) -> ProgramQuality:
        return ranker_quality(program, method, batch, part, examples, labels)

    return write_batches(
        folder, Batched("rankitect ranker", PROGRAM, CARD, part.plan, model.plan.inputs, methods), judge
    )


@dataclass(frozen=True)
class Batched:
    """A program with a method for each batch size.

    Attributes:
        kind: What its card says that it is.
        program: The name of its file.
        card: The name of its card.
        plan: The steps.
        given: The inputs of the plan that the model has as well; all others are looked up outside.
        methods: By name, "batch_1" and so on; each is lowered for as many examples.
    """

    kind: str
    program: str
    card: str
    plan: Plan
    given: Sequence[str]
    methods: Mapping[str, DeployedCall]


def write_batches(folder: Path, batched: Batched, judge: Callable[[Path, str, int], ProgramQuality]) -> dict[str, str]:
    """Lower a program, judge it, and write it with its card, which comes last.

    Args:
        folder: Created if it does not exist.
        batched: The program.
        judge: From the file, a method and its batch size to the program's quality.

    Returns:
        Paths relative to the folder, by artifact: "program", "program_card".

    Raises:
        DeployError: It cannot be exported or run.
        OSError: The disk is full or cannot be written.
    """
    precision, methods = precision_of(batched.plan), batched.methods
    lowered = lower(methods, quick=False)
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / batched.program
    (folder / batched.card).unlink(missing_ok=True)
    write_whole(program, lowered.buffer)
    most = max(methods, key=lambda name: len(methods[name].example()[0]))
    try:
        quality = judge(program, most, len(methods[most].example()[0]))
    except BaseException:
        program.unlink()  # a program that was not checked to the end is none
        raise
    report_quality(quality, batched.program, precision)
    card = {
        "schema": 1,
        "kind": batched.kind,
        "runtime": {"name": "executorch", "version": runtime_version(), "backend": "XNNPACK"},
        "precision": precision,
        "quantized_share": quantized_share(methods),
        "quality": quality.to_json(),
        "methods": {
            name: [
                {"name": path, "shape": list(x.shape), "lookup": path not in batched.given}
                for path, x in zip(batched.plan.inputs, method.example(), strict=True)
            ]
            for name, method in methods.items()
        },
        "delegated": {"operators": lowered.delegated, "share": lowered.share, "portable": lowered.portable},
        "checked": {"errors": lowered.errors},
        "bytes": len(lowered.buffer),
        "sha256": file_sha256(program),
    }
    write_whole(folder / batched.card, json.dumps(card, indent=2) + "\n")
    return {"program": batched.program, "program_card": batched.card}
