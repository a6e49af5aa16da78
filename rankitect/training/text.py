"""Training of a language model on windows of a text: the next-token objective, and the run that every objective shares.

Shapes: B batch, T context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rankitect.contracts import JSON
from rankitect.data.windows import TextWindows
from rankitect.metrics.losses import cross_entropy
from rankitect.training.loop import TrainConfig, TrainResult, train
from rankitect.training.optimizer import StepReport
from rankitect.training.parallel import peers
from rankitect.training.placement import placement
from rankitect.training.settings import TextTraining

__all__ = ["NextToken", "TextObjective", "TokenBatch", "train_on_text", "windows_of_step"]

CHECKPOINT_SECONDS = 60.0
"""Least seconds between two checkpoints: the state of a language model is three times its weights."""


class Sized(Protocol):
    """A batch that knows how many tokens it trains on."""

    def __len__(self) -> int:
        """Tokens that are predicted."""
        ...


Batch = TypeVar("Batch", bound=Sized)


class TextObjective(Protocol[Batch]):
    """Batches of text and a loss on them."""

    @property
    def config(self) -> TextTraining:
        """How long, in which batches, with what optimiser."""
        ...

    def batch_at(self, step: int, seed: int | None = None) -> Batch:
        """The batch of a step, a pure function of step and seed."""
        ...

    def loss(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The loss, nats a token."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """Token ids [B, T + 1] int64."""

    ids: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0] * (self.ids.shape[1] - 1)


def windows_of_step(task: TextWindows, config: TextTraining, split: str, step: int, seed: int) -> np.ndarray:
    """Numbers of the windows that this process trains on in a step, int64 [n]; all of the batch where it is alone.

    Args:
        task: Gives the order of the windows.
        config: Windows of a batch, and tokens of a window.
        split: Of the text.
        step: Decides the batch.
        seed: Of the order.
    """
    windows = task.window_indices(split, step, batch=config.batch, context=config.context, seed=seed)
    return windows[peers().shard(len(windows))]


class NextToken:
    """Cross-entropy with the text's own next tokens.

    Args:
        task: Gives the text and the order of its windows.
        config: Batch, context, length.
        seed: Of the order of windows where a caller gives none.
        split: Of the text.

    Raises:
        DataError: The split is shorter than one batch.
    """

    def __init__(self, task: TextWindows, config: TextTraining, *, seed: int = 0, split: str = "train") -> None:
        self.task, self.config, self.seed, self.split = task, config, seed, split
        self._tokens = task.require(split, config.batch, config.context)

    def batch_at(self, step: int, seed: int | None = None) -> TokenBatch:
        """The batch of a step, a pure function of step and seed (by default the objective's own)."""
        windows = windows_of_step(self.task, self.config, self.split, step, self.seed if seed is None else seed)
        return placement().move(TokenBatch(torch.from_numpy(self._tokens.read(windows, self.config.context))))

    def loss(self, model: Callable[[Tensor], Tensor], batch: TokenBatch) -> Tensor:
        """Mean negative log-likelihood, nats a token."""
        return cross_entropy(model(batch.ids[:, :-1]), batch.ids[:, 1:])


def train_on_text(
    model: nn.Module,
    objective: TextObjective[Batch],
    *,
    seed: int,
    rates: Mapping[str, float] | None = None,
    progress: Callable[[int, int, StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
    provenance: Mapping[str, JSON] | None = None,
) -> TrainResult:
    """Trains a language model in place, for as many steps as the objective's settings say.

    Args:
        model: Ids [B, T] to logits [B, T, V].
        objective: Gives the batches and the loss; may be shared by many models.
        seed: Of the order of the windows, and of random numbers in the model.
        rates: See `rankitect.training.loop.train`, as for the rest.
        progress: See `rankitect.training.loop.train`, as for the rest.
        should_stop: Ends it early; the state is then written.
        checkpoint: File of the state. Finished training leaves none: its result is the model.
        provenance: What a checkpoint must agree with, beside the settings.

    Raises:
        TrainingError: The loss stays not finite, or the checkpoint belongs to something else.
    """
    config = objective.config
    return train(
        model,
        objective.loss,
        lambda step: objective.batch_at(step, seed),
        TrainConfig(
            steps=config.steps,
            optimizer=config,
            seed=seed,
            checkpoint_every=1,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        ),
        size=len,
        rates=rates,
        progress=progress,
        should_stop=should_stop,
        checkpoint=checkpoint,
        keep_finished=False,
        provenance=provenance,
        divide=True,
    )
