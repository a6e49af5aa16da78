"""Uniform scaling: what one gets without a search, the baselines that a search has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Baseline
from rankitect.errors import SpaceError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["scaled", "scaled_baselines"]

_PLACES = 40
"""Sizes of the family, from everything at its smallest to the largest network."""


def scaled(space: SearchSpace, largest: Architecture) -> Iterator[Architecture]:
    """Networks with every size (width, depth, kernel …) at the same place between its smallest and its largest value,
    smallest first; what is no size is as in the largest network. Those that break a rule of the space are left out.

    Args:
        space: The space.
        largest: Its largest network.
    """
    known: set[str] = set()
    for place in range(_PLACES + 1):
        chosen: dict[str, Any] = {}
        for path, choice in space.choices.items():
            values = choice.values
            chosen[path] = largest.choices.get(path, values[0])
            if choice.kind == "ordinal":
                sizes = sorted(values)
                chosen[path] = sizes[round(place / _PLACES * (len(sizes) - 1))]
        try:
            architecture = space.architecture(chosen)
        except SpaceError:
            continue
        if architecture.fingerprint not in known:
            known.add(architecture.fingerprint)
            yield architecture


def scaled_baselines(space: SearchSpace, largest: Architecture, shares: Sequence[float]) -> list[Baseline]:
    """The largest network, which costs are shares of, and those of the family nearest to shares of its FLOPs.

    Args:
        space: The space.
        largest: Its largest network.
        shares: Of the FLOPs.
    """
    baselines = {largest.fingerprint: Baseline("largest", largest, reference=True)}
    whole = space.cost(largest, "flops")
    family = [(space.cost(one, "flops") / whole, one) for one in scaled(space, largest)] if shares else []
    for share in shares:
        reached, one = min(family, key=lambda pair: abs(pair[0] - share))
        baselines.setdefault(one.fingerprint, Baseline(f"uniform {reached:.0%}", one))
    return list(baselines.values())
