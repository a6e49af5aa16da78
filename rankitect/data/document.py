"""A text and a collection of texts, whatever they are read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Document", "TextSource"]


@dataclass(frozen=True)
class Document:
    """One text that is kept whole: never cut across two splits.

    Attributes:
        id: name within its source, such as a topic, a relative path, or `file.jsonl#12` (rows count from 1).
        text: the text, without lone surrogates, so that it can be written as UTF-8.
        markup: whether the special tokens of a chat template in it stand for themselves; in all other text they are
            plain characters.
        own: what is particular to it, in which near-copies are looked for; None for `text`. Chats share their
            instructions.
    """

    id: str
    text: str
    markup: bool = False
    own: str | None = None


@runtime_checkable
class TextSource(Protocol):
    """A named collection of documents that can be iterated again and again, always in the same order."""

    @property
    def name(self) -> str:
        """How messages and reports call the source."""

    def __iter__(self) -> Iterator[Document]: ...
