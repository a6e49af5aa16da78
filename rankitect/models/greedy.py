"""The likeliest continuation of many texts, token by token; nothing is cached, so that any causal module will do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rankitect.metrics.losses import tokens_at_a_time
from rankitect.models.packed import turned_by_length
from rankitect.models.supernet import device_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["greedy_continuations"]


def greedy_continuations(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    most: int,
    *,
    stop: Collection[int] = (),
    ended: Callable[[list[int]], bool] = lambda tokens: False,
    check: Callable[[], None] | None = None,
) -> tuple[list[list[int]], int]:
    """The likeliest next token of each text, again and again.

    Args:
        model: Ids [B, T] to logits [B, T, V], causal; it keeps its mode.
        prompts: Token ids of each text, at least one.
        most: Tokens of a continuation, at most.
        stop: Tokens that end a continuation, and are no part of it.
        ended: Whether a continuation is long enough.
        check: Called before every forward; may raise, to stop.

    Returns:
        The continuations, and how many tokens went forward.
    """
    device, by_length = device_of(model), turned_by_length(model)
    continuations: list[list[int]] = [[] for _ in prompts]
    going = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    forwarded, training = 0, model.training
    model.eval()
    try:
        with torch.inference_mode():
            for _ in range(most):
                left = []
                sizes = [len(prompts[i]) + len(continuations[i]) for i in going]
                for chosen in _batches(going, sizes, by_length, tokens_at_a_time(device)):
                    if check is not None:
                        check()
                    lengths = [len(prompts[i]) + len(continuations[i]) for i in chosen]
                    ids = np.zeros((len(chosen), max(lengths)), np.int64)
                    for b, i in enumerate(chosen):
                        ids[b, : lengths[b]] = [*prompts[i], *continuations[i]]
                    logits = model(torch.from_numpy(ids).to(device))
                    forwarded += sum(lengths)
                    at = torch.tensor(lengths, device=device) - 1
                    likeliest = logits[torch.arange(len(chosen), device=device), at].argmax(-1).tolist()
                    for i, token in zip(chosen, likeliest, strict=True):
                        if token in stop:
                            continue
                        continuations[i].append(token)
                        if not ended(continuations[i]):
                            left.append(i)
                going = left
    finally:
        model.train(training)
    return continuations, forwarded


def _batches(order: Sequence[int], lengths: Sequence[int], by_length: bool, most: int) -> list[list[int]]:
    """Texts, so many at a time that a forward has about `most` tokens; of one length, if need be."""
    batches: list[list[int]] = []
    widest = 0
    for i, length in zip(order, lengths, strict=True):
        widest = max(widest, length) if batches else length
        if not batches or (len(batches[-1]) + 1) * widest > most or (by_length and length != widest):
            batches.append([])
            widest = length
        batches[-1].append(i)
    return batches
