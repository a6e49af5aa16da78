"""How good a guard's verdicts are: scores of a split, with the threshold of the validation split."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rankitect.data.continuations import Continuation
from rankitect.metrics.verdicts import Scored, VerdictQuality, best_threshold
from rankitect.models.packed import likelihoods, pack

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from rankitect.data.moderation.data import GuardData

__all__ = ["scored_as", "verdict_quality"]


def verdict_quality(
    model: nn.Module,
    data: GuardData,
    split: str,
    *,
    most: int | None = None,
    validation: int | None = None,
    check: Callable[[], None] | None = None,
    device: torch.device | None = None,
) -> VerdictQuality:
    """F1, false positive rate and AUC of a guard on a split.

    The threshold is that of the largest F1 on the validation split; on that split itself, such figures flatter.

    Args:
        model: Ids [B, T] to logits [B, T, V]; it keeps its mode.
        data: The exchanges.
        split: "search" (validation), "test" or "train".
        most: How many exchanges of the split are used; None for all.
        validation: How many of the validation split choose the threshold; None for all.
        check: Called before every forward; may raise, to stop.
        device: Where the model is.
    """
    scored, tokens = _scored(model, data, split, most, check, device)
    if split == "search":
        return VerdictQuality(scored, best_threshold(scored.scores, scored.unsafe), tokens)
    chosen, more = _scored(model, data, "search", validation, check, device)
    return VerdictQuality(scored, best_threshold(chosen.scores, chosen.unsafe), tokens + more)


def _scored(
    model: nn.Module,
    data: GuardData,
    split: str,
    most: int | None,
    check: Callable[[], None] | None,
    device: torch.device | None,
) -> tuple[Scored, int]:
    places, verdicts = data.sampled(split, most), data.template.verdicts
    sequences = [data.sequences[split][place] for place in places.tolist()]
    groups = [[Continuation((*one, verdict), len(one)) for verdict in verdicts.ids] for one in sequences]
    result = likelihoods(model, pack(groups), check=check, device=device)
    safe, unsafe = result.nats.reshape(-1, 2).T
    return scored_as(data, split, places, unsafe - safe), result.forwarded


def scored_as(data: GuardData, split: str, places: NDArray[np.int64], scores: NDArray[np.float64]) -> Scored:
    """Scores with what is known of their exchanges.

    Args:
        data: The exchanges.
        split: Of these.
        places: Which of the split, [N].
        scores: Log-odds of "unsafe", [N].
    """
    exchanges = [data.splits[split][place] for place in places.tolist()]
    numbers: dict[str, int] = {}
    clusters = np.asarray([numbers.setdefault(one.cluster, len(numbers)) for one in exchanges], np.int64)
    unsafe = np.asarray([one.unsafe for one in exchanges], np.bool_)
    return Scored(scores, unsafe, clusters, [one.source for one in exchanges], [one.category for one in exchanges])
