"""The language task: predict the next token; cross-entropy to train on, perplexity and bits per byte to judge by.

A model is any `nn.Module` that maps token ids [B, T] int64 to logits [B, T, V] float32.
Shapes: B batch, T context (tokens predicted in a window), V vocabulary, W windows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.text import DEFAULT_TEXT, TextSource, open_text
from rankitect.data.tokens import Encoder, SplitTokens, TokenizedText, tokenize
from rankitect.errors import DataError
from rankitect.metrics.intervals import mean_estimate

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LanguageTask", "Quality", "perplexity_interval"]

_EVALUATED_TOKENS = 1024  # in one forward: 200 MB of logits for a vocabulary of 49152


@dataclass(frozen=True, eq=False)
class Quality:
    """How well a model predicts a split, over non-overlapping windows; nothing outside its window is seen by a token.

    Attributes:
        split: the split.
        context: tokens predicted in each window.
        nats: mean negative log-likelihood, nats a token. Lower is better, as for the next two.
        perplexity: exp(nats).
        bits_per_byte: bits needed for a byte of the text (UTF-8); comparable across tokenizers.
        tokens: tokens predicted.
        bytes: bytes that these tokens stand for.
        window_nats: mean of each window, nats a token, [W]; for intervals, paired with another model's.
        window_documents: index of the document in which each window starts, [W].
    """

    split: str
    context: int
    nats: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: float
    window_nats: NDArray[np.float64]
    window_documents: NDArray[np.int64]

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the perplexity over documents; see `perplexity_interval`."""
        return perplexity_interval(self.window_nats, documents=self.window_documents, confidence=confidence)

    def ratio_to(self, other: Quality, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
        """This perplexity divided by the other's on the same windows, and the paired interval of the ratio.

        Raises:
            DataError: when the other was measured on other windows.
        """
        if (self.split, self.context, len(self.window_nats)) != (other.split, other.context, len(other.window_nats)):
            raise DataError(
                f"Cannot compare perplexity on {len(self.window_nats)} windows of {self.context} tokens ({self.split}) "
                f"with {len(other.window_nats)} of {other.context} ({other.split}): measure both on the same windows."
            )
        bounds = perplexity_interval(
            self.window_nats, other.window_nats, documents=self.window_documents, confidence=confidence
        )
        return _exp(self.nats - other.nats), bounds


def perplexity_interval(
    nats: NDArray[np.float64],
    other: NDArray[np.float64] | None = None,
    *,
    documents: NDArray[np.int64] | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Confidence interval of a perplexity, or of the ratio of two on the same windows.

    A t interval of the mean negative log-likelihood, exponentiated. With `documents`, its error is the cluster-robust
    one: the windows of one document are alike, and to count each as independent makes an interval too narrow.

    Args:
        nats: of each window, nats a token, [W].
        other: the other model's on the same windows, [W]; gives the interval of exp(mean(nats)) / exp(mean(other)).
        documents: the document of each window, [W]; ignored when there is but one.
        confidence: coverage, such as 0.95.

    Returns:
        The lower and the upper end; the whole positive line when there are fewer than two windows.

    >>> low, high = perplexity_interval(np.log([9.0, 10.0, 11.0]))
    >>> low < 10 < high
    True
    """
    values = np.asarray(nats, dtype=np.float64) if other is None else np.asarray(nats) - np.asarray(other)
    low, high = mean_estimate(values, clusters=documents).interval(confidence)
    return _exp(low), _exp(high)


class LanguageTask:
    """Batches, loss and quality on one tokenised text.

    Args:
        text: with the splits train, calibration, search and test.
        context: tokens of a window in `quality`, and the default elsewhere.
        seed: of the order of training windows.
    """

    name = "language"

    def __init__(self, text: TokenizedText, *, context: int = 256, seed: int = 0) -> None:
        if context < 1:
            raise DataError(f"task.context must be at least 1 token, found {context}.")
        self.text, self.context, self.seed = text, context, seed

    @classmethod
    def open(
        cls,
        tokenizer: Encoder,
        text: str | Path | TextSource = DEFAULT_TEXT,
        *,
        context: int = 256,
        seed: int = 0,
        split_seed: int = 0,
        field: str = "text",
        cache: Path | None = None,
    ) -> LanguageTask:
        """Reads, splits and tokenises a text (from the cache where that was done) and checks that it is long enough.

        Args:
            tokenizer: the backbone's.
            text: what `open_text` takes, or a source.
            context: tokens of a window.
            seed: of the order of training windows.
            split_seed: of the division into splits; kept apart from `seed`, so that runs with several seeds are judged
                on the same held-out text.
            field: JSON field or parquet column with the text.
            cache: folder of tokenised texts.

        Raises:
            DataError: for a text that cannot be read, or that leaves a split without a single window.
        """
        source = open_text(text, field=field) if isinstance(text, str | Path) else text
        task = cls(tokenize(source, tokenizer, seed=split_seed, cache=cache), context=context, seed=seed)
        for split in task.text.splits:
            task.require(split)
        return task

    def require(self, split: str, batch: int = 1, context: int | None = None) -> SplitTokens:
        """The split, when it has at least one batch of windows.

        Raises:
            DataError: otherwise, with both counts.
        """
        context = context or self.context
        tokens = self.text.split(split)
        if tokens.windows(context) < batch:
            raise DataError(
                f"The text {self.text.name!r} is too short: its {split} split has {tokens.tokens} tokens, but "
                f"{batch} x {context} + 1 = {batch * context + 1} are needed (batch x context, and one before). Give "
                "more text, or a smaller context or batch."
            )
        return tokens

    def window_indices(
        self, split: str, step: int, *, batch: int, context: int | None = None, seed: int | None = None
    ) -> NDArray[np.int64]:
        """Which windows make the batch of a step, [B]: every window once an epoch, each epoch in another order.

        A pure function of its arguments, so that training resumes at any step, and the same for every model that is
        trained on the text, so that a teacher's logits can be shared.
        """
        context, seed = context or self.context, self.seed if seed is None else seed
        count = self.require(split, batch, context).windows(context)
        places = np.arange(step * batch, (step + 1) * batch)
        return np.array([_order(count, split, seed, int(place) // count)[place % count] for place in places])

    def batch_at(
        self, split: str, step: int, *, batch: int, context: int | None = None, seed: int | None = None
    ) -> Tensor:
        """The batch of a step: token ids [B, T + 1] int64."""
        import torch

        context = context or self.context
        windows = self.window_indices(split, step, batch=batch, context=context, seed=seed)
        return torch.from_numpy(self.text.split(split).read(windows, context))

    def batches(
        self,
        split: str,
        *,
        batch: int,
        context: int | None = None,
        seed: int | None = None,
        start: int = 0,
        steps: int | None = None,
    ) -> Iterator[Tensor]:
        """Batches from a step on, each [B, T + 1] int64; without end unless `steps` is given."""
        step = start
        while steps is None or step < start + steps:
            yield self.batch_at(split, step, batch=batch, context=context, seed=seed)
            step += 1

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy of the next tokens, nats a token.

        Args:
            model: ids [B, T] to logits [B, T, V].
            batch: token ids [B, T + 1] int64.
        """
        from rankitect.metrics.losses import cross_entropy

        return cross_entropy(model(batch[:, :-1]), batch[:, 1:])

    def quality(
        self,
        model: nn.Module,
        split: str = "test",
        *,
        context: int | None = None,
        windows: int | None = None,
        batch: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> Quality:
        """Perplexity and bits per byte of a model on a split.

        Args:
            model: ids [B, T] to logits [B, T, V]; it keeps its mode.
            split: the split.
            context: tokens predicted in a window.
            windows: how many windows to use, spread evenly; all when None.
            batch: windows in one forward; by default about 1024 tokens.
            check: called before every forward; may raise, to stop.

        Raises:
            DataError: when the split is shorter than one window.
        """
        import torch

        from rankitect.metrics.losses import token_nats

        context = context or self.context
        tokens = self.require(split, 1, context)
        total = tokens.windows(context)
        chosen = np.arange(total) if windows is None else np.arange(min(windows, total)) * total // min(windows, total)
        batch = batch or max(1, _EVALUATED_TOKENS // context)
        nats: list[NDArray[np.float64]] = []
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(chosen), batch):
                    if check is not None:
                        check()
                    ids = torch.from_numpy(tokens.read(chosen[start : start + batch], context))
                    losses = token_nats(model(ids[:, :-1]), ids[:, 1:])
                    nats.append(losses.double().mean(1).numpy())
        finally:
            model.train(training)
        return _summary(tokens, context, chosen, np.concatenate(nats))


def _summary(tokens: SplitTokens, context: int, chosen: NDArray[np.int64], nats: NDArray[np.float64]) -> Quality:
    first = chosen * context + 1
    size = sum(tokens.bytes_between(int(start), int(start) + context) for start in first)
    mean, count = float(nats.mean()), len(chosen) * context
    return Quality(
        split=tokens.name,
        context=context,
        nats=mean,
        perplexity=_exp(mean),
        bits_per_byte=mean * count / math.log(2) / size,
        tokens=count,
        bytes=size,
        window_nats=nats,
        window_documents=tokens.document_of(first),
    )


@lru_cache(maxsize=8)
def _order(count: int, split: str, seed: int, epoch: int) -> NDArray[np.int64]:
    digest = hashlib.sha256(f"{split}:{seed}:{epoch}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(count)
    order.setflags(write=False)
    return order


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # nan stays nan
