"""Labelled exchanges as a guard model sees them: divided, in its template, in batches, and as plain text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.moderation.exchanges import FEWEST, Exchange, exchanges_fingerprint
from rankitect.data.tokens import SplitTokens, TokenizedText
from rankitect.data.windows import TextWindows, epoch_order
from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from rankitect.data.moderation.template import GuardTemplate
    from rankitect.data.tokenizer import Tokenizer

__all__ = ["GuardData"]

_FORMAT = 1
"""To be raised when the same exchanges begin to give other tokens."""


@dataclass(frozen=True, eq=False)
class GuardData:
    """The exchanges of a task.

    Attributes:
        name: Where they are from.
        splits: The exchanges of "train", "search" (validation) and "test".
        template: How they become tokens.
        tokenizer: Of the template.
        seed: Of the order of training batches.
    """

    name: str
    splits: Mapping[str, Sequence[Exchange]]
    template: GuardTemplate
    tokenizer: Tokenizer
    seed: int = 0

    @cached_property
    def sequences(self) -> dict[str, list[tuple[int, ...]]]:
        """Of each split the tokens of each exchange, up to the verdict."""
        return {name: self.template.sequences(self.tokenizer, part) for name, part in self.splits.items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the tokens and labels depend on."""
        described = [
            _FORMAT, exchanges_fingerprint(self.splits), self.template.to_json(), self.tokenizer.fingerprint,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    @cached_property
    def length(self) -> int:
        """Tokens of an exchange of the training split in the mean, rounded up."""
        sizes = [len(one) for one in self.sequences["train"]]
        return -(-sum(sizes) // len(sizes))

    def unsafe(self, split: str) -> NDArray[np.bool_]:
        """The labels of a split."""
        return np.asarray([one.unsafe for one in self.splits[split]], np.bool_)

    def places(self, split: str, step: int, batch: int, seed: int | None = None) -> NDArray[np.int64]:
        """Which exchanges make the batch of a step, [B]: each once an epoch, each epoch in another order."""
        count, seed = len(self.splits[split]), self.seed if seed is None else seed
        numbers = np.arange(step * batch, (step + 1) * batch)
        return np.array([epoch_order(count, split, seed, int(n) // count)[n % count] for n in numbers])

    def sampled(self, split: str, most: int | None) -> NDArray[np.int64]:
        """Places of at most so many exchanges of a split: the same share of each source and label, always the same.

        Of a label that is seldom there are more, where its share would be fewer than are needed to judge by.

        Raises:
            ConfigError: So many cannot have enough of both labels.
        """
        exchanges = self.splits[split]
        if most is not None and most < 2 * FEWEST:
            raise ConfigError(f"{most} exchanges cannot have {FEWEST} of each label: at least {2 * FEWEST} are needed.")
        if most is None or most >= len(exchanges):
            return np.arange(len(exchanges))
        order = epoch_order(len(exchanges), split, 0, 0)
        # In the order of source and label, and in a random one within these; then evenly spread.
        keys = [(exchanges[i].source, exchanges[i].unsafe, rank) for rank, i in enumerate(order.tolist())]
        by_kind = order[sorted(range(len(keys)), key=keys.__getitem__)]
        chosen = by_kind[np.arange(most) * len(exchanges) // most]
        unsafe = self.unsafe(split)
        for label in (True, False):
            lacking = FEWEST - int((unsafe[chosen] == label).sum())
            if lacking > 0:
                seldom = [i for i in order if unsafe[i] == label and i not in chosen][:lacking]
                rest = [i for i in chosen if unsafe[i] != label]
                kept = [i for i in chosen if unsafe[i] == label]
                room = most - len(kept) - len(seldom)
                # Evenly again: of each source of the other label the same share makes room.
                thinned = [rest[n * len(rest) // room] for n in range(room)]
                chosen = np.asarray([*kept, *seldom, *thinned], np.int64)
        result: NDArray[np.int64] = np.sort(chosen)
        return result

    def windows(self, context: int) -> TextWindows:
        """The conversations of each split one after the other, verdicts included: the text that calibration reads.

        Args:
            context: Tokens of a window.
        """
        splits = {name: self._tokens(name) for name in self.splits}
        text = TokenizedText(
            self.name, self.fingerprint, exchanges_fingerprint(self.splits), self.tokenizer.vocab_size, splits, Path()
        )
        return TextWindows(text, context=context, seed=self.seed)

    def _tokens(self, split: str) -> SplitTokens:
        order = epoch_order(len(self.splits[split]), split, 0, 0)
        verdicts = self.template.verdicts
        ends = [verdicts.unsafe if one.unsafe else verdicts.safe for one in self.splits[split]]
        documents = [(*self.sequences[split][i], ends[i]) for i in order.tolist()]
        sizes = [len(self.splits[split][i].text.encode(errors="replace")) for i in order.tolist()]
        offsets, byte_offsets = (
            np.concatenate([[0], np.cumsum(each)]).astype(np.int64) for each in (list(map(len, documents)), sizes)
        )
        ids = np.asarray([token for document in documents for token in document], np.int64)
        return SplitTokens(split, ids, tuple(str(i) for i in order.tolist()), offsets, byte_offsets)
