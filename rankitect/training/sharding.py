"""Weights, gradients and running means of a model, divided among the processes that train it (FSDP2).

What is divided is a copy: every process holds its part of it on the device, and gets whole weights for the length of a
forward and backward pass. The model itself waits on the CPU and has the trained weights in the end, under its own
names, so that nothing else need know.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rankitect.training.parallel import peers

if TYPE_CHECKING:
    from rankitect.training.placement import Placement

__all__ = ["bring_back", "divided", "is_divided", "part_of", "whole"]

M = TypeVar("M", bound=nn.Module)


def divided(model: M, place: Placement) -> M:
    """A copy of a model that is divided among the processes that train it.

    Args:
        model: Goes to the CPU.
        place: Where the copy goes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    shared = copy.deepcopy(model.to("cpu"))
    # Whole until the backward pass is over: blocks read weights that their holders, which have no forward, keep.
    fully_shard(shared, mesh=init_device_mesh(place.device.type, (peers().world,)), reshard_after_forward=False)
    fsdp: Any = shared
    # Losses are weighed by rows already: gradients are summed, which gloo can as well as NCCL.
    fsdp.set_force_sum_reduction_for_comms(True)
    fsdp.set_gradient_divide_factor(1.0)
    return shared


def is_divided(tensor: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    kinds = sys.modules.get("torch.distributed.tensor")  # not loaded where nothing was divided
    return kinds is not None and isinstance(tensor, kinds.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process asks for it at the same point."""
    if not is_divided(tensor):
        return tensor
    divided: Any = tensor  # a DTensor
    everything: Tensor = divided.full_tensor()
    return everything


def part_of(whole: Tensor, held: Tensor) -> Tensor:
    """What this process holds of something whole, divided as another tensor is."""
    if not is_divided(held):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(held, DTensor)
    return distribute_tensor(whole.to(held.device), held.device_mesh, held.placements)


def bring_back(model: nn.Module, trained: nn.Module, place: Placement) -> None:
    """Give a model the weights of its divided copy, and its place again."""
    with torch.no_grad():
        own = dict(model.named_parameters())
        for name, parameter in trained.named_parameters():
            own[name].copy_(whole(parameter.detach()))
    place.place(model)
