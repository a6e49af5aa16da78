"""Text from a deployed program: the loop around prefill and decode that a phone app has, in Python.

The caller holds the caches: a token at position p is in slot p modulo the slots, so that the slots of a sliding window
are a ring, and a mask hides slots that are not filled yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rankitect.blocks.attention import HIDDEN
from rankitect.errors import DataError
from rankitect.models.deployed import Cache, DeployedCall

__all__ = ["Generator", "Layout", "Method"]

Method = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]
"""Runs a method of a program: its inputs to its outputs."""


@dataclass(frozen=True)
class Layout:
    """What a caller must know of a program.

    Attributes:
        prompt: Tokens of a prefill; a shorter prompt is filled up at its end.
        capacity: Tokens of the longest sequence, prompt and answer together.
        masks: The window of each mask, None for none, in the order of the decode's inputs.
        caches: The cached tensors, in the order of inputs and outputs.
    """

    prompt: int
    capacity: int
    masks: tuple[int | None, ...]
    caches: tuple[Cache, ...]

    @classmethod
    def of(cls, prefill: DeployedCall, decode: DeployedCall) -> Layout:
        """The layout of a model's two calls."""
        return cls(prefill.tokens, decode.capacity, tuple(decode.masks), tuple(decode.caches))

    def slots(self, window: int | None) -> int:
        """How many tokens a cache holds: all but the present one, or those that its window sees."""
        return self.capacity - 1 if window is None else min(self.capacity, window) - 1

    def to_json(self) -> dict[str, Any]:
        """The layout as plain data, for the program's card."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """Read what `to_json` wrote."""
        caches = tuple(Cache(c["path"], tuple(c["shape"]), int(c["slots"]), c["window"]) for c in data["caches"])
        return cls(int(data["prompt"]), int(data["capacity"]), tuple(data["masks"]), caches)


class Generator:
    """Greedy generation.

    Args:
        layout: Of the program.
        prefill: Runs the method `prefill`.
        decode: Runs the method `decode`.
    """

    def __init__(self, layout: Layout, prefill: Method, decode: Method) -> None:
        self._layout, self._prefill, self._decode = layout, prefill, decode
        self._caches: list[torch.Tensor] = []
        self._position = 0

    def start(self, prompt: Sequence[int]) -> torch.Tensor:
        """Read a prompt into empty caches.

        Returns:
            Scores of the next token [V].

        Raises:
            DataError: The prompt is empty, or leaves no room.
        """
        layout = self._layout
        if not prompt:
            raise DataError("The prompt has no tokens.")
        if len(prompt) >= layout.capacity:
            raise DataError(
                f"The prompt has {len(prompt)} tokens; the program holds {layout.capacity}, answer included."
            )
        self._caches = [torch.zeros(self._shape(c)) for c in layout.caches]
        first = list(prompt[: layout.prompt])
        ids = torch.zeros(1, layout.prompt, dtype=torch.int64)
        ids[0, : len(first)] = torch.tensor(first)
        last = torch.zeros(1, layout.prompt)
        last[0, len(first) - 1] = 1.0
        logits, *fresh = self._prefill([ids, last])
        for cache, held, new in zip(layout.caches, self._caches, fresh, strict=True):
            kept = min(len(first), held.shape[cache.slots])
            for position in range(len(first) - kept, len(first)):
                _put(held, new, cache.slots, position, position)
        self._position = len(first)
        for token in prompt[layout.prompt :]:
            logits = self.step(int(token))
        return logits.flatten()

    def step(self, token: int) -> torch.Tensor:
        """One more token: scores of the one after it, [V].

        Raises:
            DataError: The sequence is full.
        """
        layout = self._layout
        if self._position >= layout.capacity:
            raise DataError(f"The sequence is full: the program holds {layout.capacity} tokens.")
        masks = [self._mask(window) for window in layout.masks]
        inputs = [torch.tensor([[token]]), torch.tensor([self._position]), *masks, *self._caches]
        logits, *fresh = self._decode(inputs)
        for cache, held, new in zip(layout.caches, self._caches, fresh, strict=True):
            _put(held, new, cache.slots, self._position, 0)
        self._position += 1
        return logits.flatten()

    def stream(self, prompt: Sequence[int], count: int, stop: Collection[int] = ()) -> Iterator[int]:
        """The most likely tokens after a prompt, one by one, until the sequence is full.

        Args:
            prompt: Token ids.
            count: How many at most.
            stop: Tokens that end the answer; they are not part of it.
        """
        logits = self.start(prompt)
        for left in range(count, 0, -1):
            token = int(logits.argmax())
            if token in stop:
                return
            yield token
            if left == 1 or self._position >= self._layout.capacity:
                return
            logits = self.step(token)

    def greedy(self, prompt: Sequence[int], count: int, stop: Collection[int] = ()) -> list[int]:
        """The tokens of `stream` as a list. Arguments as there."""
        return list(self.stream(prompt, count, stop))

    def _shape(self, cache: Cache) -> list[int]:
        return [self._layout.slots(cache.window) if i == cache.slots else n for i, n in enumerate(cache.shape)]

    def _mask(self, window: int | None) -> torch.Tensor:
        mask = torch.zeros(self._layout.slots(window))
        mask[self._position :] = HIDDEN
        return mask


def _put(held: torch.Tensor, fresh: torch.Tensor, axis: int, position: int, at: int) -> None:
    """Put the token `at` of fresh tensors where the position belongs; a sequence's last token needs no place."""
    held.select(axis, position % held.shape[axis]).copy_(fresh.select(axis, at))
