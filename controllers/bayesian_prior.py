"""What a task's prior tells Bayesian optimisation: a guess of the quality, and architectures to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.errors import SpaceError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.methods.bounded_space import BoundedSpace

__all__ = ["expected_rise", "suggestions"]

SIZES = 24
"""Sizes at which the prior is asked for the best values."""


def expected_rise(space: ChoiceSpace, prior: Mapping[str, Any]) -> Callable[[Sequence[Architecture]], np.ndarray]:
    """A rough guess of how much the loss rises: the sum over what each choice is expected to add.

    Args:
        space: The space.
        prior: For some choices, the expected rise at each value.
    """
    rises = {p: dict(zip(space.choices[p].values, r.tolist(), strict=True)) for p, r in prior.items()}

    def rise(architectures: Sequence[Architecture]) -> np.ndarray:
        return np.asarray([sum(rises[p][v] for p, v in a.choices.items() if p in rises) for a in architectures])

    return rise


def suggestions(
    bounded: BoundedSpace, prior: dict[str, Any], cost: str, reference: Architecture, seed: int
) -> list[Architecture]:
    """What a prior suggests within the constraints, from the smallest cost that they allow to the largest.

    Args:
        bounded: The space and its constraints.
        prior: For some choices, how much the loss is expected to rise at each value.
        cost: The cost whose sizes are gone through, as the space names it.
        reference: The architecture whose cost is 1.
        seed: Of the draws.
    """
    from rankitect.controllers.dnas_scores import Scores

    space, rng = bounded.graph_space, np.random.default_rng([seed, 10**6])
    scores, whole = Scores(space, cost, reference, prior), float(space.cost(reference, cost))
    ends = [float(space.cost(bounded.extreme(cost, most, np.random.default_rng(seed)), cost)) for most in (False, True)]
    suggested = []
    for share in np.linspace(ends[0], ends[1], SIZES) / whole:
        try:
            suggested.append(scores.discretise(float(share), rng, limits=bounded.limits))
        except SpaceError:  # nothing of this size is within the bounds on other costs
            continue
    return [a for a in dict.fromkeys(suggested) if bounded.allowed(a)]
