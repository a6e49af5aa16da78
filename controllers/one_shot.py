"""One-shot search: a supernet with shared weights is trained once, then architectures evolve on what they inherit.

Single-path and any-path sampling follow SPOS (arXiv 1904.00420) and NASRec (arXiv 2207.07187), the sandwich rule with
in-place distillation Universally Slimmable Networks (arXiv 1903.05134), the fitted last layer NASRec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from rankitect.contracts import SharesWeights
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.objectives import Objectives
from rankitect.methods.staged import measured_by
from rankitect.methods.supernet_search import SupernetConfig, SupernetSearch

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["OneShot"]


class OneShot(SupernetSearch):
    """See the module. The screening evaluator measures each candidate with the weights that it inherits."""

    wraps_evaluators = True
    """Processes that measure need it as well: see `rankitect.config.parts.build`."""

    class Config(SupernetConfig):
        """Keys of `controller`."""

        final_layer_steps: int = Field(
            0,
            ge=0,
            le=10**9,
            description="steps of the last layer alone before a candidate is screened; NASRec takes 500",
        )
        final_layer_lr: float = Field(0.01, gt=0, description="their learning rate")

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """Weights to share."""
        return (SharesWeights,)

    @classmethod
    def by_graph_alone(cls, config: Config) -> bool:
        """Always: it compares by shared weights."""
        return True

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> OneShot:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator that the search asks is not configured.
        """
        by = measured_by(config.by, parts)
        if config.final_layer_steps and by == "screen":
            from rankitect.methods.final_layer import FinalLayerTuned

            task = parts.require(SharesWeights, "controller")
            parts.evaluators[by] = FinalLayerTuned(
                parts.evaluators[by], parts.graph_space, task, config.final_layer_steps, config.final_layer_lr
            )
        return cls(
            config,
            config.length(parts.task),
            by,
            BoundedSpace.of(parts, shared=True),
            Objectives.of(parts, by),
            parts.task,
            parts.config.seed,
        )
