"""What training a model will take of a device's memory, before anything is on the device.

Weights come from the graph. Activations are found by running the model on torch's `meta` device, which has shapes and
no numbers: what autograd keeps there, it keeps on any device, or less, where attention has a kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rankitect.graph.cost import FLOAT_BYTES
from rankitect.models.plan import make_plan, weight_bounds
from rankitect.models.relaxed import RelaxedSupernet
from rankitect.models.supernet import Standalone, Supernet

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["kept_activations", "relaxed_activations", "relaxed_memory", "training_memory"]

META = torch.device("meta")
MOMENTS = 2
"""Running means of AdamW."""


def kept_activations(
    space: SearchSpace, architecture: Architecture, shapes: Sequence[tuple[int, ...]], *, recompute: bool = False
) -> tuple[int, int]:
    """Bytes that a forward pass in float32 keeps for the backward pass, and bytes of its outputs.

    Args:
        space: The space.
        architecture: The model.
        shapes: Of the inputs of the graph.
        recompute: Whether a layer's activations are computed again.
    """
    plan = make_plan(space, space.validate(architecture))
    model = Standalone(plan, {key: torch.empty(shape, device=META) for key, shape in plan.shapes().items()})
    model.recompute = recompute
    return _kept(space, model, model.parameters(), shapes)


def relaxed_activations(
    space: SearchSpace, shapes: Sequence[tuple[int, ...]], *, recompute: bool = False
) -> tuple[int, int]:
    """The same of the relaxed supernet while its weights are frozen, without refits.

    Args:
        space: The space.
        shapes: Of the inputs of the graph.
        recompute: Whether a layer's activations are computed again.
    """
    tensors = {key: torch.empty(shape, device=META) for key, shape in weight_bounds(space).items()}
    supernet = Supernet(space, tensors=tensors)
    supernet.recompute = recompute
    relaxed = RelaxedSupernet(supernet)
    relaxed.freeze(True)
    sizes = {path: len(choice.values) for path, choice in space.choices.items()}
    weights = {path: torch.full((n,), 1 / n, device=META, requires_grad=True) for path, n in sizes.items()}
    return _kept(space, lambda *x: relaxed(weights, *x), supernet.parameters(), shapes)


def _kept(
    space: SearchSpace, model: Callable[..., Any], weights: Iterable[Tensor], shapes: Sequence[tuple[int, ...]]
) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass beside the weights, and bytes of its outputs."""
    own = {p.untyped_storage()._cdata for p in weights}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            kept.setdefault(storage._cdata, x)
        return x

    kinds = [torch.float32 if node.outputs[0].dtype == "float" else torch.int64 for node in space.graph.inputs]
    inputs = [torch.empty(shape, dtype=kind, device=META) for shape, kind in zip(shapes, kinds, strict=True)]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = model(*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    given = {x.untyped_storage()._cdata for x in (*inputs, *outputs)}
    held = sum(x.untyped_storage().nbytes() for place, x in kept.items() if place not in given)
    return held, sum(x.numel() * x.element_size() for x in outputs)


def training_memory(
    space: SearchSpace,
    architecture: Architecture,
    shapes: Sequence[tuple[int, ...]],
    *,
    recompute: bool = False,
    processes: int = 1,
) -> Mapping[str, int]:
    """Bytes of training a model with AdamW in float32, by what they are for.

    Args:
        space: The space.
        architecture: The model.
        shapes: Of the inputs of a part of a batch that is computed at a time.
        recompute: Whether a layer's activations are computed again.
        processes: Among how many weights, gradients and running means are divided.
    """
    weights = int(space.cost(architecture, "params")) * FLOAT_BYTES
    held, outputs = kept_activations(space, architecture, shapes, recompute=recompute)
    divided = math.ceil(weights / processes)
    return {
        "weights": divided,
        "gradients": divided,
        "AdamW's running means": MOMENTS * divided,
        "activations": held,
        "outputs and their gradient": 2 * outputs,
    }


def relaxed_memory(
    space: SearchSpace, shapes: Sequence[tuple[int, ...]], *, recompute: bool = False
) -> Mapping[str, int]:
    """Bytes of a step that chooses architectures on the relaxed supernet, by what they are for.

    Its weights are frozen meanwhile, and keep the running means of their own training with AdamW.

    Args:
        space: The space.
        shapes: Of the inputs of a part of a batch that is computed at a time.
        recompute: Whether a layer's activations are computed again.
    """
    weights = sum(math.prod(shape) for shape in weight_bounds(space).values()) * FLOAT_BYTES
    held, outputs = relaxed_activations(space, shapes, recompute=recompute)
    return {
        "weights": weights,
        "AdamW's running means": MOMENTS * weights,
        "activations of the relaxed supernet": held,
        "outputs and their gradient": 2 * outputs,
    }
