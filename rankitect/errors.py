"""Errors that a user can act on. Every one is shown without a traceback and ends a command with exit code 2."""

from __future__ import annotations

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
