"""Training of a guard on verdicts: the one token after the template, and a teacher's view of it.

Shapes: N exchanges of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankitect.models.packed import next_logits
from rankitect.models.supernet import device_of
from rankitect.training.parallel import peers
from rankitect.training.placement import placement
from rankitect.training.settings import DistilConfig, TextTraining

if TYPE_CHECKING:
    from rankitect.data.moderation.data import GuardData

__all__ = ["VerdictBatch", "VerdictDistillation", "VerdictLoss", "verdict_log_probs"]

Settings = TypeVar("Settings", bound=TextTraining)
_LEAST = 1e-7
"""Probability that any other token has at least, so that its logarithm is finite."""


@dataclass(frozen=True)
class VerdictBatch:
    """Exchanges of a step.

    Attributes:
        sequences: Their tokens, up to the verdict.
        unsafe: Their labels, bool [N].
        teacher: A teacher's log-probabilities of safe, unsafe and any other token, [N, 3]; None without a teacher.
    """

    sequences: Sequence[tuple[int, ...]]
    unsafe: Tensor
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return sum(map(len, self.sequences))


def verdict_log_probs(logits: Tensor, verdicts: tuple[int, int]) -> Tensor:
    """Log-probabilities of safe, of unsafe, and of any other token: [N, V] -> [N, 3] float32."""
    both = logits.float().log_softmax(-1)[:, list(verdicts)]
    other = (1.0 - both.exp().sum(-1, keepdim=True)).clamp_min(_LEAST).log()
    return torch.cat([both, other], -1)


class _Verdicts(Generic[Settings]):
    """Batches of exchanges."""

    def __init__(self, data: GuardData, config: Settings, *, seed: int = 0, split: str = "train") -> None:
        self.data, self.seed, self.split = data, seed, split
        # Exchanges are of different lengths: a step is counted as it is in the mean.
        self.config = config.model_copy(update={"context": data.length})
        self._ids = data.template.verdicts.ids

    def _batch(self, step: int, seed: int | None) -> tuple[np.ndarray, VerdictBatch]:
        places = self.data.places(self.split, step, self.config.batch, self.seed if seed is None else seed)
        places = places[peers().shard(len(places))]
        sequences = [self.data.sequences[self.split][place] for place in places]
        return places, VerdictBatch(sequences, torch.from_numpy(self.data.unsafe(self.split)[places]))

    def _logits(self, model: Callable[[Tensor], Tensor], batch: VerdictBatch) -> Tensor:
        device = device_of(model) if isinstance(model, nn.Module) else placement().device
        return next_logits(model, batch.sequences, torch.device(device))

    def _cross_entropy(self, logits: Tensor, batch: VerdictBatch) -> Tensor:
        safe, unsafe = self._ids
        targets = torch.where(batch.unsafe.to(logits.device), unsafe, safe)
        return F.cross_entropy(logits.float(), targets)


class VerdictLoss(_Verdicts[TextTraining]):
    """Cross-entropy of the verdict among all tokens.

    Args:
        data: The exchanges.
        config: Exchanges of a step, length, optimiser. The tokens of a step are those that its exchanges have in the
            mean.
        seed: Of the order where a caller gives none.
        split: Of the exchanges.
    """

    def batch_at(self, step: int, seed: int | None = None) -> VerdictBatch:
        """The batch of a step, a pure function of step and seed."""
        return self._batch(step, seed)[1]

    def loss(self, model: Callable[[Tensor], Tensor], batch: VerdictBatch) -> Tensor:
        """The loss, nats an exchange."""
        return self._cross_entropy(self._logits(model, batch), batch)


class VerdictDistillation(_Verdicts[DistilConfig]):
    """KL divergence from a teacher's verdicts: safe, unsafe, or anything else; the labels beside it by `ce_weight`.

    What the teacher says of an exchange is computed once.

    Args:
        teacher: Ids [B, T] to logits [B, T, V]; never trained.
        data: The exchanges.
        config: See `VerdictLoss`; `k` and `samples` have no part here.
        seed: Of the order where a caller gives none.
        split: Of the exchanges.
    """

    def __init__(
        self, teacher: nn.Module, data: GuardData, config: DistilConfig, *, seed: int = 0, split: str = "train"
    ) -> None:
        super().__init__(data, config, seed=seed, split=split)
        self.teacher = teacher
        self._known: dict[int, Tensor] = {}

    def batch_at(self, step: int, seed: int | None = None) -> VerdictBatch:
        """The batch of a step, a pure function of step and seed."""
        places, batch = self._batch(step, seed)
        missing = [i for i, place in enumerate(places.tolist()) if place not in self._known]
        if missing:
            self._ask([int(places[i]) for i in missing], [batch.sequences[i] for i in missing])
        teacher = torch.stack([self._known[int(place)] for place in places])
        return VerdictBatch(batch.sequences, batch.unsafe, teacher)

    def _ask(self, places: list[int], sequences: list[tuple[int, ...]]) -> None:
        training = self.teacher.training
        self.teacher.eval()
        try:
            with torch.no_grad(), placement().computing():
                for place, sequence in zip(places, sequences, strict=True):
                    # One at a time: in a batch, the last bits would depend on which happened to be missing.
                    logits = next_logits(self.teacher, [sequence], device_of(self.teacher))
                    log_probs = verdict_log_probs(logits / self.config.temperature, self._ids)
                    self._known[place] = log_probs[0].cpu()
        finally:
            self.teacher.train(training)

    def loss(self, model: Callable[[Tensor], Tensor], batch: VerdictBatch) -> Tensor:
        """The loss, nats an exchange."""
        assert batch.teacher is not None
        logits, warm = self._logits(model, batch), self.config.temperature
        own, teacher = verdict_log_probs(logits / warm, self._ids), batch.teacher.to(logits.device)
        loss = F.kl_div(own, teacher, log_target=True, reduction="batchmean") * warm**2
        return loss + self.config.ce_weight * self._cross_entropy(logits, batch) if self.config.ce_weight else loss
