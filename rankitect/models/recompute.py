"""Activation checkpoints: what the layers of a model compute is computed again in the backward pass, not kept.

Chen et al., arXiv 1604.06174: memory for the activations of one layer and the inputs of all, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from rankitect.models.plan import Plan, Step

__all__ = ["run_recomputed"]

Values = dict[str, tuple[Tensor, ...]]


def run_recomputed(plan: Plan, values: Values, run: Callable[[range, Values], None]) -> None:
    """Run the steps of a plan, those of each layer under a checkpoint.

    Args:
        plan: The plan.
        values: What its inputs are, and then what every step gives that a later one reads.
        run: Runs steps by number.
    """
    for numbers, layer in _stretches(plan.steps):
        if not layer:
            run(numbers, values)
            continue
        steps = [plan.steps[i] for i in numbers]
        own = [step.path for step in steps]
        read = {e.source: values[e.source] for step in steps for e in step.edges if e.source not in own}
        later = {e.source for step in plan.steps[numbers.stop :] for e in step.edges}
        later |= {e.source for e in plan.outputs}
        given = [path for path in own if path in later]
        # Given as arguments, so that the random state of their device is kept for the second pass.
        flat = [x for parts in read.values() for x in parts]
        outputs: list[tuple[Tensor, ...]] = checkpoint(_runner(numbers, read, given, run), *flat, use_reentrant=False)
        values |= dict(zip(given, outputs, strict=True))
        for path in read.keys() - later:
            del values[path]


def _runner(
    numbers: range, read: Values, given: Sequence[str], run: Callable[[range, Values], None]
) -> Callable[..., list[tuple[Tensor, ...]]]:
    sizes = {path: len(parts) for path, parts in read.items()}

    def again(*flat: Tensor) -> list[tuple[Tensor, ...]]:
        rest = iter(flat)
        values: Values = {path: tuple(next(rest) for _ in range(size)) for path, size in sizes.items()}
        run(numbers, values)
        return [values[path] for path in given]

    return again


def _stretches(steps: Sequence[Step]) -> Iterator[tuple[range, bool]]:
    """The numbers of neighbouring steps of one repeated layer, such as `layers.3`, or of none; and whether of one.

    Tables are of none: their rows may take their step in the backward pass.
    """
    start = 0
    for i in range(1, len(steps) + 1):
        if i == len(steps) or _layer(steps[i]) != _layer(steps[start]):
            yield range(start, i), _layer(steps[start]) is not None
            start = i


def _layer(step: Step) -> str | None:
    parts = step.path.split(".")
    repeated = len(parts) > 2 and parts[1].isdigit() and not step.tables
    return ".".join(parts[:2]) if repeated else None
