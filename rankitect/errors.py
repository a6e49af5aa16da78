"""Errors that a user can act on. Every one is shown without a traceback and ends a command with exit code 2."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

__all__ = [
    "LONGEST_MESSAGE",
    "AssetError",
    "BaselineError",
    "ConfigError",
    "DataError",
    "DeployError",
    "DiskError",
    "MeasureError",
    "RankitectError",
    "RunFolderError",
    "SpaceError",
    "TrainingError",
    "brief",
    "closest",
    "safe",
    "short",
    "shown",
]

LONGEST_MESSAGE = 500
"""Characters of a message."""


class RankitectError(ValueError):
    """A mistake in what the user gave, or a missing thing, with what to do about it.

    Whatever the message quotes, it has at most 500 characters, and none that a terminal would obey.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(short(safe(str(message)), LONGEST_MESSAGE))


class SpaceError(RankitectError):
    """A search space, a wire, a choice or an architecture that breaks the space's rules."""


class ConfigError(RankitectError):
    """A configuration key or value that is not allowed."""


class BaselineError(ConfigError):
    """A production model that cannot be run: it raises, gives something else than it must, or may not be imported."""


class AssetError(RankitectError):
    """A model or data file that is missing, truncated, altered or of an unsupported kind."""


class DataError(RankitectError):
    """Text or tables that cannot be used, with file, row and column where known."""


class RunFolderError(RankitectError):
    """A run folder that is not one, is damaged, or belongs to another configuration."""


class TrainingError(RankitectError):
    """Training that cannot go on (not-a-number loss after retries, empty data)."""


class MeasureError(RankitectError):
    """A measure of the configuration that raises, or gives something else than finite numbers; names it."""


class DiskError(RankitectError):
    """Results cannot be written: a disk that is full, read-only or failing; what was kept and how to go on. Ends a
    command with exit code 3."""


class DeployError(RankitectError):
    """A model cannot be exported to the mobile runtime, or a device cannot run it."""


def safe(text: str) -> str:
    """A text as it may be printed: characters that are none, such as those that begin an escape sequence of a terminal
    or turn the direction of writing, are spelt as in Python (`\\x1b`). Line ends stay.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def brief(what: object, most: int = 150) -> str:
    """A name or value from outside for a message: safe to print, and at most so many characters."""
    return short(safe(" ".join(str(what).split())), most)


def short(text: str, most: int) -> str:
    """A text of at most so many characters: of a longer one the beginning and the end, as a message ends with what to
    do, and a path with its file."""
    if len(text) <= most:
        return text
    end = (most - 3) // 3
    return f"{text[: most - 3 - end]} … {text[len(text) - end :]}"


class _Shown(reprlib.Repr):
    """As Python writes values, but short, whatever they hold."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 3, most, min(most, 40), most

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python refuses to write integers of thousands of digits
            return f"an integer of {x.bit_length():,} bits"


def shown(value: object, most: int = 80) -> str:
    """A value that came from outside, for a message: shortened, and without characters that a terminal would act on.

    Args:
        value: Anything.
        most: Characters, about.

    >>> shown([1.5, None]), shown(10**5000)
    ('[1.5, None]', 'an integer of 16,610 bits')
    """
    return short(safe(_Shown(most).repr(value)), most)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most probably means, for "did you mean"; None if none is like it.

    Names may be dotted paths. A key in the wrong section is as common a mistake as a misspelt one, so the last part of
    a path counts on its own as well; of equally similar names, one in the same section wins.
    """

    def likeness(other: str) -> float:
        (parent, _, last), (other_parent, _, other_last) = name.rpartition("."), other.rpartition(".")
        whole = difflib.SequenceMatcher(None, name, other).ratio()
        end = difflib.SequenceMatcher(None, last, other_last).ratio()
        return max(whole, end) + (0.1 if parent == other_parent else 0.0)

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.7 else None
