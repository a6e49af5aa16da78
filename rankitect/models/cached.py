"""Texts that grow token by token: keys and values of what went forward are kept, so that each token goes forward once.

The texts of a batch stand in the rows of one cache, shifted so that all of them end in the same slot: a new token of
each is one slot more for all. What they begin with in common goes forward once, in one row. Blocks see this as a
`Packing` whose tokens follow those of earlier calls (`Packing.attended`).

Shapes: B texts, S slots, T tokens of a call, R rows of a call, K key/value heads, h size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from rankitect.metrics.losses import tokens_at_a_time
from rankitect.models.supernet import PlannedModel, device_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GrowingTexts", "common_beginning"]


class GrowingTexts:
    """A batch of texts and their cache: the `Packing` that blocks see.

    Args:
        model: Of blocks that are right about `Block.packed`.
        prompts: Token ids of each text, at least one, the longest text first.
        most: How many tokens a text may grow by.
        check: Called before every forward; may raise, to stop.

    Attributes:
        forwarded: Tokens that went forward.
    """

    def __init__(
        self,
        model: PlannedModel,
        prompts: Sequence[Sequence[int]],
        most: int,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._model, self._prompts, self._check, self._device = model, prompts, check, device_of(model)
        self._shared = min(common_beginning(prompts), min(map(len, prompts)) - 1)
        lengths = np.asarray([len(prompt) for prompt in prompts])
        self._end = int(lengths.max())
        slots = np.arange(self._end + most)
        starts = self._end - lengths + self._shared
        own = np.where(slots >= starts[:, None], slots - starts[:, None] + self._shared, -1)
        places = np.where(slots < self._shared, slots, own)
        self._places = torch.from_numpy(places).to(self._device)  # position of each slot, -1 of none, [B, S]
        self._kept: list[tuple[Tensor, Tensor]] = []  # keys and values by layer in the order of the calls, [B, K, S, h]
        self._rows, self._span, self._layer = slice(0, 1), slice(0, 0), 0
        self._seen: dict[int | None, Tensor] = {}
        self.forwarded = 0

    def read(self) -> Tensor:
        """Read the prompts: scores of the token after each, [B, V]."""
        most, count = tokens_at_a_time(self._device), len(self._prompts)
        if self._shared:
            first = self._prompts[0]
            for span in _spans(0, self._shared, most):
                self._forward(self._ids([first[span]]), slice(0, 1), span)
            for kept in self._kept:
                for held in kept:
                    held[1:, :, : self._shared] = held[:1, :, : self._shared]
            self.forwarded += self._shared
        scores, start = [], 0
        while start < count:
            width = len(self._prompts[start]) - self._shared
            rows = slice(start, min(count, start + max(1, most // width)))
            ids = np.zeros((rows.stop - start, width), np.int64)
            for b, prompt in enumerate(self._prompts[rows]):
                ids[b, width - len(prompt) + self._shared :] = prompt[self._shared :]
                self.forwarded += len(prompt) - self._shared
            first_slot = self._end - width
            for span in _spans(first_slot, self._end, most):
                part = ids[:, span.start - first_slot : span.stop - first_slot]
                last = self._forward(self._ids(part), rows, span)
            scores.append(last)
            start = rows.stop
        return torch.cat(scores)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """One more token of each text: scores of the one after it, [B, V]."""
        span = slice(self._end, self._end + 1)
        self._end += 1
        self.forwarded += len(tokens)
        return self._forward(self._ids([[token] for token in tokens]), slice(0, len(tokens)), span)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the texts."""
        chosen = torch.tensor(rows, device=self._device)
        self._places = self._places[chosen]
        self._kept = [(keys[chosen], values[chosen]) for keys, values in self._kept]

    def _ids(self, ids: Sequence[Sequence[int]] | np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(ids, np.int64)).to(self._device)

    def _forward(self, ids: Tensor, rows: slice, span: slice) -> Tensor:
        if self._check is not None:
            self._check()
        self._rows, self._span, self._layer = rows, span, 0
        self._seen.clear()
        return self._model.packed(ids, self)[0]

    @property
    def positions(self) -> Tensor:
        """See `Packing.positions`."""
        return self._places[self._rows, self._span].clamp(min=0)

    def attended(
        self, queries: Tensor, keys: Tensor, values: Tensor, window: int | None, scale: float | None
    ) -> Tensor:
        """See `Packing.attended`."""
        keys, values = self._held(keys, values)
        gqa = queries.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._mask(window), scale=scale, enable_gqa=gqa
        )

    def _mask(self, window: int | None) -> Tensor:
        """Which slots each token sees, bool [R, 1, T, S]."""
        if window not in self._seen:
            own = self._places[self._rows, self._span, None]
            others = self._places[self._rows, None, : self._span.stop]
            seen = (others >= 0) & (others <= own)
            if window is not None:
                seen &= own - others < window
            at = torch.arange(own.shape[1], device=self._device)
            seen[:, at, self._span.start + at] = True  # a row of nothing but hidden keys has no softmax
            self._seen[window] = seen[:, None]
        return self._seen[window]

    def _held(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of these tokens after those of earlier calls, which they are kept beside."""
        if self._layer == len(self._kept):
            texts, slots = self._places.shape
            shapes = [(texts, x.shape[1], slots, x.shape[3]) for x in (keys, values)]
            self._kept.append((keys.new_zeros(shapes[0]), values.new_zeros(shapes[1])))
        kept = self._kept[self._layer]
        self._layer += 1
        for held, fresh in zip(kept, (keys, values), strict=True):
            held[self._rows, :, self._span] = fresh
        until = slice(0, self._span.stop)
        return kept[0][self._rows, :, until], kept[1][self._rows, :, until]

    def last(self, x: Tensor) -> Tensor:
        """See `Packing.last`: the last slot of each row."""
        return x[:, -1][None]


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts begin with."""
    ordered = sorted(map(tuple, texts))  # what the first and the last have in common, all have
    first, last = ordered[0], ordered[-1]
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _spans(start: int, end: int, most: int) -> Iterator[slice]:
    """Consecutive parts of at most so many slots."""
    for at in range(start, end, most):
        yield slice(at, min(end, at + most))
