"""Rankers as programs: all that follows the lookups of embedding tables, which stay where the tables are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankitect.data.files import file_sha256, write_whole
from rankitect.deploy.artifact import runtime_version
from rankitect.deploy.lowering import lower
from rankitect.deploy.precision import precision_of, quantized_share, require_lowerable
from rankitect.deploy.quality import ranker_quality, report_quality
from rankitect.errors import SpaceError
from rankitect.models.deployed import DeployedCall
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, find_owner

__all__ = ["BATCHES", "CARD", "PROGRAM", "DensePart", "dense_part", "export_ranker"]

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

        def look(step: Step, p: Any, inputs: Sequence[torch.Tensor]) -> Any:
            outputs = step.block.run(p, *inputs)
            if step.tables:
                values[step.path] = outputs
            return outputs

        def params(step: Step) -> SlicedParams:
            return SlicedParams(step, find_owner(model, step.weights) if step.shapes else model)

        with torch.no_grad():
            run_plan(
                plan, given, lambda s: SlicedParams(s, find_owner(model, s.weights) if s.shapes else model), call=look
            )
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
    precision = precision_of(part.plan)
    methods = {f"batch_{n}": part.call(*(x[:1].expand(n, *x.shape[1:]) for x in examples)) for n in batches}
    lowered = lower(methods, quick=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    write_whole(folder / PROGRAM, lowered.buffer)
    most = max(batches)
    try:
        quality = ranker_quality(folder / PROGRAM, f"batch_{most}", most, part, examples, labels)
    except BaseException:
        (folder / PROGRAM).unlink()  # a program that was not checked to the end is none
        raise
    report_quality(quality, PROGRAM, precision)
    card = {
        "schema": 1,
        "kind": "rankitect ranker",
        "runtime": {"name": "executorch", "version": runtime_version(), "backend": "XNNPACK"},
        "precision": precision,
        "quantized_share": quantized_share(methods),
        "quality": quality.to_json(),
        "methods": {
            name: [
                {"name": path, "shape": list(x.shape), "lookup": path not in model.plan.inputs}
                for path, x in zip(part.plan.inputs, method.example(), strict=True)
            ]
            for name, method in methods.items()
        },
        "delegated": {"operators": lowered.delegated, "share": lowered.share, "portable": lowered.portable},
        "checked": {"errors": lowered.errors},
        "bytes": len(lowered.buffer),
        "sha256": file_sha256(folder / PROGRAM),
    }
    write_whole(folder / CARD, json.dumps(card, indent=2) + "\n")
    return {"program": PROGRAM, "program_card": CARD}
