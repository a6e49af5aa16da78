"""The likeliest continuation of many texts, token by token, each of which goes forward once.

A module of which it is not known how to cache what it computes reads each text again for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rankitect.metrics.losses import tokens_at_a_time
from rankitect.models.cached import GrowingTexts
from rankitect.models.packed import packs_by_its_blocks, turned_by_length
from rankitect.models.supernet import PlannedModel, device_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["greedy_continuations"]

_CACHED = 8
"""Texts are cached together that have at most so many times the tokens that go forward at a time."""


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

    Keys and values are cached for models of the blocks of `rankitect.blocks`, unless their positions depend on the
    length of a text. A block of the user's may not know of caches: models with one read each text again.

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
    continuations: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))

    def take(chosen: Sequence[int], likeliest: Sequence[int]) -> list[int]:
        """Continue texts by a token each; the rows of those that are not at their end."""
        going = []
        for row, (i, token) in enumerate(zip(chosen, likeliest, strict=True)):
            if i >= 0 and token not in stop:
                continuations[i].append(token)
                if not ended(continuations[i]):
                    going.append(row)
        return going

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            if isinstance(model, PlannedModel) and packs_by_its_blocks(model) and not turned_by_length(model):
                forwarded = _cached(model, prompts, order, most, take, check)
            else:
                forwarded = _recomputed(model, prompts, continuations, order, most, take, check)
    finally:
        model.train(training)
    return continuations, forwarded


Take = Callable[[Sequence[int], Sequence[int]], list[int]]


def _cached(
    model: PlannedModel,
    prompts: Sequence[Sequence[int]],
    order: Sequence[int],
    most: int,
    take: Take,
    check: Callable[[], None] | None,
) -> int:
    """Continue texts with a cache; how many tokens went forward."""
    forwarded = 0
    sizes = [len(prompts[i]) + most for i in order]
    for chosen in _batches(order, sizes, False, _CACHED * tokens_at_a_time(device_of(model))):
        texts = GrowingTexts(model, [prompts[i] for i in chosen], most, check)
        scores = texts.read()
        for left in range(most - 1, -1, -1):
            likeliest = scores.argmax(-1).tolist()
            going = take(chosen, likeliest)
            if not going or not left:
                break
            if 2 * len(going) <= len(chosen):  # seldom, as what is kept is copied
                texts.keep(going)
                chosen, likeliest = [chosen[row] for row in going], [likeliest[row] for row in going]
            else:
                alive = set(going)
                chosen = [i if row in alive else -1 for row, i in enumerate(chosen)]
            scores = texts.step(likeliest)
        forwarded += texts.forwarded
    return forwarded


def _recomputed(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    order: Sequence[int],
    most: int,
    take: Take,
    check: Callable[[], None] | None,
) -> int:
    """Continue texts by reading each again for every token; how many tokens went forward."""
    device, by_length = device_of(model), turned_by_length(model)
    going, forwarded = list(order), 0
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
            left += [chosen[row] for row in take(chosen, likeliest)]
        going = left
    return forwarded


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
