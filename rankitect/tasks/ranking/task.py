"""Click prediction: what controllers and evaluators of rankers share in one search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from rankitect.contracts import MetricSpec, SharedTraining, Spent, Unit
from rankitect.tasks.costs import RANKING_COSTS, bounded
from rankitect.tasks.ranking.hooks import RankingHooks
from rankitect.tasks.ranking.settings import RankingConfig
from rankitect.tasks.shared_weights import SharedWeights
from rankitect.training.placement import placement
from rankitect.training.spending import training_flops

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.encoder import RowEncoder
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, ChoiceSpace, SearchSpace
    from rankitect.metrics.ranking import RankingQuality
    from rankitect.models.supernet import Standalone, Supernet
    from rankitect.tasks.ranking.fit import FitConfig, FitResult
    from rankitect.tasks.ranking.models import NamedModel
    from rankitect.training.embeddings import HasLookupTables, TableStorage

__all__ = ["Ranking"]


class Ranking(RankingHooks, SharedWeights):
    """Rankers trained from scratch on a click log.

    Attributes:
        config: The keys of `task`.
        data: The rows, in batches.
        features: What the data give to a model; spaces are made from it.
    """

    Config = RankingConfig
    unit: Unit = "examples"
    search_split = "validation"
    bounded_costs: ClassVar = bounded(RANKING_COSTS)
    samples_per_update = 16
    """Of a differentiable search or a policy: for a small ranker either costs as much as many steps of its weights."""
    shared_sizes = (240, 12)
    """Architectures that a search with shared weights looks at, a tenth of a second each, and its finalists."""
    preload: ClassVar = ("rankitect.tasks.ranking.models", "torchrec.modules.fused_embedding_modules")
    """Modules that a process which measures rankers imports before it knows what to measure."""

    def __init__(self, config: RankingConfig, parts: Parts) -> None:
        from rankitect.data.ranking.batches import RankingBatches
        from rankitect.data.ranking.prepare import open_ranking
        from rankitect.tasks.ranking.costs import RankingCosts
        from rankitect.tasks.ranking.known import KnownRankers
        from rankitect.tasks.ranking.training import RankingTraining

        self.config, self._parts = config, parts
        table = open_ranking(config.data, progress=parts.say)
        self.features: Features = table.features
        self.data = RankingBatches(table, batch=config.batch, seed=parts.config.seed)
        self._known = KnownRankers(config, table, parts)
        self._costs = RankingCosts(config.reference, self._known, self.data, self.features, parts)
        self._training = RankingTraining(config, self.data, self._known, self._costs, parts)

    @classmethod
    def from_config(cls, config: RankingConfig, parts: Parts) -> Ranking:
        """Made from its section of the configuration."""
        return cls(config, parts)

    # --- data, loss and quality -------------------------------------------------------------------------------------
    def batch_at(self, split: str, step: int) -> RankingBatch:
        """The rows of a training step."""
        return placement().move(self.data.batch_at(split, step))

    def loss(self, model: nn.Module | Callable[..., torch.Tensor], batch: RankingBatch) -> torch.Tensor:
        """Weighted mean of the binary cross-entropy, nats."""
        from rankitect.metrics.ranking import ranking_loss

        with placement().computing():
            return ranking_loss(model, batch.to(placement().of(model)))

    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> RankingQuality:
        """Normalized entropy and the rest on a split; `sample` counts rows, by default as configured."""
        from rankitect.metrics.ranking import ranking_quality

        usual = self.config.search_rows if split == self.search_split else None
        with placement().computing():
            return ranking_quality(
                model, self.data, split, rows=sample or usual, check=check, device=placement().of(model)
            )

    def quality_specs(self, split: str) -> list[MetricSpec]:
        """Normalized entropy; on the test split log-loss and AUC as well."""
        from rankitect.metrics.ranking import quality_specs

        return quality_specs(split)

    # --- spaces and costs -------------------------------------------------------------------------------------------
    @property
    def space(self) -> ChoiceSpace:
        """The search space (made after the task)."""
        return self._parts.space

    @property
    def models(self) -> Mapping[str, NamedModel]:
        """Known rankers by name, each an architecture of its own space."""
        return self._known.models

    def space_of(self, architecture: Architecture) -> ChoiceSpace:
        """The space that an architecture belongs to: the one that is searched, or a production model's."""
        return self._known.space_of(architecture)

    def model_of(self, architecture: Architecture) -> tuple[SearchSpace, Architecture]:
        """The graph that an architecture's model is built from; see `KnownRankers.model_of`."""
        return self._known.model_of(architecture)

    def standalone(self, architecture: Architecture, seed: int) -> tuple[nn.Module, bool]:
        """A model of an architecture or a registered module, and whether it comes with its own weights."""
        return self._known.standalone(architecture, seed)

    def production_cost(self, name: str) -> float | None:
        """A cost of the production model that constraints are relative to; None where there is none, or it has none."""
        return self._costs.production_cost(name)

    # --- training ---------------------------------------------------------------------------------------------------
    def fit_config(self, architecture: Architecture, seed: int, epochs: float | None = None) -> FitConfig:
        """How one model is trained; see `RankingTraining.fit_config`."""
        return self._training.fit_config(architecture, seed, epochs)

    def trained(self, architecture: Architecture, context: TrialContext) -> tuple[nn.Module, FitResult | None]:
        """A model trained from scratch with early stopping, and how that went; None where it has weights of its own, or
        those that a search has trained."""
        taken = self.taken(architecture)
        if taken is not None:
            return taken, None
        return self._training.alone(architecture, context)

    def briefly_trained(self, architecture: Architecture, context: TrialContext) -> tuple[nn.Module, Spent]:
        """A model after `short_epochs` from scratch, and what that cost."""
        model, result = self._training.alone(architecture, context, self.config.short_epochs)
        if result is None:
            return model, Spent()
        return model, self.spent_alone(architecture, result.examples) + Spent(eval_examples=result.evaluated)

    def spent_alone(self, architecture: Architecture, examples: int) -> Spent:
        """What training one model on so many rows costs, registered modules included."""
        return self._training.spent_alone(architecture, examples)

    def shared_training(self, screened: bool) -> SharedTraining:
        """The training of shared weights, for a method that takes its gradients from them or to screen candidates."""
        return self._training.shared(screened)

    def supernet(self, space: SearchSpace) -> Supernet:
        """Fresh weights for a search to train."""
        from rankitect.models.supernet import Supernet

        return placement().place(Supernet(space, self._parts.config.seed))

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture as a part of shared weights costs."""
        flops = training_flops(space.cost(architecture, "flops", B=1), amount)
        return Spent(train_examples=amount, train_flops=flops)

    def hold_tables(self, model: HasLookupTables, lr: float | None = None) -> TableStorage | None:
        """Tables of shared weights, trained as those of a single model are but at another rate, `lr` or the task's."""
        return self._training.hold_tables(model, lr)

    @property
    def inherited(self) -> Supernet | None:
        """The weights that a search has trained, if any."""
        return self._adopted

    def train_loss(self, model: nn.Module, step: int, batch: int | None = None) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, on `batch` (or the task's number of) training rows, and how many
        they are.

        The same step gives the same rows, so that two models can be compared before either has learnt from them.
        """
        return self._training.train_loss(model, step, batch)

    def search_loss(self, forward: Callable[..., torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss that architectures are chosen by, on validation rows, which no weights learn from.

        Args:
            forward: From (numeric [B, N], ids [B, S]) to logits [B, 1].
            step: Decides the batch.
        """
        return self._training.search_loss(forward, step)

    def save_candidate(self, folder: Path, architecture: Architecture, model: Standalone) -> dict[str, str]:
        """Write a ranker with what turns rows of the table into its inputs."""
        from rankitect.models.candidate import save_ranker

        space, closed = self.model_of(architecture)
        return save_ranker(folder, space, closed, model, self.features, architecture, encoder=self._encoder)

    @cached_property
    def _encoder(self) -> RowEncoder:
        from rankitect.data.ranking.store import stored_encoder

        return stored_encoder(self.data.table.folder)
