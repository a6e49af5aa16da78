"""Training of a ranker: epochs with early stopping, or one pass with progressive validation, on the one training loop.

Early stopping looks at the validation split every so often and keeps the weights that were best there. In online
training every row is seen once, in its own order, and is predicted before it is learnt from: the loss before each step
is a validation loss on data that the weights have not seen (progressive validation, Blum et al., COLT 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rankitect.contracts import JSON
from rankitect.data.ranking.batch import RankingBatch
from rankitect.data.ranking.batches import RankingBatches
from rankitect.errors import TrainingError
from rankitect.metrics.ranking import logits_of, ranking_loss, ranking_quality, weighted_loss
from rankitect.metrics.ranking_metrics import RankingMetrics
from rankitect.training.checkpoint import load_state, save_state
from rankitect.training.embeddings import HasLookupTables, TableConfig, TableStorage
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig, StepReport
from rankitect.training.parallel import peers
from rankitect.training.placement import placement

__all__ = ["FitConfig", "FitResult", "Progressive", "fit", "refit"]


@dataclass(frozen=True)
class FitConfig:
    """How a ranker is trained.

    Attributes:
        epochs: passes over the training split, at most; a part of one is allowed.
        batch: rows of a step.
        one_pass: one pass in the rows' own order, with progressive validation and without early stopping.
        evaluate_every: epochs between looks at the validation split.
        patience: looks in a row that may bring nothing better before training stops.
        optimizer: learning rate, schedule, clipping.
        tables: how embedding tables are held and trained; None trains them as all other weights.
        seed: of the order of the rows.
    """

    epochs: float = 10.0
    batch: int = 1024
    one_pass: bool = False
    evaluate_every: float = 0.5
    patience: int = 3
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3, schedule="constant"))
    tables: TableConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": self.epochs, "batch": self.batch, "evaluate_every": self.evaluate_every}
        for name, value in least.items():
            if not value > 0:
                raise TrainingError(f"Training settings: {name} must be above 0, found {value}.")
        if self.patience < 1:
            raise TrainingError(f"Training settings: patience must be at least 1, found {self.patience}.")

    def steps(self, epoch: int) -> int:
        """Number of steps, given those of an epoch."""
        return epoch if self.one_pass else max(1, round(self.epochs * epoch))


@dataclass(frozen=True)
class FitResult:
    """What training gave; the model holds the best weights.

    Attributes:
        steps: steps done.
        best_step: steps after which the weights are kept.
        examples: rows trained on, repeated ones too.
        evaluated: validation rows that were looked at.
        seconds: wall-clock seconds.
        entropies: normalized entropy on the validation split by the steps done.
        progressive: of the whole pass, in online training; None otherwise.
        finished: False when the stop callback ended it early (not by early stopping).
    """

    steps: int
    best_step: int
    examples: int
    evaluated: int
    seconds: float
    entropies: dict[int, float]
    progressive: Progressive | None
    finished: bool


class Progressive:
    """Metrics of predictions made just before each step, over the whole pass and over equal parts of it.

    Args:
        name: of the data, for messages.
        steps: length of the pass.
        parts: how many parts.

    Attributes:
        whole: over all steps so far.
        parts: of each part, in order.
    """

    def __init__(self, name: str, steps: int, parts: int = 10) -> None:
        self.whole = RankingMetrics(f"{name}, progressive validation")
        self.parts = [RankingMetrics(f"{name}, part {i + 1} of {parts}", exact_rows=0) for i in range(parts)]
        self._steps, self._step = steps, 0

    def loss(self, model: nn.Module, batch: RankingBatch) -> Tensor:
        """The training loss; notes the predictions that it is made of."""
        logits = logits_of(model, batch)
        predicted = logits.detach().float().cpu()
        if bool(torch.isfinite(predicted).all()):  # else the step is skipped as well
            weights = None if batch.weight is None else batch.weight.cpu().numpy()
            part = self.parts[min(self._step * len(self.parts) // self._steps, len(self.parts) - 1)]
            for metrics in (self.whole, part):
                metrics.update(predicted.numpy(), batch.label.cpu().numpy(), weights, row=batch.row)
        self._step += 1
        return weighted_loss(logits, batch)


def fit(
    model: nn.Module,
    data: RankingBatches,
    config: FitConfig,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
) -> FitResult:
    """Trains a ranker in place; it ends with the weights that were best on the validation split.

    Args:
        model: (numeric [B, N], ids [B, S]) to logits [B, 1] or [B]; with `lookup_tables()` where tables are to be held.
        data: the rows; the splits train and validation are used.
        config: how long, with what optimiser, under what seed.
        progress: called with (steps done, steps, a note).
        should_stop: asked before every step; True saves the state and returns.
        checkpoint: file of the state; training goes on from it where it is there (not in online training, whose
            progressive metrics are not kept). Delete it and its neighbour `<name>.best` when the result is used.

    Raises:
        TrainingError: when the loss stays not finite, or a setting does not go with another.
        SpaceError: when tables and their accumulators do not fit into memory.
        DataError: when the validation split is of one class.
    """
    epoch = data.steps("train", config.batch)
    steps = config.steps(epoch)
    progressive = Progressive(data.table.name, steps) if config.one_pass else None
    every = steps if config.one_pass else min(steps, max(1, round(config.evaluate_every * epoch)))
    if progressive is not None and checkpoint is not None:
        raise TrainingError("Online training keeps no checkpoint: its progressive validation is one undisturbed pass.")
    tables = _held_tables(placement().place(model), config)
    best = _Best(model, data, config.patience, steps, checkpoint, tables)

    def after(done: int, total: int, report: StepReport) -> None:
        if done % every == 0 or done == total:
            best.look(done)
        if progress is not None:
            seen = f", NE {best.entropy:.4f}" if best.entropies else ""
            progress(done, total, f"loss {report.loss:.4f}{seen}")

    def stop() -> bool:
        return best.over or (should_stop is not None and should_stop())

    seed = None if config.one_pass else config.seed
    result = train(
        model,
        ranking_loss if progressive is None else progressive.loss,
        lambda step: _mine(data.batch_at("train", step, batch=config.batch, seed=seed)),
        TrainConfig(steps=steps, optimizer=config.optimizer, seed=config.seed, checkpoint_every=every),
        size=len,
        tables=tables,
        progress=after,
        should_stop=stop,
        checkpoint=checkpoint,
        provenance=_provenance(data, config, "train"),
    )
    finished = result.finished or best.over
    if finished:
        best.restore()
    if tables is not None:
        tables.release()
    return FitResult(
        steps=result.steps,
        best_step=best.step,
        examples=result.tokens,
        evaluated=best.evaluated,
        seconds=result.seconds,
        entropies=dict(best.entropies),
        progressive=progressive,
        finished=finished,
    )


def _provenance(data: RankingBatches, config: FitConfig, rows: str) -> dict[str, JSON]:
    """What a saved training depends on beside the optimiser's settings."""
    looks: dict[str, JSON] = {"evaluate_every": config.evaluate_every, "patience": config.patience}
    return {"data": data.table.fingerprint, "rows": rows, "batch": config.batch, **looks}


def _mine(batch: RankingBatch) -> RankingBatch:
    """This process's part of a batch, where several train together."""
    return batch.part(peers().shard(len(batch)))


def _held_tables(model: nn.Module, config: FitConfig) -> TableStorage | None:
    """Storage of embedding tables; a module of the user's own without `lookup_tables()` is trained as a whole."""
    if config.tables is None or not hasattr(model, "lookup_tables"):
        return None
    return TableStorage(cast("HasLookupTables", model), config.tables)


def refit(
    model: nn.Module,
    data: RankingBatches,
    config: FitConfig,
    epochs: float,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
) -> tuple[int, bool]:
    """Trains a fresh ranker on training and validation rows, for as many epochs as early stopping found best.

    The validation rows are the latest before the test rows; a model that goes live has learnt from them as well.

    Args:
        model: A fresh one.
        data: As for `fit`.
        config: As for `fit`.
        epochs: Passes over both splits.
        progress: As for `fit`.
        should_stop: As for `fit`.
        checkpoint: File of the state, of its own; training goes on from it where it is there.

    Returns:
        Rows trained on, and whether training came to its end.
    """
    whole = data.with_validation()
    epoch = whole.steps("train", config.batch)
    tables = _held_tables(placement().place(model), config)
    try:
        result = train(
            model,
            ranking_loss,
            lambda step: _mine(whole.batch_at("train", step, batch=config.batch, seed=config.seed)),
            TrainConfig(
                steps=max(1, round(epochs * epoch)),
                optimizer=config.optimizer,
                seed=config.seed,
                checkpoint_every=max(1, round(config.evaluate_every * epoch)),
            ),
            size=len,
            tables=tables,
            progress=None if progress is None else lambda done, total, report: progress(done, total, "refit"),
            should_stop=should_stop,
            checkpoint=checkpoint,
            provenance=_provenance(data, config, "train and validation"),
        )
    finally:
        whole.close()
    if tables is not None:
        tables.release()
    return result.tokens, result.finished


class _Best:
    """Looks at the validation split, and keeps the best weights.

    With a checkpoint, what was seen so far is kept beside it. Looks happen where the loop saves its state; after a
    crash between the two, the steps in between are repeated and lead to the same weights.
    """

    def __init__(
        self,
        model: nn.Module,
        data: RankingBatches,
        patience: int,
        steps: int,
        checkpoint: Path | None,
        tables: TableStorage | None,
    ) -> None:
        self._tables = tables
        self._model, self._data, self._patience, self._steps = model, data, patience, steps
        self._file = None if checkpoint is None else checkpoint.with_name(checkpoint.name + ".best")
        self._weights: Mapping[str, Tensor] | None = None
        self.entropies: dict[int, float] = {}
        self.evaluated = 0
        if self._file is not None and checkpoint is not None and checkpoint.exists() and self._file.exists():
            tensors, about = load_state(self._file)
            self.entropies = {int(step): float(value) for step, value in about["entropies"].items()}
            self.evaluated, self._weights = int(about["evaluated"]), self._held(tensors)

    @property
    def step(self) -> int:
        """Steps after which the normalized entropy was lowest."""
        return min(self.entropies, key=lambda step: (self.entropies[step], step), default=0)

    @property
    def entropy(self) -> float:
        """The lowest normalized entropy so far."""
        return self.entropies.get(self.step, math.inf)

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return sum(step > self.step for step in self.entropies) >= self._patience

    def look(self, done: int) -> None:
        """Measure the weights after so many steps."""
        if done in self.entropies:
            return
        with placement().computing():
            quality = ranking_quality(self._model, self._data, "validation", device=placement().of(self._model))
        self.entropies[done] = quality.normalized_entropy
        self.evaluated += quality.rows
        if self.step == done and (done < self._steps or self._file is not None):
            self._weights = {name: t.detach().clone() for name, t in self._model.state_dict().items()}
        if self._file is not None:
            about = {"entropies": self.entropies, "evaluated": self.evaluated}
            save_state(self._file, self._saved(self._weights or {}), about)

    def _saved(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights with whole tables, where the processes that train together divide them."""
        tables = self._tables
        return weights if tables is None else {name: tables.whole(name, tensor) for name, tensor in weights.items()}

    def _held(self, saved: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inverse: of divided tables, the part that this process holds."""
        tables = self._tables
        return saved if tables is None else {name: tables.part(name, tensor) for name, tensor in saved.items()}

    def restore(self) -> None:
        """Give the model the best weights."""
        last = max(self.entropies, default=0)
        if self._weights is not None and self.step != last:
            self._model.load_state_dict(dict(self._weights))
