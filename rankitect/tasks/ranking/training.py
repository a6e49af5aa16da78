"""How rankers are trained in one search: alone, and as parts of shared weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rankitect.contracts import SharedTraining, Spent
from rankitect.errors import ConfigError
from rankitect.training.parallel import peers
from rankitect.training.placement import placement
from rankitect.training.spending import training_flops

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.graph import Architecture
    from rankitect.tasks.ranking.costs import RankingCosts
    from rankitect.tasks.ranking.fit import FitConfig, FitResult
    from rankitect.tasks.ranking.known import KnownRankers
    from rankitect.tasks.ranking.settings import RankingConfig
    from rankitect.training.embeddings import HasLookupTables, TableStorage

__all__ = ["SEARCH_ORDER", "RankingTraining"]

SEARCH_ORDER = 1_000_003
"""Added to the seed for the order of rows while shared weights are trained: candidates see them in another order."""


class RankingTraining:
    """Settings and losses of training.

    Args:
        config: The settings.
        data: The rows.
        known: Rankers with settings of their own.
        costs: FLOPs of a model, for the ledger.
        parts: The study's, whose bindings say which settings choices decide.
    """

    def __init__(
        self, config: RankingConfig, data: RankingBatches, known: KnownRankers, costs: RankingCosts, parts: Parts
    ) -> None:
        self._config, self._data, self._known, self._costs, self._parts = config, data, known, costs, parts

    def fit_config(self, architecture: Architecture, seed: int, epochs: float | None = None) -> FitConfig:
        """How one model is trained: as all are, but for settings that its choices decide, and for a known ranker with
        settings of its own.

        Args:
            architecture: The model.
            seed: Of the order of the rows.
            epochs: Instead of the configuration's.

        Raises:
            ConfigError: A known ranker's settings are none of an optimiser.
        """
        from rankitect.tasks.ranking.fit import FitConfig

        # Settings of a known ranker's own first: a choice decides over all.
        c = self._parts.bindings.applied("task", self._of_model(architecture), architecture)
        return FitConfig(
            epochs=c.epochs if epochs is None else epochs,
            batch=c.batch,
            one_pass=c.one_pass,
            evaluate_every=c.evaluate_every,
            patience=c.patience,
            optimizer=c.optimizer,
            tables=c.tables.settings(),
            seed=seed,
        )

    def _of_model(self, architecture: Architecture) -> RankingConfig:
        """The settings with those that a known ranker has of its own; a registered module has none."""
        if self._known.is_module(architecture):
            return self._config
        sections: dict[str, Any] = {"optimizer": self._config.optimizer, "tables": self._config.tables}
        _, graph_choices = self._known.model_of(architecture)
        for name, model in self._known.models.items():
            for section, own in model.training.items() if model.architecture == graph_choices else ():
                try:
                    sections[section] = type(sections[section])(**{**sections[section].model_dump(), **own})
                except ValidationError as error:
                    wrong = error.errors()[0]
                    where = ".".join(str(key) for key in (name, section, *wrong["loc"]))
                    raise ConfigError(f"task.models.{where}: {wrong['msg']}.") from None
        return self._config.model_copy(update=sections)

    def alone(
        self, architecture: Architecture, context: TrialContext, epochs: float | None = None
    ) -> tuple[nn.Module, FitResult | None]:
        """A model of an architecture, trained from scratch with early stopping; one with weights of its own as it is.

        Args:
            architecture: The model.
            context: Of the measurement that it is for.
            epochs: Instead of the configuration's.

        Raises:
            StopRequested: The user asked to stop.
        """
        from rankitect.tasks.ranking.fit import fit

        model, ready = self._known.standalone(architecture, context.seed)
        placement().place(model)
        if ready:
            return model, None
        config, flops = self.fit_config(architecture, context.seed, epochs), self._flops(architecture)

        def progress(done: int, total: int, note: str) -> None:
            context.spent = _spent(flops, done * config.batch)
            context.progress(done, total, note)

        # Online training keeps no checkpoint: its progressive validation is one undisturbed pass.
        checkpoint = None if context.state is None or config.one_pass else context.state / "fit.safetensors"
        result = fit(
            model, self._data, config, progress=progress, should_stop=context.should_stop, checkpoint=checkpoint
        )
        context.check()
        return model, result

    def spent_alone(self, architecture: Architecture, examples: int) -> Spent:
        """What training one model costs: of the searched space, a known ranker, or a registered module."""
        return _spent(self._flops(architecture), examples)

    def _flops(self, architecture: Architecture) -> float:
        """Of one example; those of a registered module are counted by running it."""
        return self._costs.metrics(architecture)["flops"].value

    def shared(self, screened: bool) -> SharedTraining:
        """The training of shared weights: for a method that takes its gradients from them, or to screen candidates."""
        c = self._config
        if not screened:
            return SharedTraining(self._steps(c.shared_batch), c.shared_lr)
        return SharedTraining(self._steps(c.screened_batch), c.shared_lr, c.screened_batch, c.screened_table_lr)

    def _steps(self, batch: int) -> int:
        return max(1, round(self._config.shared_epochs * self._data.steps("train", batch)))

    def hold_tables(self, model: HasLookupTables, lr: float | None = None) -> TableStorage | None:
        """Tables of shared weights, trained as those of a single model are but at another rate, `lr` or the task's."""
        from rankitect.training.embeddings import TableStorage

        settings = self._config.tables.settings()
        if settings is None:
            return None
        return TableStorage(model, dataclasses.replace(settings, lr=lr or self._config.shared_table_lr))

    def train_loss(self, model: nn.Module, step: int, batch: int | None) -> tuple[torch.Tensor, int]:
        """The loss on this process's part of a training batch of shared weights, and its rows."""
        from rankitect.metrics.ranking import ranking_loss

        seed = None if self._config.one_pass else self._parts.config.seed + SEARCH_ORDER
        whole = self._data.batch_at("train", step, batch=batch or self._config.shared_batch, seed=seed)
        own = _own(whole)
        return ranking_loss(model, own), len(own)

    def search_loss(self, forward: Callable[..., torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss on this process's part of a batch of validation rows, and its rows."""
        from rankitect.metrics.ranking import ranking_loss

        batch = _own(self._data.batch_at("validation", step, batch=self._config.shared_batch))
        return ranking_loss(forward, batch), len(batch)


def _own(batch: RankingBatch) -> RankingBatch:
    """This process's part of a batch, where it computes."""
    return placement().move(batch.part(peers().shard(len(batch))))


def _spent(flops: float, examples: int) -> Spent:
    """What training on so many examples costs, at so many FLOPs for the forward pass of one."""
    return Spent(train_examples=examples, train_flops=training_flops(flops, examples))
