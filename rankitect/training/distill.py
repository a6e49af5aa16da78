"""Distillation: a model learns a teacher's next-token distributions (forward KL divergence).

The teacher's likeliest tokens at every position are computed once and kept on disk, a small file a window. All
candidates of a search heal on the same windows, so that all but the first read them and never run the teacher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankitect.data.assets import cache_root
from rankitect.data.kept import keep_arrays, kept_arrays
from rankitect.data.windows import TextWindows
from rankitect.metrics.losses import SparseTargets, cross_entropy, kl_divergence, sparse_kl_divergence, top_targets
from rankitect.training.loop import step_seed
from rankitect.training.placement import placement
from rankitect.training.settings import DistilConfig
from rankitect.training.text import windows_of_step

__all__ = ["DistillBatch", "Distillation", "TeacherTargets", "weights_fingerprint"]

_FORMAT = 2


def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 over a model's parameters and buffers: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {list(plain.shape)} {plain.dtype}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class TeacherTargets:
    """The likeliest next tokens under a teacher, for windows of a split; computed when first asked for, then kept.

    Log-probabilities are kept in half precision (0.4% of a small probability) and scaled back to a total of one.
    A file that cannot be written costs time, not the run.

    Args:
        teacher: ids [B, T] to logits [B, T, V]; never trained.
        task: gives the text.
        fingerprint: of the teacher's weights; by default `weights_fingerprint`.
        split: of the text.
        context: tokens of a window, T.
        k: tokens kept at each position.
        samples: how many of the other tokens are drawn at each position; see `top_targets`.
        temperature: of the teacher's softmax.
        cache: folder of all teachers' files; by default `teacher` in `cache_root()`.
    """

    def __init__(
        self,
        teacher: nn.Module,
        task: TextWindows,
        *,
        fingerprint: str | None = None,
        split: str = "train",
        context: int = 128,
        k: int = 64,
        samples: int = 64,
        temperature: float = 1.0,
        cache: Path | None = None,
    ) -> None:
        self.teacher, self.tokens, self.context = teacher, task.text.split(split), context
        self.k, self.samples, self.temperature = min(k, task.text.vocab_size), samples, temperature
        described = [
            _FORMAT,
            fingerprint or weights_fingerprint(teacher),
            task.text.fingerprint,
            split,
            context,
            self.k,
        ]
        named = [placement().named] if placement().named else []
        key = hashlib.sha256(json.dumps([*described, samples, temperature, *named]).encode()).hexdigest()
        self.folder = (cache_root() / "teacher" if cache is None else cache) / key[:32]
        self.computed = 0
        """Windows for which the teacher has run, in this process."""

    def at(self, windows: NDArray[np.int64]) -> SparseTargets:
        """The teacher's distributions at every position of some windows; tokens [B, T, K], masses [B, T]."""
        known = {int(window): self._load(int(window)) for window in windows}
        for window, arrays in known.items():
            if arrays is None:
                known[window] = self._compute(window)
        rows = [known[int(window)] for window in windows]
        kept = {
            name: torch.from_numpy(np.stack([row[name] for row in rows if row]))
            for name in ("ids", "logp", "tail", "entropy")
        }
        probs, tail = kept["logp"].float().exp(), kept["tail"]
        probs *= ((1.0 - tail) / probs.sum(-1))[..., None]
        return SparseTargets(kept["ids"].long(), probs, tail, kept["entropy"])

    def _compute(self, window: int) -> dict[str, NDArray[np.generic]]:
        # One window at a time: in a batch, the last bits would depend on which windows happened to be missing.
        training = self.teacher.training
        self.teacher.eval()
        try:
            with torch.inference_mode():
                ids = placement().move(torch.from_numpy(self.tokens.read(np.array([window]), self.context)))
                with placement().computing():
                    logits = self.teacher(ids[:, :-1])[0]
                targets = top_targets(
                    logits, self.k, samples=self.samples, temperature=self.temperature, seed=step_seed(0, window)
                )
        finally:
            self.teacher.train(training)
        self.computed += 1
        arrays: dict[str, NDArray[np.generic]] = {
            "ids": targets.ids.cpu().numpy().astype(np.int32),
            "logp": targets.probs.clamp_min(1e-30).log().cpu().numpy().astype(np.float16),
            "tail": targets.tail.cpu().numpy().astype(np.float32),
            "entropy": targets.entropy.cpu().numpy().astype(np.float32),
        }
        keep_arrays(self._path(window), arrays, {"targets": self.folder.name})
        return arrays

    def _path(self, window: int) -> Path:
        return self.folder / f"{window // 1000:04d}" / f"{window:07d}.safetensors"

    def _load(self, window: int) -> dict[str, NDArray[np.generic]] | None:
        kept = kept_arrays(self._path(window))
        return kept[0] if kept is not None and kept[1] == {"targets": self.folder.name} else None


@dataclass(frozen=True)
class DistillBatch:
    """Token ids [B, T + 1] int64 with the teacher's view of their next tokens.

    Attributes:
        ids: the text.
        teacher: the kept distributions [B, T, K], or all logits [B, T, V].
    """

    ids: Tensor
    teacher: SparseTargets | Tensor

    def __len__(self) -> int:
        return self.ids.shape[0] * (self.ids.shape[1] - 1)


class Distillation:
    """Batches and loss of distillation, shared by all candidates of a search.

    Args:
        teacher: ids [B, T] to logits [B, T, V]; never trained.
        task: gives the text and the order of its windows.
        config: batch, context, k, weights.
        seed: of the order of windows where a caller gives none.
        fingerprint: of the teacher's weights; by default `weights_fingerprint`.
        split: of the text.
        cache: folder of the teacher's kept logits.

    Raises:
        DataError: when the split is shorter than one batch.
    """

    def __init__(
        self,
        teacher: nn.Module,
        task: TextWindows,
        config: DistilConfig,
        *,
        seed: int = 0,
        fingerprint: str | None = None,
        split: str = "train",
        cache: Path | None = None,
    ) -> None:
        self.teacher, self.task, self.config, self.split, self.seed = teacher, task, config, split, seed
        self.tokens = task.require(split, config.batch, config.context)
        self.targets = (
            None
            if config.k is None
            else TeacherTargets(
                teacher,
                task,
                fingerprint=fingerprint,
                split=split,
                context=config.context,
                k=config.k,
                samples=config.samples,
                temperature=config.temperature,
                cache=cache,
            )
        )

    def batch_at(self, step: int, seed: int | None = None) -> DistillBatch:
        """The batch of a step, a pure function of step and seed (by default the distillation's own)."""
        windows = windows_of_step(self.task, self.config, self.split, step, self.seed if seed is None else seed)
        ids = torch.from_numpy(self.tokens.read(windows, self.config.context))
        if self.targets is not None:
            return placement().move(DistillBatch(ids, self.targets.at(windows)))
        ids = placement().move(ids)
        with torch.inference_mode(), placement().computing():
            return DistillBatch(ids, self.teacher(ids[:, :-1]))

    def loss(self, model: Callable[[Tensor], Tensor], batch: DistillBatch) -> Tensor:
        """KL(teacher || model) plus the weighted cross-entropy, nats a token."""
        logits, config = model(batch.ids[:, :-1]).float(), self.config
        targets = batch.ids[:, 1:]
        if isinstance(batch.teacher, SparseTargets):
            return sparse_kl_divergence(
                logits, batch.teacher, targets=targets, ce_weight=config.ce_weight, temperature=config.temperature
            )
        warm = config.temperature
        plain = warm == 1.0
        loss = kl_divergence(logits, batch.teacher) if plain else kl_divergence(logits / warm, batch.teacher / warm)
        loss = loss * warm**2
        return loss if not config.ce_weight else loss + config.ce_weight * cross_entropy(logits, targets)
