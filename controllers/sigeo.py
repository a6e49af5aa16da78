"""SiGeo: a supernet warmed up on a fraction of the data, then architectures evolve on a proxy of what it has learnt.

Sub-one-shot search (arXiv 2311.13169): the warm-up costs a part of a one-shot training, and the proxy (evaluator
`proxy`, `rankitect.evaluators.proxies`) a few batches a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rankitect.contracts import SharesWeights
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.objectives import Objectives
from rankitect.methods.staged import measured_by
from rankitect.methods.supernet_search import SupernetConfig, SupernetSearch

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["SiGeo"]


class SiGeo(SupernetSearch):
    """See the module. Which proxy is asked, and its coefficients, are keys of `evaluator.proxy`."""

    class Config(SupernetConfig):
        """Keys of `controller`."""

        by: Literal["screen", "proxy", "final"] = Field("proxy", description="evaluator that the search asks")
        warmup: float = Field(
            0.4, ge=0, le=1, description="fraction of the supernet's whole training; 0 searches on untrained weights"
        )

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """Weights to share."""
        return (SharesWeights,)

    @classmethod
    def by_graph_alone(cls, config: Config) -> bool:
        """Always: its scores are of shared weights."""
        return True

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SiGeo:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator that the search asks is not configured.
        """
        by = measured_by(config.by, parts)
        steps = math.ceil(config.warmup * config.length(parts.task))
        return cls(
            config,
            steps,
            by,
            BoundedSpace.of(parts, shared=True),
            Objectives.of(parts, by),
            parts.task,
            parts.config.seed,
        )
