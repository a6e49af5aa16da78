"""Running statistics taken anew for one architecture: what batch normalisation divides by when a model is evaluated.

Weights that are shared were trained in many architectures, and the running statistics that training leaves behind are a
mixture of all of theirs: right for none. A few batches without labels or gradients give an architecture its own
(Yu & Huang, arXiv 1903.05134, section 3.1; as `momentum=None` of torch's batch normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from rankitect.errors import SpaceError
from rankitect.graph import SearchSpace
from rankitect.models.supernet import ActiveSubnet, PlannedModel
from rankitect.models.weights import EVALUATION, Mode, find_owner, take, weight_of

__all__ = ["has_statistics", "recalibrate"]


def has_statistics(space: SearchSpace) -> bool:
    """Whether any block of a space has weights that are not trained."""
    return any(not param.trained for node in space.graph.nodes for param in node.params.values())


def recalibrate(
    model: PlannedModel, batches: Iterable[Sequence[torch.Tensor]], check: Callable[[], None] | None = None
) -> int:
    """Take the statistics of a model anew: their mean over batches, each counted as one.

    A view of shared weights gets statistics of its own, which it reads from then on when it is evaluated: the shared
    ones, and every other view, stay as they are. Those of a model of its own are replaced. A model without any is left
    alone, and no batch is read.

    Args:
        model: The model; it keeps its mode.
        batches: The model's inputs, batches of one size, beside its weights.
        check: Called before every batch; may raise, to stop: the model is then as it was, but for the statistics of a
            model of its own.

    Returns:
        The examples that were used.

    Raises:
        SpaceError: There is no batch.
    """
    shapes = model.plan.untrained()
    if not shapes:
        return 0
    held = {(o, n): take(weight_of(find_owner(model.tree, o), n), shape) for (o, n), shape in shapes.items()}
    own = {key: tensor.clone() for key, tensor in held.items()} if isinstance(model, ActiveSubnet) else {}
    training, examples, seen = model.training, 0, 0
    model.eval()
    done = model.mode
    try:
        with torch.no_grad():
            for inputs in batches:
                if check is not None:
                    check()
                if not seen:  # the first batch counts in full, but 0 times what is not finite would be that again
                    for tensor in (own or held).values():
                        tensor.zero_()
                model.mode = Mode(seen=seen, own=own)
                model(*inputs)
                examples, seen = examples + len(inputs[0]), seen + 1
        if not seen:
            raise SpaceError("no batches to take statistics from: give at least one")
        done = Mode(own=own) if own else EVALUATION
    finally:
        model.mode = done
        model.train(training)
    return examples
