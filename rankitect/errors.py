"""Errors that a user can act on. Every one is shown without a traceback and ends a command with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AssetError",
    "ConfigError",
    "DataError",
    "DeployError",
    "DiskError",
    "RankitectError",
    "RunFolderError",
    "SpaceError",
    "TrainingError",
    "closest",
]


class RankitectError(ValueError):
    """A mistake in what the user gave, or a missing thing, with what to do about it."""


class SpaceError(RankitectError):
    """A search space, a wire, a choice or an architecture that breaks the space's rules."""


class ConfigError(RankitectError):
    """A configuration key or value that is not allowed."""


class AssetError(RankitectError):
    """A model or data file that is missing, truncated, altered or of an unsupported kind."""


class DataError(RankitectError):
    """Text or tables that cannot be used, with file, row and column where known."""


class RunFolderError(RankitectError):
    """A run folder that is not one, is damaged, or belongs to another configuration."""


class TrainingError(RankitectError):
    """Training that cannot go on (not-a-number loss after retries, empty data)."""


class DiskError(RankitectError):
    """Results cannot be written: a disk that is full, read-only or failing; what was kept and how to go on. Ends a
    command with exit code 3."""


class DeployError(RankitectError):
    """A model cannot be exported to the mobile runtime, or a device cannot run it."""


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
