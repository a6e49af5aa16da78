"""From a module to an ExecuTorch program for XNNPACK: export, fold constants, quantize, lower, check.

Time goes into one pass pipeline a delegated piece, so the blocks' deployed form leaves few pieces: an embedding's rows
are looked up by the portable kernels, all else is one piece.
"""

from __future__ import annotations

import copy
import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from rankitect.errors import DeployError

__all__ = ["GROUP", "Lowered", "Precision", "lower"]

Precision = Literal["float32", "8da4w"]
GROUP = 32
"""Weights that share a scale in 8da4w: 8-bit dynamic activations, 4-bit weights."""


@dataclass(frozen=True)
class Lowered:
    """A program.

    Attributes:
        buffer: The contents of a .pte file.
        precision: Of weights and activations.
        delegated: Operators that XNNPACK runs.
        portable: Operators that the portable kernels run, by name with their number.
        pieces: Delegated pieces.
        eager: The exported module's outputs for its example, of the quantized module where it is.
    """

    buffer: bytes
    precision: Precision
    delegated: int
    portable: dict[str, int]
    pieces: int
    eager: tuple[torch.Tensor, ...] = field(repr=False)

    @property
    def share(self) -> float:
        """Share of the operators that XNNPACK runs."""
        return self.delegated / max(1, self.delegated + sum(self.portable.values()))


def lower(module: nn.Module, example: Sequence[torch.Tensor], precision: Precision = "float32") -> Lowered:
    """Lower a module for one set of shapes.

    Args:
        module: What to export; its parameters are not changed.
        example: Inputs of the shapes that the program is for.
        precision: "float32", or "8da4w" (arXiv 2402.14905 and its successors deploy so).

    Raises:
        DeployError: ExecuTorch is not installed, or an operator cannot be exported; says which.
    """
    _require()
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    example = tuple(example)
    frozen = [p for p in module.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        with _quietly(), torch.no_grad():
            if precision == "8da4w":
                module = _quantized(module)
            eager = module(*example)
            exported = torch.export.export(module.eval(), example, strict=False)
            edge = to_edge_transform_and_lower(
                exported,
                partitioner=[_partitioner()],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            delegated, portable, pieces = _count(edge.exported_program().graph_module)
            # Inputs stay where the caller has them: a cache is not copied for every token.
            memory = MemoryPlanningPass(alloc_graph_input=False)
            buffer = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=memory)).buffer
    except Exception as error:
        raise DeployError(f"The model cannot be exported: {_first_line(error)}") from error
    finally:
        for p in frozen:
            p.requires_grad_(True)
    outputs = eager if isinstance(eager, tuple) else (eager,)
    return Lowered(buffer, precision, delegated, portable, pieces, tuple(outputs))


def _require() -> None:
    from importlib.util import find_spec

    if find_spec("executorch") is None or find_spec("torchao") is None:
        raise DeployError(
            "ExecuTorch is not installed: pip install 'rankitect[deploy]' (in this repository: make venv EXTRAS=deploy)."
        )


def _partitioner() -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


def _quantized(module: nn.Module) -> nn.Module:
    """A copy with quantized matrices; one whose inputs are no multiple of the group stays as it is."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

    copied = copy.deepcopy(module)
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(GROUP))
    quantize_(copied, config, lambda part, name: isinstance(part, nn.Linear) and part.weight.shape[1] % GROUP == 0)
    return copied


def _count(graph: Any) -> tuple[int, dict[str, int], int]:
    """Operators of the delegated pieces, the others by name, and the number of pieces."""
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(graph)
    portable = {
        str(name): int(row.non_delegated)
        for name, row in info.delegation_by_operator.items()
        if row.non_delegated and name != "getitem"
    }
    return int(info.num_delegated_nodes), portable, int(info.num_delegated_subgraphs)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the notes of the exporting libraries, which say nothing that a user could act on."""
    before, collects = logging.root.manager.disable, gc.isenabled()
    logging.disable(logging.WARNING)
    gc.disable()  # passes make millions of small objects that live to the end: collecting them is a fifth of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if collects:
            gc.enable()
