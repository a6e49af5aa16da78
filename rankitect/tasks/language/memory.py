"""Whether a search on a backbone fits into the memory of its device: estimated before it is calibrated."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Refuse a search whose largest model, or relaxed supernet, cannot be trained beside its backbone.

    Args:
        parts: The study's.
        reference: The largest model.
        context: Tokens of a window where no stage says otherwise.
        pretrained: The sizes of a backbone, which is kept beside what is trained, as its teacher; None without one.
        refit: Whether its weights are refitted for what is kept of them.

    Raises:
        SpaceError: There is too little memory; gives the estimate and its largest parts.
    """
    from rankitect.models.memory import check_memory
    from rankitect.training.footprint import relaxed_memory, training_memory
    from rankitect.training.parallel import Group

    place, space = placement(), parts.graph_space
    stages = [stage.config for stage in parts.stages.values() if isinstance(stage, TextStage)]
    if not stages and not parts.trains_weights and not parts.relaxes:
        return  # nothing is trained
    sizes = [(stage.batch, stage.context) for stage in stages] or [(1, context)]
    batch, tokens = max(sizes, key=lambda size: size[0] * size[1])
    together = Group(world=parts.config.runner.together, parts=place.accumulate)
    rows = -(-batch // together.parts_of(batch))
    beside = _beside(parts, reference, pretrained, refit)
    weights, held = space.cost(reference, "weight_bytes"), sum(beside.values())
    limit = place.memory()
    # Running the model, even without numbers, takes a second or two: only where there may be too little.
    if (
        limit is None
        or held + MANY * weights + MUCH * space.cost(reference, "activation_bytes", B=rows, T=tokens, P=0) < limit
    ):
        return
    shapes, size = [(rows, tokens)], f"{rows} x {tokens} tokens at a time"
    steps = {
        f"Training the largest model on {place.device} ({size})": training_memory(
            space, reference, shapes, recompute=place.checkpointing
        )
    }
    if parts.relaxes:
        what = f"A step of the search on the relaxed supernet on {place.device} ({size})"
        steps[what] = relaxed_memory(space, shapes, recompute=place.checkpointing)
    for what, needed in steps.items():
        check_memory({**needed, **beside}, what, limit, REMEDY)


def _beside(parts: Parts, reference: Architecture, pretrained: DecoderConfig | None, refit: bool) -> Mapping[str, int]:
    """Bytes of what is held beside a model that is trained."""
    from rankitect.graph.cost import FLOAT_BYTES
    from rankitect.models.backbone import MOMENTS, REFITS, refit_memory

    if pretrained is None:
        return {}
    beside = {"the backbone": int(parts.graph_space.cost(reference, "params")) * FLOAT_BYTES}
    if refit:  # refits of single sizes are made when they are first needed, those of the relaxed supernet all at once
        needed = REFITS if parts.relaxes else MOMENTS
        beside[needed] = refit_memory(pretrained, parts.graph_space)[needed]
    return beside
