"""Windows of a tokenised text, in batches: what language models are trained on and judged by.

Shapes: B batch, T context (tokens predicted in a window).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.text import DEFAULT_TEXT, TextSource, open_text
from rankitect.data.tokens import SplitTokens, TokenizedText, tokenize
from rankitect.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.data.tokenizer import Tokenizer

__all__ = ["HELD_OUT", "TextWindows", "epoch_order"]

HELD_OUT = 16
"""Windows of text on which a program is compared with its model, at most."""


class TextWindows:
    """Batches of windows of one tokenised text.

    Args:
        text: with the splits train, calibration, search and test.
        context: tokens of a window, where a call names none.
        seed: of the order of training windows.
    """

    def __init__(self, text: TokenizedText, *, context: int = 256, seed: int = 0) -> None:
        if context < 1:
            raise DataError(f"task.context must be at least 1 token, found {context}.")
        self.text, self.context, self.seed = text, context, seed

    @classmethod
    def open(
        cls,
        tokenizer: Tokenizer,
        text: str | Path | TextSource = DEFAULT_TEXT,
        *,
        context: int = 256,
        seed: int = 0,
        split_seed: int = 0,
        field: str = "text",
        limit: int | None = None,
        begin: int | None = None,
        cache: Path | None = None,
    ) -> TextWindows:
        """Reads, splits and tokenises a text (from the cache where that was done) and checks that it is long enough.

        Args:
            tokenizer: the backbone's.
            text: what `open_text` takes, or a source.
            context: tokens of a window.
            seed: of the order of training windows.
            split_seed: of the division into splits; kept apart from `seed`, so that runs with several seeds are judged
                on the same held-out text.
            field: JSON field or parquet column with the text, or with messages, which the tokenizer's template renders.
            limit: bytes of text to read, the first documents; None for all.
            begin: the token that every window begins with, as models expect it that were trained so; None: none.
            cache: folder of tokenised texts.

        Raises:
            DataError: for a text that cannot be read, or that leaves a split without a single window.
        """
        if isinstance(text, str | Path):
            text = open_text(text, field=field, chat=tokenizer.chat, limit=limit)
        tokenized = tokenize(text, tokenizer, seed=split_seed, cache=cache).beginning_with(begin)
        windows = cls(tokenized, context=context, seed=seed)
        for split in windows.text.splits:
            windows.require(split)
        return windows

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
        return np.array([epoch_order(count, split, seed, int(place) // count)[place % count] for place in places])

    def batch_at(
        self, split: str, step: int, *, batch: int, context: int | None = None, seed: int | None = None
    ) -> Tensor:
        """The batch of a step: token ids [B, T + 1] int64."""
        import torch

        context = context or self.context
        windows = self.window_indices(split, step, batch=batch, context=context, seed=seed)
        return torch.from_numpy(self.text.split(split).read(windows, context))

    def held_out(self) -> Tensor:
        """Windows of the test text, [W, T + 1] int64: what a program's quality is compared with its model's on."""
        count = min(HELD_OUT, self.require("test").windows(self.context))
        return self.batch_at("test", 0, batch=count)

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


@lru_cache(maxsize=8)
def epoch_order(count: int, split: str, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which the windows of a split are seen in an epoch, [count]; read-only."""
    digest = hashlib.sha256(f"{split}:{seed}:{epoch}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(count)
    order.setflags(write=False)
    return order
