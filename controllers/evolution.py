"""Regularised, multi-objective evolution (arXiv 1802.01548; NSGA-II, Deb et al. 2002), the best measured in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.evolving import EvolutionConfig, EvolvingSearch
from rankitect.methods.objectives import Objectives
from rankitect.methods.staged import measured_by

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["Evolution"]


class Evolution(EvolvingSearch):
    """Evolves architectures by what the screening evaluator (or, with `by: final`, full training) measures."""

    class Config(EvolutionConfig):
        """Keys of `controller`."""

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Evolution:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator that the search asks is not configured.
        """
        by = measured_by(config.by, parts)
        return cls(config, by, BoundedSpace.of(parts), Objectives.of(parts, by), parts.config.seed)
