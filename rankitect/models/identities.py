"""What every block must keep, checked on the blocks of users when their space is first shared or relaxed.

A block is written once, as a pure function of weights and inputs, and read in three ways: alone, as slices of shared
weights, and with masks in place of slices. The blocks of `rankitect.blocks` are tested for that; those of a user are
tried here, on random inputs, in a few architectures that between them leave out a part of everything that is open. A
block that fails, such as one with a softmax over an open axis that does not ask for `p.mask`, would make a search
compare the wrong models without a word.

The inputs are made up, and short. A block that cannot compute with them, such as a convolution that is wider than they
are long, is tried with the space's own default sizes, and one that cannot compute with these either is left untried,
with a warning: it may be right for the data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rankitect.errors import SpaceError, brief
from rankitect.graph import Architecture, Expr, SearchSpace
from rankitect.graph.nodes import Node
from rankitect.models.plan import Step, make_plan
from rankitect.space.names import shown

__all__ = ["check_relaxed", "check_shared"]

TRIES = 40
"""Architectures that are looked at for one in which a part of a block's sizes is left out."""
SMALL = {"B": 2, "T": 4, "P": 0}
"""Free dimensions (rows, tokens, cached tokens) of the inputs that blocks are tried on first."""
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Differences that are left to rounding."""
OWN = "rankitect."

Listen: TypeAlias = Callable[[Step, tuple[Tensor, ...] | None], None]
Runs: TypeAlias = Callable[[Architecture, Sequence[Tensor], Listen], object]
"""Runs an architecture on inputs, and tells every step: before it is run with None, and then with its outputs."""

_log = logging.getLogger("rankitect")
_checked: WeakKeyDictionary[SearchSpace, set[str]] = WeakKeyDictionary()


def check_shared(space: SearchSpace, run: Runs) -> None:
    """Check that blocks of users give what their ports line says, and the same each time.

    Args:
        space: The space; each is checked once.
        run: Runs an architecture as slices of shared weights.

    Raises:
        SpaceError: Names the block and what it must keep.
    """
    for architecture in _tried(space, "shared"):
        if (reference := _reference(run, space, architecture)) is None:
            continue
        inputs, first = reference
        second = _Outputs(space)
        if refusal := _run(run, space, architecture, inputs, second):
            raise refusal
        for step, outputs in first.steps:
            node = space.graph.node(step.path)
            if any(not torch.allclose(a, b, equal_nan=True) for a, b in zip(outputs, second[step.path], strict=True)):
                raise SpaceError(
                    f"{_at(node)}: `run` must be a pure function, and gave two results for the same inputs"
                )


def check_relaxed(space: SearchSpace, alone: Runs, relaxed: Runs) -> None:
    """Check that a relaxed model with one-hot weights equals the model on its own, block by block.

    Args:
        space: The space; each is checked once.
        alone: Runs an architecture on its own.
        relaxed: Runs it as one-hot weights of the relaxed model.

    Raises:
        SpaceError: Names the first block in which they differ, the choices, and what the block must do.
    """
    for architecture in _tried(space, "relaxed"):
        if (reference := _reference(alone, space, architecture)) is not None:
            inputs, right = reference
            mixed = _Outputs()
            if refusal := _run(relaxed, space, architecture, inputs, mixed):
                raise refusal
            for step, wanted in right.steps:
                for one, other in zip(wanted, mixed[step.path], strict=True):
                    _compare(space.graph.node(step.path), architecture, one, other)


class _Outputs:
    """Listens to a model: its steps, in the order in which they ran, with their outputs.

    Args:
        space: Whose ports lines the outputs are compared with; None where all of them are at their largest.
    """

    def __init__(self, space: SearchSpace | None = None) -> None:
        self._space = space
        self.steps: list[tuple[Step, tuple[Tensor, ...]]] = []
        self.running = ""

    def __call__(self, step: Step, outputs: tuple[Tensor, ...] | None) -> None:
        self.running = step.path
        if outputs is not None:
            if self._space is not None:
                _check_types(self._space.graph.node(step.path), step, outputs)
            self.steps.append((step, outputs))

    def __getitem__(self, path: str) -> tuple[Tensor, ...]:
        return next(outputs for step, outputs in self.steps if step.path == path)


def _tried(space: SearchSpace, how: str) -> Iterator[Architecture]:
    """Architectures that together leave out a part of whatever is open in the blocks of users; none the second time."""
    done = _checked.setdefault(space, set())
    own = {n.path for n in space.graph.nodes if not type(n.block).__module__.startswith(OWN)}
    if how in done or not own:
        return
    missing = set(own)
    largest: dict[str, tuple[Any, ...]] = {}
    for seed in range(TRIES):
        architecture = space.sample(seed)
        plan = make_plan(space, architecture)
        new = set()
        for step in plan.steps:
            if step.path in missing:
                sizes = (*step.shapes.items(), *step.sizes.items(), step.present)
                if largest.setdefault(step.path, sizes) != sizes or not _paths(space.graph.node(step.path)):
                    new.add(step.path)
        if new or not seed:
            yield architecture
        missing -= new
        if not missing:
            break
    done.add(how)


def _reference(run: Runs, space: SearchSpace, architecture: Architecture) -> tuple[list[Tensor], _Outputs] | None:
    """Inputs that an architecture can compute with, and what it makes of them; None where there are none."""
    for sizes in ({**space.defaults, **SMALL}, space.defaults):
        inputs, heard = _inputs(space, sizes), _Outputs(space)
        if (refusal := _run(run, space, architecture, inputs, heard)) is None:
            return inputs, heard
    if refusal is not None and not _made_up(space):
        raise refusal
    if heard.running not in _checked[space]:
        _checked[space].add(heard.running)
        _log.warning("%s. It may be right for other inputs: it is not checked.", refusal)
    return None


def _made_up(space: SearchSpace) -> bool:
    """Whether made-up inputs may be such as no data would give: of another length, or ids that mean nothing."""
    kinds = [kind for node in space.graph.inputs for kind in node.outputs]
    free = frozenset[str]().union(*(d.symbols for kind in kinds for d in kind.dims))
    return bool(free - {"B"}) or any(kind.dtype != "float" for kind in kinds)


def _inputs(space: SearchSpace, sizes: Mapping[str, int]) -> list[Tensor]:
    """Random numbers for the inputs of a graph; zeros for its ids, as their range is not known."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for node in space.graph.inputs:
        (kind,) = node.outputs
        shape = [_resolved(d, sizes) for d in kind.dims]
        numbers = torch.randn(shape, generator=generator)
        inputs.append(numbers if kind.dtype == "float" else torch.zeros(shape, dtype=torch.int64))
    return inputs


def _resolved(dim: Expr, symbols: Mapping[str, int]) -> int:
    """A size of an input, which no choice decides."""
    total = 0
    for monomial, coefficient in dim.terms.items():
        term = int(coefficient)
        for atom, power in monomial:
            term *= symbols.get(atom.key, 3) ** power
        total += term
    return total


def _run(
    run: Runs, space: SearchSpace, architecture: Architecture, inputs: Sequence[Tensor], heard: _Outputs
) -> SpaceError | None:
    """Run without gradients; what to say where a block cannot compute with the inputs.

    Raises:
        SpaceError: A block gives something else than its ports line says.
    """
    try:
        with torch.no_grad():
            run(architecture, inputs, heard)
    except SpaceError:
        raise
    except Exception as error:
        shapes = [list(x.shape) for x in inputs]
        refusal = SpaceError(
            f"{_at(space.graph.node(heard.running))}: `run` failed on random inputs of the model, of shapes "
            f"{shown(shapes)}: {type(error).__name__}: {brief(error, 200)}"
        )
        refusal.__cause__ = error
        return refusal
    return None


def _check_types(node: Node, step: Step, outputs: tuple[Tensor, ...]) -> None:
    """Compare what a block gave with its ports line."""
    if len(outputs) != len(node.outputs) or not all(isinstance(x, Tensor) for x in outputs):
        kinds = ", ".join(type(x).__name__ for x in outputs)
        raise SpaceError(f"{_at(node)}: `run` must give {len(node.outputs)} tensors ({node.block.ports}), not {kinds}")
    for kind, output in zip(node.outputs, outputs, strict=True):
        sizes = [None if d.symbols else step.resolve(d) for d in kind.dims]
        fits = len(sizes) == output.dim() and all(s is None or s == n for s, n in zip(sizes, output.shape, strict=True))
        if not fits or (kind.dtype == "int") == output.is_floating_point():
            raise SpaceError(
                f"{_at(node)}: `run` gave {output.dtype} of shape {list(output.shape)}, and its ports line says {kind}"
            )


def _compare(node: Node, architecture: Architecture, wanted: Tensor, got: Tensor) -> None:
    """Raise where a relaxed output is another than that of the architecture, or does not leave out the rest."""
    part = got[tuple(slice(n) for n in wanted.shape)]
    scale = float(wanted.nan_to_num().abs().max()) if wanted.numel() else 0.0
    chosen = {p: architecture.get(p) for p in sorted(_paths(node)) if architecture.get(p) is not None}
    where = f"{_at(node)}, where {shown(chosen, 120)}"
    if not torch.allclose(part, wanted, rtol=RELATIVE, atol=ABSOLUTE * max(scale, 1.0), equal_nan=True):
        away = float((part - wanted).abs().max())
        raise SpaceError(
            f"{where}: the relaxed model differs from the model on its own by {away:.2g}. A softmax, a norm or another "
            "reduction over an axis that a choice decides must leave out what `p.mask(name)` says is not kept, take "
            "its count from `p.size(name)`, and sum hidden units with `p.read`"
        )
    rest = float(got.abs().sum() - part.abs().sum())
    if rest > ABSOLUTE * max(float(got.abs().sum()), 1.0):
        raise SpaceError(
            f"{where}: the relaxed model has entries that are not 0 beyond the sizes of the architecture: the block "
            "says `passes_masks`, but does not keep zeros"
        )


def _paths(node: Node) -> frozenset[str]:
    sizes = [*node.sizes.values(), *(d for p in node.params.values() for d in p.shape), *(e.gate for e in node.inputs)]
    return frozenset[str]().union(*(size.paths for size in sizes))


def _at(node: Node) -> str:
    return f"at {node.path} ({node.block.label})"
