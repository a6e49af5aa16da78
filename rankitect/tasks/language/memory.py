"""Whether a search on a backbone fits into the memory of its device: estimated before it is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.recipes.text import TextStage
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture
    from rankitect.models.checkpoints import DecoderConfig

__all__ = ["check_footprint"]

REMEDY = (
    "Use a smaller backbone, a smaller recipe.<stage>.batch or context, placement.checkpointing=true, "
    "placement.accumulate, task.refit=false, or another device"
)

MANY, MUCH = 8, 8
"""Copies of the weights, and of what the nodes of the graph give, that are more than any training keeps."""


def check_footprint(
    parts: Parts, reference: Architecture, context: int, *, pretrained: DecoderConfig | None, refit: bool
) -> None:
    """Refuse a search whose largest model cannot be trained beside its backbone.

    Args:
        parts: The study's.
        reference: The largest model.
        context: Tokens of a window where no stage says otherwise.
        pretrained: The sizes of a backbone, which is kept beside what is trained, as its teacher; None without one.
        refit: Whether its weights are refitted for what is kept of them.

    Raises:
        SpaceError: There is too little memory; gives the estimate and its largest parts.
    """
    from rankitect.models.backbone import MOMENTS, refit_memory
    from rankitect.models.memory import check_memory
    from rankitect.training.footprint import training_memory

    place, space = placement(), parts.graph_space
    stages = [stage.config for stage in parts.stages.values() if isinstance(stage, TextStage)]
    if not stages and not parts.trains_weights:
        return  # nothing is trained
    sizes = [(stage.batch, stage.context) for stage in stages] or [(1, context)]
    batch, tokens = max(sizes, key=lambda size: size[0] * size[1])
    rows = -(-batch // place.accumulate)
    weights = space.cost(reference, "weight_bytes")
    limit = place.memory()
    # Running the model, even without numbers, takes a second or two: only where there may be too little.
    if (
        limit is None
        or MANY * weights + MUCH * space.cost(reference, "activation_bytes", B=rows, T=tokens, P=0) < limit
    ):
        return
    needed = dict(training_memory(space, reference, [(rows, tokens)], recompute=place.checkpointing))
    if pretrained is not None:
        needed["the backbone"] = needed["weights"]
        if refit:  # refits themselves are made when they are first needed
            needed[MOMENTS] = refit_memory(pretrained, space)[MOMENTS]
    what = f"Training the largest model on {place.device} ({rows} x {tokens} tokens at a time)"
    check_memory(needed, what, limit, REMEDY)
