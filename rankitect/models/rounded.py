"""A model of few bits for files whose readers know only floats: its weights are what it computes with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rankitect.graph.quantized import FLOAT, Quantized
from rankitect.models.numerics import fake_weight
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import weight_of

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.plan import Step

__all__ = ["in_rounded_floats"]

Key = tuple[str, str]


def in_rounded_floats(
    space: SearchSpace, architecture: Architecture, model: Standalone
) -> tuple[SearchSpace, Standalone]:
    """A model with its weights rounded, in a space that says nothing of bits; itself where nothing is rounded.

    What rounds activations and caches is left out: no such file has a place for it. A weight that several blocks round
    in different ways, as embedding and head may the table that they share, stays as it is. Blocks whose bits are
    choices keep them.

    Args:
        space: The model's.
        architecture: The model's.
        model: The model.
    """
    if model.plan.is_float:
        return space, model
    plain = space.with_blocks({n.path: _plain(n.block) for n in space.graph.nodes if isinstance(n.block, Quantized)})
    plan = make_plan(plain, architecture)
    known = _rounded(model)
    return plain, Standalone(plan, {key: known[key] for key in plan.shapes()}).eval()


def _plain(block: Quantized) -> Quantized:
    if block.has_open_numerics:
        return replace(block, ranges="minmax")
    return replace(block, bits=FLOAT, scale_group=0, act_bits=FLOAT, cache_bits=FLOAT, ranges="minmax")


@torch.no_grad()
def _rounded(model: Standalone) -> dict[Key, torch.Tensor]:
    """Each weight as the steps that read it round it, where they agree; else as it is held."""
    readings: dict[Key, list[torch.Tensor]] = {}
    for step in model.plan.steps:
        for name in step.shapes:
            readings.setdefault((step.weights, name), []).append(_reading(model, step, name))
    held = {key: weight_of(model.owner(key[0]), key[1]).detach() for key in readings}
    same = {key for key, each in readings.items() if all(torch.equal(each[0], other) for other in each[1:])}
    return {key: readings[key][0] if key in same else weight for key, weight in held.items()}


def _reading(model: Standalone, step: Step, name: str) -> torch.Tensor:
    owner = model.owner(step.weights)
    weight = weight_of(owner, name).detach()
    if (numerics := step.numerics.get(name)) is None:
        return weight
    scale = None if numerics.scale is None else owner.get_parameter(numerics.scale).detach()
    return fake_weight(weight, numerics, scale)
