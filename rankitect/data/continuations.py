"""Texts that continue others, as tokens: what a language model is asked how likely it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.errors import DataError

if TYPE_CHECKING:
    from rankitect.data.tokenizer import Tokenizer

__all__ = ["Continuation", "continuations"]


@dataclass(frozen=True)
class Continuation:
    """A sequence of which the last tokens are to be predicted.

    Attributes:
        tokens: Token ids of the whole.
        start: Number of the first token that is predicted, at least 1.
    """

    tokens: tuple[int, ...]
    start: int


def continuations(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], begin: int | None = None
) -> list[Continuation]:
    """Texts and what continues them as tokens, cut where EleutherAI's lm-eval cuts them.

    The whole is tokenised, as a model has seen such texts; what comes after as many tokens as the first text has alone
    is predicted. Blanks at the end of the first text belong to the second, with whose first word they make a token.

    Args:
        tokenizer: The model's.
        pairs: Texts, each with what continues it; the first may be empty.
        begin: The token that a sequence begins with; None for none.

    Raises:
        DataError: An empty text, and no token to predict the first one from.
    """
    moved = []
    for before, after in pairs:
        kept = before.rstrip()
        moved.append((kept, before[len(kept) :] + after))
    heads = dict.fromkeys(before for before, _ in moved)
    known = dict(zip(heads, tokenizer.encode_batch(list(heads)), strict=True))
    wholes = tokenizer.encode_batch([before + after for before, after in moved])
    first = () if begin is None else (begin,)
    continuations = []
    for (before, _), whole in zip(moved, wholes, strict=True):
        head = known[before][: len(whole) - 1]  # something is predicted, however the texts merge
        opening = first or (() if len(head) else _stand_in(tokenizer))
        tokens = (*opening, *head.tolist(), *whole[len(head) :].tolist())
        continuations.append(Continuation(tokens, len(opening) + len(head)))
    return continuations


def _stand_in(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token from which the first one of a text is predicted where nothing stands before it.

    Raises:
        DataError: The tokenizer has none.
    """
    for role in ("bos", "eos"):
        if role in tokenizer.special_ids:
            return (tokenizer.special_ids[role],)
    raise DataError(
        "a query is empty, and the tokenizer has neither a first nor a last token (bos, eos) to predict a text from."
    )
