"""Preprocessing: read, split, count, encode; each stage is kept, so that a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankitect.data.ranking.dataset import RankingData
from rankitect.data.ranking.schema import DataSettings

__all__ = ["open_ranking"]


def open_ranking(
    settings: DataSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> RankingData:
    """Opens a table, encoded; the first time it is read and encoded, which the cache keeps.

    Args:
        settings: What to read and how; by default MovieLens-100K.
        cache: Folder of the encoded tables; by default `ranking` in `rankitect.data.assets.cache_root()`.
        progress: Receives a line of text every few seconds; by default lines go to this module's logger.

    Raises:
        DataError: If the data cannot be read or used, with file, row and column where known.
        AssetError: If MovieLens-100K has to be fetched and cannot be.
    """
    raise NotImplementedError
