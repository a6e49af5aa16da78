"""The same random architectures whatever measures them: to compare a cheap score with training in full.

Runs of one seed that differ in `by` and `warmup` propose the same architectures in the same order, so their results can
be laid side by side (`python -m rankitect.compare` does). No search method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rankitect.contracts import Proposal, SharesWeights
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.objectives import Objectives
from rankitect.methods.staged import measured_by
from rankitect.methods.supernet_search import SupernetConfig, SupernetSearch

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session
    from rankitect.graph import Architecture

__all__ = ["Sampled"]


class Sampled(SupernetSearch):
    """See the module. With `warmup`, evaluators see weights that a supernet's training of that length left."""

    class Config(SupernetConfig):
        """Keys of `controller`."""

        by: Literal["screen", "proxy", "final"] = Field("final", description="evaluator of all architectures")
        warmup: float | None = Field(
            None, ge=0, le=1, description="fraction of a supernet's training beforehand; null: no shared weights at all"
        )

        trial_seed: int | None = Field(None, ge=0, lt=2**32, description="seed of all measurements; null: the study's")

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """Weights to share, where a supernet is trained beforehand."""
        return () if config.warmup is None else (SharesWeights,)

    @classmethod
    def by_graph_alone(cls, config: Config) -> bool:
        """Where a supernet is trained beforehand."""
        return config.warmup is not None

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Sampled:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator is not configured.
        """
        by = measured_by(config.by, parts)
        steps = math.ceil((config.warmup or 0.0) * config.length(parts.task))
        controller = cls(
            config,
            steps,
            by,
            BoundedSpace.of(parts, shared=True),
            Objectives.of(parts, by),
            parts.task,
            parts.config.seed,
        )
        controller.count, controller._shared, controller._trial_seed = 0, config.warmup is not None, config.trial_seed
        return controller

    _shared: bool
    _trial_seed: int | None

    def prepare(self, session: Session) -> None:
        """Train the supernet where one is wanted."""
        if self._shared:
            super().prepare(session)

    def ask(self, n: int) -> list[Proposal]:
        """The next architectures."""
        return [replace(proposal, seed=self._trial_seed) for proposal in super().ask(n)]

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """The architecture of an index, whatever was told."""
        drawn = self.bounded.nth((self.seed,), index, self.known)
        return None if drawn is None else (drawn, {"index": index})
