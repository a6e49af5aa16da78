"""A base for tasks of one's own: with data, a loss and a quality, a task has all that every method asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from rankitect.contracts import MetricSpec, Spent, Unit
from rankitect.tasks.costs import CostReading, Costs, check_constraints, specs
from rankitect.tasks.shared_weights import SharedWeights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.config.quantities import Bounds
    from rankitect.contracts import Exporter, Metric, Quality, Trial, TrialContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Supernet

__all__ = ["TaskBase"]


class TaskBase(SharedWeights):
    """A task that trains models of a graph from scratch. A subclass gives `batch_at`, `loss`, `quality` and
    `quality_specs` (see `rankitect.contracts.Task`), and whatever it wants otherwise.

    Args:
        parts: The study's; the space is made after the task.
    """

    unit: Unit = "examples"
    search_split = "validation"
    symbols: ClassVar[Mapping[str, int]] = {"B": 1}
    """Sizes of the free dimensions by which FLOPs are counted."""
    readings: ClassVar[Mapping[str, CostReading]] = {"flops": CostReading("flops"), "params": CostReading("params")}
    """Costs by the name under which `constraints` bound them and reports show them."""
    brief_steps = 50
    """Training steps of a first look at an architecture, where no search has trained shared weights."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # --- what a subclass gives --------------------------------------------------------------------------------------
    @abstractmethod
    def batch_at(self, split: str, step: int) -> Any:
        """The batch of a step, a pure function of its arguments; `len` of it counts examples or tokens."""

    @abstractmethod
    def loss(self, model: nn.Module | Callable[..., torch.Tensor], batch: Any) -> torch.Tensor:
        """The loss to train on."""

    @abstractmethod
    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> Quality:
        """How good a model is on a split."""

    @abstractmethod
    def quality_specs(self, split: str) -> list[MetricSpec]:
        """The metrics that `quality` promises for a split, the one to choose by first."""

    # --- costs ------------------------------------------------------------------------------------------------------
    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self._parts.graph_space

    @cached_property
    def reference(self) -> Architecture:
        """The architecture that constraints are relative to: the one of most FLOPs."""
        from rankitect.methods.bounded_space import largest_by

        return largest_by(self.space, "flops")

    @cached_property
    def _costs(self) -> Costs:
        return Costs(self.readings, self.space, self.reference, self.symbols)

    @property
    def cost_specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        return specs(self.readings)

    def costs(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture."""
        return self._costs.metrics(architecture)

    def limits(self, constraints: Mapping[str, Bounds] | None = None) -> dict[str, tuple[float, float]]:
        """Constraints, by default the configuration's, as bounds for `SearchSpace.sample`."""
        return self._costs.limits(self._parts.config.constraints if constraints is None else constraints)

    # --- weights ----------------------------------------------------------------------------------------------------
    def supernet(self, space: SearchSpace) -> Supernet:
        """Fresh weights for a search to train."""
        from rankitect.models.supernet import Supernet

        return Supernet(space, self._parts.config.seed)

    @property
    def inherited(self) -> Supernet | None:
        """The weights that a search has trained, if any."""
        return self._adopted

    def train_loss(self, model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, and how much data it was of."""
        batch = self.batch_at("train", step)
        return self.loss(model, batch), len(batch)

    def search_loss(self, forward: Callable[..., torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss that architectures are chosen by, on data that no weight is trained on."""
        batch = self.batch_at(self.search_split, step)
        return self.loss(forward, batch), len(batch)

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture on an amount of data costs; an example's FLOPs are those of `symbols`."""
        from rankitect.training.spending import training_flops

        flops = training_flops(space.cost(architecture, "flops", "", **self.symbols), amount)
        return Spent.training(amount, self.unit) + Spent(train_flops=flops)

    def briefly_trained(self, architecture: Architecture, context: TrialContext) -> tuple[nn.Module, Spent]:
        """A model after `brief_steps` from scratch, and what that cost."""
        from rankitect.tasks.alone import train_alone
        from rankitect.training.settings import OptimizerConfig

        return train_alone(self, self.space, architecture, self.brief_steps, OptimizerConfig(), context)

    # --- hooks of the study -----------------------------------------------------------------------------------------
    def check(self, parts: Parts) -> None:
        """Refuse constraints that no architecture meets."""
        check_constraints(self.space, self.limits(), parts.config.constraints, "the largest architecture")

    def exporter(self, parts: Parts) -> Exporter:
        """Draws each candidate's graph."""
        from pathlib import Path

        from rankitect.tasks.exporting import drawn

        def export(trial: Trial, folder: Path) -> dict[str, str]:
            return drawn(self.space, trial.architecture, folder)

        return export
