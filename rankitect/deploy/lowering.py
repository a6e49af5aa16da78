"""From a module to an ExecuTorch program for XNNPACK: export, fold constants, lower, check.

Time goes into one pass pipeline a delegated piece, so the blocks' deployed form leaves few pieces: an embedding's rows
are looked up by the portable kernels, all else is one piece.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from rankitect.errors import DeployError
from rankitect.models.deployed_weights import QuantizedMatrix, without_notes

__all__ = ["TOLERANCE", "TOLERANCE_QUANTIZED", "Lowered", "lower", "require_runtime", "silenced", "tolerance"]

TOLERANCE = 1e-3
"""Largest allowed difference between a program's outputs and its module's, relative to the largest output."""
TOLERANCE_QUANTIZED = 5e-2
"""The same where activations are rounded, of root mean squares, beside what that rounding itself does to the outputs:
an activation that lies between two levels may be rounded either way, which moves more of them to another level in every
layer that follows, so that after many layers two correct programs are as far apart as rounding is from not rounding."""


@dataclass(frozen=True)
class Lowered:
    """A lowered program and what is known of it.

    Attributes:
        buffer: The contents of a .pte file.
        delegated: Operators that XNNPACK runs.
        portable: Operators that the portable kernels run, by name with their number.
        pieces: Delegated pieces.
        errors: By method, the difference to the exported module's outputs for its example, relative to the outputs:
            the largest one, or root mean squares where activations are rounded.
    """

    buffer: bytes
    delegated: int
    portable: dict[str, int]
    pieces: int
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the operators that XNNPACK runs."""
        return self.delegated / max(1, self.delegated + sum(self.portable.values()))


def tolerance(methods: Mapping[str, nn.Module]) -> float:
    """How far a program's outputs may be from those of its methods; see `TOLERANCE`."""
    return TOLERANCE_QUANTIZED if _rounds(methods) else TOLERANCE


def _rounds(methods: Mapping[str, nn.Module]) -> bool:
    return any(isinstance(part, QuantizedMatrix) for method in methods.values() for part in method.modules())


def lower(methods: Mapping[str, nn.Module], check: bool = True, quick: bool = True) -> Lowered:
    """Lower the methods of one program, each for the shapes of its example; equal weights are stored once.

    Args:
        methods: What to export, by name: modules with `example()`, which gives inputs. Their matrices are lowered as
            they hold them, each in its own bits.
        check: Run every method in this process and compare its outputs with the module's.
        quick: Leave out the passes that language models never need.

    Raises:
        DeployError: ExecuTorch is not installed, an operator cannot be exported (says which), or outputs differ by
            more than `tolerance` allows.
    """
    require_runtime()
    with _quietly():  # torchao, too, talks while it is imported
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        partitioner = _partitioner(quick)
    eager: dict[str, tuple[torch.Tensor, ...]] = {}
    moved: dict[str, float] = {}
    try:
        with _quietly(), torch.no_grad():
            exported = {}
            for name, method in methods.items():
                example = method.example()  # type: ignore[operator]
                if check:
                    eager[name] = tuple(method(*example))
                    moved[name] = _moved(method, example, eager[name])
                exported[name] = torch.export.export(method.eval(), example, strict=False)
            edge = to_edge_transform_and_lower(
                exported,
                transform_passes=[_without_copies],
                partitioner={name: [partitioner] for name in exported},
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            counts = [_count(edge.exported_program(name).graph_module) for name in exported]
            # Inputs stay where the caller has them: a cache is not copied for every token.
            memory = MemoryPlanningPass(alloc_graph_input=False)
            buffer = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=memory)).buffer
    except Exception as error:
        raise DeployError(f"The model cannot be exported: {_first_line(error)}") from error
    finally:
        _forget()
    portable: dict[str, int] = {}
    for _, by_name, _ in counts:
        portable = {k: portable.get(k, 0) + by_name.get(k, 0) for k in {**portable, **by_name}}
    lowered = Lowered(buffer, sum(c[0] for c in counts), portable, sum(c[2] for c in counts))
    if not check:
        return lowered
    return replace(lowered, errors=_compare(lowered, methods, eager, moved))


@contextmanager
def silenced() -> Iterator[None]:
    """Without what the runtime's C++ writes to the standard outputs while it loads."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for number, file in enumerate(kept, 1):
            os.dup2(file, number)
            os.close(file)
        os.close(nowhere)


def _compare(
    lowered: Lowered,
    methods: Mapping[str, nn.Module],
    eager: Mapping[str, tuple[torch.Tensor, ...]],
    moved: Mapping[str, float],
) -> dict[str, float]:
    errors = {}
    size, named = (_root_mean_square, "typical") if _rounds(methods) else (_largest, "largest")
    with silenced():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(lowered.buffer)
    for name, method in methods.items():
        inputs = [x.contiguous() for x in method.example()]  # type: ignore[operator]
        try:
            with silenced():
                outputs = program.load_method(name).execute(inputs)
        except RuntimeError as error:
            raise DeployError(
                f"The exported {name} does not run: the runtime has no kernel for one of {', '.join(lowered.portable)} "
                f"({error})."
            ) from error
        errors[name] = _difference(outputs, eager[name], size)
        allowed = tolerance(methods) + moved[name]
        if not errors[name] <= allowed:
            raise DeployError(
                f"The exported {name} differs from the model by {errors[name]:.2g} of its {named} output; at most "
                f"{allowed:.2g} is allowed."
            )
    return errors


def _moved(method: nn.Module, example: Sequence[torch.Tensor], eager: Sequence[torch.Tensor]) -> float:
    """What rounding activations does to the outputs of a method, relative to them."""
    matrices = [part for part in method.modules() if isinstance(part, QuantizedMatrix)]
    if not matrices:
        return 0.0
    try:
        for matrix in matrices:
            matrix.rounds_tokens = False
        return _difference(method(*example), eager, _root_mean_square)
    finally:
        for matrix in matrices:
            matrix.rounds_tokens = True


def _difference(
    some: Sequence[torch.Tensor], others: Sequence[torch.Tensor], size: Callable[[torch.Tensor], float]
) -> float:
    return max(size(a - b) / max(size(b), 1e-12) for a, b in zip(some, others, strict=True))


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max())


def _root_mean_square(x: torch.Tensor) -> float:
    return float(x.float().square().mean().sqrt())


def require_runtime() -> None:
    """Raise a `DeployError` where ExecuTorch is not installed."""
    from importlib.util import find_spec

    if find_spec("executorch") is None or find_spec("torchao") is None:
        raise DeployError(
            "ExecuTorch is not installed: pip install 'rankitect[deploy]' (in this repository: "
            "make venv EXTRAS=deploy)."
        )


def _forget() -> None:
    """Empty a cache of ExecuTorch's that keeps every graph it has seen alive, with weights and program: at 135M
    parameters nearly a gigabyte for each export of a process."""
    from executorch.exir.backend import utils

    if hasattr(utils.is_same_node, "cache_clear"):
        utils.is_same_node.cache_clear()
    gc.collect()


def _partitioner(quick: bool) -> Any:
    """XNNPACK's partitioner; a quick one is without what our graphs never need, which is half of the time.

    XNNPACK's preprocessing runs seventeen passes over the graph (resizing, batch norms, attention patterns), each of
    which traces it anew; of these, deployed blocks need the one that makes linear nodes. The partitioner's filter of
    operators to keep whole costs two more rounds of decompositions; it matters for convolutions and resizing only.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.backend.compile_spec_schema import CompileSpec
    from executorch.exir.backend.partitioner import DelegationSpec

    if not quick:
        return XnnpackPartitioner()

    class Partitioner(XnnpackPartitioner):
        def ops_to_not_decompose(self, program: Any) -> Any:
            return super().ops_to_not_decompose(program)[0], None

    partitioner = Partitioner()
    backend = partitioner.delegation_spec.backend_id
    partitioner.delegation_spec = DelegationSpec(backend, [CompileSpec("dqlinear_partitioner", b"")])
    return partitioner


def _without_copies(graph: Any) -> Any:
    """Leaves out copies that only change how a tensor lies in memory: XNNPACK's tensors are always contiguous."""
    from torch.fx.passes.infra.pass_base import PassResult

    copies = [node for node in graph.graph.nodes if node.op == "call_function" and "clone" in str(node.target)]
    for node in copies:
        node.replace_all_uses_with(node.args[0])
        graph.graph.erase_node(node)
    if copies:
        graph.recompile()
    return PassResult(graph, bool(copies))


def _count(graph: Any) -> tuple[int, dict[str, int], int]:
    """Operators of the delegated pieces, the others by name, and the number of pieces."""
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(graph)
    portable = {
        str(name): int(row.non_delegated)
        for name, row in info.delegation_by_operator.items()
        if row.non_delegated and name != "getitem"  # which only takes a piece's outputs apart
    }
    return int(info.num_delegated_nodes), portable, int(info.num_delegated_subgraphs)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the notes of the exporting libraries, and without collecting garbage: passes make millions of small
    objects that live to the end, and looking through them is a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with without_notes():
            yield
    finally:
        if collects:
            gc.enable()
