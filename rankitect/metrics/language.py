"""Language models: cross-entropy of the next token to train on, perplexity and bits per byte to judge by.

A model is any `nn.Module` that maps token ids [B, T] int64 to logits [B, T, V] float32.
Shapes: B batch, T context (tokens predicted in a window), V vocabulary, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric
from rankitect.errors import DataError
from rankitect.metrics.intervals import mean_estimate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rankitect.data.tokens import SplitTokens
    from rankitect.data.windows import TextWindows

__all__ = ["TextQuality", "next_token_loss", "perplexity_interval", "text_quality"]


@dataclass(frozen=True, eq=False)
class TextQuality:
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

    @property
    def metrics(self) -> dict[str, Metric]:
        """Perplexity with its interval, and bits per byte."""
        return {
            "perplexity": Metric(self.perplexity, "", self.tokens, self.interval()),
            "bits_per_byte": Metric(self.bits_per_byte, "bit/byte", self.tokens),
        }

    @property
    def amount(self) -> int:
        """Tokens that were predicted."""
        return self.tokens

    @property
    def examples(self) -> dict[str, Any]:
        """What two models are compared by window by window; see `rankitect.contracts.Measurement.notes`."""
        values = [round(float(x), 6) for x in self.window_nats]
        return {"metric": "perplexity", "values": values, "clusters": self.window_documents.tolist()}

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the perplexity over documents; see `perplexity_interval`."""
        return perplexity_interval(self.window_nats, documents=self.window_documents, confidence=confidence)

    def ratio_to(self, other: TextQuality, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
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


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of the next tokens, nats a token.

    Args:
        model: ids [B, T] to logits [B, T, V].
        batch: token ids [B, T + 1] int64.
    """
    from rankitect.metrics.losses import cross_entropy

    return cross_entropy(model(batch[:, :-1]), batch[:, 1:])


def text_quality(
    model: nn.Module,
    windows: TextWindows,
    split: str = "test",
    *,
    context: int | None = None,
    count: int | None = None,
    batch: int | None = None,
    check: Callable[[], None] | None = None,
    device: torch.device | str = "cpu",
) -> TextQuality:
    """Perplexity and bits per byte of a model on a split.

    Args:
        model: ids [B, T] to logits [B, T, V]; it keeps its mode.
        windows: the text.
        split: the split.
        context: tokens predicted in a window; by default those of `windows`.
        count: how many windows to use, spread evenly; all when None.
        batch: windows in one forward; by default as many as suit the device (`losses.tokens_at_a_time`).
        check: called before every forward; may raise, to stop.
        device: where the model is.

    Raises:
        DataError: when the split is shorter than one window.
    """
    import torch

    from rankitect.metrics.losses import token_nats, tokens_at_a_time

    context = context or windows.context
    tokens = windows.require(split, 1, context)
    total = tokens.windows(context)
    chosen = np.arange(total) if count is None else np.arange(min(count, total)) * total // min(count, total)
    batch = batch or max(1, tokens_at_a_time(torch.device(device)) // context)
    nats: list[NDArray[np.float64]] = []
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(chosen), batch):
                if check is not None:
                    check()
                ids = torch.from_numpy(tokens.read(chosen[start : start + batch], context)).to(device)
                losses = token_nats(model(ids[:, :-1]), ids[:, 1:])
                nats.append(losses.cpu().double().mean(1).numpy())
    finally:
        model.train(training)
    return _summary(tokens, context, chosen, np.concatenate(nats))


def _summary(tokens: SplitTokens, context: int, chosen: NDArray[np.int64], nats: NDArray[np.float64]) -> TextQuality:
    first = chosen * context + 1
    size = sum(tokens.bytes_between(int(start), int(start) + context) for start in first)
    mean, count = float(nats.mean()), len(chosen) * context
    return TextQuality(
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


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # nan stays nan
