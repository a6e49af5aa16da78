"""Weights that a search has trained, on their way to the processes that measure candidates with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Supernet

__all__ = ["received", "sent"]

_WEIGHTS, _BASE = "weights", "base"


def sent(adopted: Supernet | None, space: SearchSpace) -> dict[str, bytes]:
    """A supernet that candidates inherit from, as bytes (safetensors); empty where there is none.

    Args:
        adopted: Of the space, or of its base.
        space: The space that is searched.
    """
    if adopted is None:
        return {}
    from safetensors.torch import save

    weights = {name: tensor.detach().contiguous() for name, tensor in adopted.state_dict().items()}
    return {_WEIGHTS: save(weights), _BASE: b"" if adopted.space is space else b"1"}


def received(shared: Mapping[str, bytes], space: SearchSpace, make: Callable[[SearchSpace], Supernet]) -> Supernet:
    """The inverse of `sent`.

    Args:
        shared: What was sent.
        space: The space that is searched.
        make: Makes a supernet of a space.
    """
    from safetensors.torch import load

    made = make(space.base if shared[_BASE] and space.base is not None else space)
    made.load_state_dict(load(shared[_WEIGHTS]))
    return made
