"""A trained model made smaller: layers left out, hidden units of feed-forwards taken away.

Which dimensions count a layer's hidden units is read from the graph: those whose size is the choice of its width. What
is left keeps its names, so that the smaller model is one of the same space.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.families import axes
from rankitect.models.importance import Statistics, unit_scores
from rankitect.models.plan import make_plan
from rankitect.models.refit import refit_change
from rankitect.models.supernet import Standalone
from rankitect.models.weights import weight_of

__all__ = ["pruned", "smaller"]

Key = tuple[str, str]


def smaller(
    space: SearchSpace,
    architecture: Architecture,
    layers: int | None,
    ffn: int | None,
    influence: Mapping[str, float],
) -> Architecture:
    """An architecture with fewer layers, and with feed-forwards that are no wider than asked for.

    Args:
        space: The space.
        architecture: What is made smaller.
        layers: Layers to keep, those of the largest influence; None for all.
        ffn: Hidden units of each of them at most; None for all.
        influence: Block influence of each layer, by scope.

    Raises:
        SpaceError: The space does not have the values.
    """
    choices = dict(architecture.choices)
    running = [i for i in axes.layers(choices) if choices.get(axes.path(axes.RUNS, i), axes.ONCE) != axes.DROPPED]
    # Of equal influence, the earlier layer stays.
    ranked = sorted(running, key=lambda i: (-influence.get(axes.layer(i), 0.0), i))
    for number in ranked[layers:] if layers is not None else ():
        choices[axes.path(axes.RUNS, number)] = axes.DROPPED
    if ffn is not None:
        choices |= {path: min(int(choices[path]), ffn) for path in axes.paths(choices, axes.FFN)}  # type: ignore[arg-type]
    live = {path: value for path, value in choices.items() if path in space.choices}
    return space.architecture(live)


@torch.no_grad()
def pruned(
    space: SearchSpace,
    model: Standalone,
    architecture: Architecture,
    statistics: Statistics,
    criterion: str = "magnitude",
    refit: bool = True,
) -> Standalone:
    """The weights of a model that a smaller architecture keeps.

    Args:
        space: Of both architectures.
        model: The larger model.
        architecture: The smaller one (`smaller`).
        statistics: Of the larger model (`importance.observe`).
        criterion: By which hidden units are kept; a key of `importance.CRITERIA`.
        refit: Whether the weights that read hidden units are fitted again to give what all units gave.

    Raises:
        SpaceError: A weight would be larger, or has lost more than hidden units.
    """
    plan = make_plan(space, architecture)
    shapes = plan.shapes()
    tensors = {key: weight_of(model.owner(key[0]), key[1]).detach() for key in shapes}
    for number in axes.layers(architecture.choices):
        counted = {key: axis for key, axis in _counting(space, axes.path(axes.FFN, number)).items() if key in shapes}
        reader = next((key for key, axis in counted.items() if axis > 0 and key in statistics.gram), None)
        if reader is None or tensors[reader].shape == shapes[reader]:
            continue
        units = shapes[reader][counted[reader]]
        scores = unit_scores(statistics, reader, tensors[reader], criterion).flatten()
        order = scores.argsort(descending=True, stable=True)
        kept = order[:units].sort().values
        gram = statistics.gram[reader] if refit else None
        for key, axis in counted.items():
            full = tensors[key]
            tensors[key] = full.index_select(axis, kept)
            if key == reader and gram is not None:
                all_units = torch.cat([kept, order[units:]])
                sorted_gram = gram[all_units][:, all_units]
                tensors[key] = tensors[key] + refit_change(full.index_select(axis, all_units), sorted_gram, (units,))
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != tuple(shape):
            raise SpaceError(f"weight {'.'.join(key)} is {list(tensors[key].shape)}, and would be {list(shape)}")
    return Standalone(plan, {key: tensor.clone() for key, tensor in tensors.items()}).eval()


def _counting(space: SearchSpace, choice: str) -> dict[Key, int]:
    """The weights of which an axis counts what a choice decides, with that axis."""
    return {
        (node.weights, name): axis
        for node in space.graph.nodes
        for name, param in node.params.items()
        for axis, dimension in enumerate(param.shape)
        if choice in dimension.paths and not param.scales_of
    }
