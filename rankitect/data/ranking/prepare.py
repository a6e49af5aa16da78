"""Preprocessing: read, divide, count, encode. What was read is kept, so that a killed run goes on where it was.

1. read: each piece of the source becomes a raw shard (`raw.py`), side by side on all cores.
2. divide: which row is of which split (`splitting.py`).
3. count: vocabulary, mean and deviation, from training rows only.
4. encode: shards into one memory-mapped .npy file a split and kind of column, rows one after the other in each, as a
   batch reads whole rows.

Memory holds a few pieces and the vocabularies, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rankitect.data.assets import cache_root
from rankitect.data.contents import content_hash
from rankitect.data.entries import complete, forget
from rankitect.data.files import folder_lock
from rankitect.data.pool import RowProgress, in_order, worker_count
from rankitect.data.ranking.assumptions import Assumptions
from rankitect.data.ranking.dataset import RankingData
from rankitect.data.ranking.encoding import count, encode
from rankitect.data.ranking.outliers import leave_out_far
from rankitect.data.ranking.parts import partitions_of
from rankitect.data.ranking.raw import RawShard, build
from rankitect.data.ranking.readers import open_source, with_defaults
from rankitect.data.ranking.schema import DataSettings, TableSchema
from rankitect.data.ranking.sources import Piece, Source
from rankitect.data.ranking.sparse import refuse_unnamed
from rankitect.data.ranking.splitting import assign, refuse_disorder, split_kind
from rankitect.data.ranking.store import open_stored, publish
from rankitect.errors import DataError, safe, short

__all__ = ["open_ranking"]

_LOG = logging.getLogger(__name__)
_FORMAT = 5  # part of every fingerprint: raise it when the meaning of the files or the way they are made changes
_HASHED = 256 << 20  # bytes of files that are read for their hash where only a part of them is wanted
_ROWS_TO_JUDGE = 200_000  # before bad rows, or what is assumed of all rows, may end a run early


def open_ranking(
    settings: DataSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
    filesystem: Any = None,
) -> RankingData:
    """Opens a table, encoded; the first time it is read and encoded, which the cache keeps.

    Args:
        settings: What to read and how; by default MovieLens-100K.
        cache: Folder of the encoded tables; by default `ranking` in `rankitect.data.assets.cache_root()`.
        progress: Receives a line of text every few seconds; by default lines go to this module's logger.
        filesystem: A `pyarrow.fs.FileSystem` that holds `settings.path`; None for this machine, or a URI.

    Raises:
        DataError: If the data cannot be read or used, with file, row and column where known.
        AssetError: If MovieLens-100K has to be fetched and cannot be.
    """
    settings = settings or DataSettings()
    root = cache or cache_root() / "ranking"
    source = open_source(settings, filesystem)
    schema = with_defaults(source.schema, settings)
    try:
        described = _described(source, schema, settings, root)
        fingerprint = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        folder = root / fingerprint[:32]
        if not complete(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with folder_lock(folder):
                if not complete(folder):  # another process may have made it while this one waited
                    _make(folder, source, schema, settings, described, progress or _LOG.info)
        return open_stored(folder, fingerprint)
    except OSError as error:
        if error.filename is not None and Path(error.filename) in source.files:
            raise DataError(f"{error.filename} cannot be read ({error.strerror or error}).") from error
        raise DataError(
            f"The encoded table cannot be kept in {root} ({error.strerror or error}): free some space, or set "
            "RANKITECT_CACHE to a folder that can be written."
        ) from error


def _described(source: Source, schema: TableSchema, settings: DataSettings, root: Path) -> dict[str, Any]:
    """All that decides the encoded rows."""
    about: dict[str, Any] = {
        "format": _FORMAT,
        "name": source.name,
        "content": content_hash(source.files, root / "sources", _HASHED if settings.limit else None),
        "schema": schema.model_dump(mode="json"),
        "delimiter": settings.delimiter,
        "quote": [settings.quote, settings.newlines_in_values],
        "split": split_kind(settings, schema),
        "shares": settings.shares,
        "out_of_order": settings.out_of_order,
        "bad": [settings.bad_rows, settings.bad_share],
        "limit": settings.limit,
        "reader": settings.format,
        "partitions": partitions_of(source),
    }
    if about["split"] in ("user", "hash"):
        about["split_seed"] = settings.split_seed
    if settings.format == "synthetic":
        about["synthetic"] = settings.synthetic.model_dump(mode="json")
    return about


def _make(
    folder: Path,
    source: Source,
    schema: TableSchema,
    settings: DataSettings,
    described: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    forget(folder)  # of a damaged entry
    workers = worker_count(settings.workers)
    shards, outlines = _read(folder / "raw", source, schema, settings, RowProgress(f"{source.name}: read", say))
    while True:
        bad = sum((Counter(facts["bad"]) for facts in outlines), Counter[str]())
        _judge(bad, sum(facts["rows"] for facts in outlines), settings, source.name)
        assignment = assign(settings, schema, shards, outlines)
        plan = count(schema, shards, assignment, workers, RowProgress(f"{source.name}: counted", say))
        if not leave_out_far(shards, outlines, plan, settings):
            break
    refuse_disorder(settings, schema, outlines)  # of the rows that are left
    facts = encode(folder, schema, plan, shards, assignment, workers, RowProgress(f"{source.name}: encoded", say))
    publish(folder, plan, described, {**facts, "bad_rows": dict(bad), "split": split_kind(settings, schema)}, workers)
    shutil.rmtree(folder / "raw", ignore_errors=True)


def _read(
    folder: Path, source: Source, schema: TableSchema, settings: DataSettings, progress: RowProgress
) -> tuple[list[Path], list[dict[str, Any]]]:
    """All raw shards, with the facts of each. Those of a run that was killed are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)

    def shard(number: int, read: Callable[[], Piece]) -> tuple[Path, dict[str, Any]]:
        path = folder / f"{number:06d}.safetensors"
        if RawShard.outline(path) is None:
            build(read(), schema, settings).save(path)
        facts = RawShard.outline(path)
        assert facts is not None
        return path, facts

    shards, outlines, bad, assumptions = [], [], Counter[str](), Assumptions(schema)
    tasks = (lambda number=number, read=read: shard(number, read) for number, read in enumerate(source.pieces()))
    for path, facts in in_order(tasks, worker_count(settings.workers)):
        shards.append(path)
        outlines.append(facts)
        bad.update(facts["bad"])
        progress.add(facts["rows"])
        assumptions.add(facts["shown"])
        if progress.rows + bad.total() > _ROWS_TO_JUDGE:
            assumptions.check(source.name)
            _judge(bad, progress.rows, settings, source.name)
    progress.end()
    assumptions.check(source.name)
    if not progress.rows:
        first, more = short(safe(str(source.files[0])), 160), len(source.files) - 1
        raise DataError(
            f"{source.name}: there is no usable row in {first}{f' and {more} other files' if more else ''}."
        )
    if settings.format == "libsvm":
        refuse_unnamed(schema, [facts["largest"] for facts in outlines], source.name)
    return shards, outlines


def _judge(bad: Counter[str], rows: int, settings: DataSettings, name: str) -> None:
    count = bad.total()
    if count > settings.bad_share * (rows + count):
        kinds = "; ".join(f"{kind}: {number:,}" for kind, number in bad.most_common(5))
        raise DataError(
            f"{name}: {count:,} of {rows + count:,} rows are bad, {count / (rows + count):.2%}, more than the "
            f"{settings.bad_share:.2%} of task.data.bad_share ({kinds}). Are the format, the delimiter and the columns "
            "right? If they are, raise task.data.bad_share."
        )
