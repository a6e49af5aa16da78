"""Strategies that draw architectures through the spaces' own sampler."""

from __future__ import annotations

from hypothesis import strategies as st

from rankitect.graph import Architecture, SearchSpace
from tests.graph.spaces import CASES

__all__ = ["architectures", "every_space", "seeds"]

seeds = st.integers(0, 2**32 - 1)


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    """Architectures of a space, uniform over distinct ones."""
    return seeds.map(space.sample)


def every_space() -> list[str]:
    """Names of all small spaces."""
    return list(CASES)
