"""Sources made of sources: files in folders that name columns (as Hive writes them), and the first rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import Piece, Source
from rankitect.data.ranking.typed import plain
from rankitect.data.storage import DataFile

__all__ = ["FirstRows", "Partition", "PartitionedSource", "partitions_of", "without_columns"]


@dataclass(frozen=True)
class Partition:
    """A part of a partitioned table.

    Attributes:
        source: Its files, read by a schema without the columns that the folders name.
        partition: These columns with their one value; None where it is missing.
    """

    source: Source
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class PartitionedSource:
    """Files in folders named `column=value`, whose rows all have that value.

    Where a file has the column as well, the folder counts, as it does for Spark, DuckDB, Polars and pyarrow.

    Attributes:
        name: Name for reports.
        schema: What the columns are for.
        parts: The files by folder.
    """

    name: str
    schema: TableSchema
    parts: Sequence[Partition]

    @property
    def files(self) -> Sequence[DataFile]:
        """See `Source`."""
        return [file for part in self.parts for file in part.source.files]

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        for part in self.parts:
            for read in part.source.pieces():
                yield lambda read=read, part=part: self._joined(read(), part)  # type: ignore[misc]

    def _joined(self, piece: Piece, part: Partition) -> Piece:
        import pyarrow as pa

        columns = dict(piece.columns)
        for name, value in part.partition.items():
            repeated = pa.repeat(pa.scalar(None if value is None else value.encode(), pa.binary()), len(piece.lines))
            columns[name] = plain(repeated, name, piece.file, self.schema.missing)
        return Piece(columns, piece.file, piece.lines, piece.bad, piece.truth)


def without_columns(schema: TableSchema, names: Mapping[str, Any]) -> TableSchema:
    """A schema without what it reads from some columns; it is not complete and only says what to read of a file."""
    kept = {
        kind: tuple(column for column in columns if column.source not in names)
        for kind, columns in (
            ("numeric", schema.numeric), ("categorical", schema.categorical), ("multi_hot", schema.multi_hot)
        )
    }  # fmt: skip
    label = None if schema.label is None or schema.label.name in names else schema.label
    timestamp = None if schema.timestamp is None or schema.timestamp.name in names else schema.timestamp
    single = {
        key: None if value in names else value for key, value in (("group", schema.group), ("weight", schema.weight))
    }
    score = None if schema.score is None or schema.score.name in names else schema.score
    return schema.model_copy(update={**kept, **single, "label": label, "timestamp": timestamp, "score": score})


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a table; no more of its files is read than they need.

    Attributes:
        source: The table.
        rows: Rows to read, bad ones included.
    """

    source: Source
    rows: int

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.source.name

    @property
    def schema(self) -> TableSchema:
        """See `Source`."""
        return self.source.schema

    @property
    def files(self) -> Sequence[DataFile]:
        """See `Source`."""
        return self.source.files

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`. Each is read before the next is asked for, as it is not known before how many rows it has."""
        left = self.rows
        for read in self.source.pieces():
            piece = _first(read(), left)
            left -= len(piece.lines) + len(piece.bad)
            yield lambda piece=piece: piece  # type: ignore[misc]
            if left <= 0:
                return


def partitions_of(source: Source) -> list[dict[str, str | None]]:
    """What the folders of a partitioned table say of each file, which is a part of its content; else nothing."""
    if isinstance(source, FirstRows):
        return partitions_of(source.source)
    return [dict(part.partition) for part in source.parts] if isinstance(source, PartitionedSource) else []


def _first(piece: Piece, count: int) -> Piece:
    """The first `count` rows of a piece, bad ones included."""
    places = sorted([*piece.lines.tolist(), *(row.line for row in piece.bad)])
    if len(places) <= count:
        return piece
    last = places[count - 1]
    kept = int((piece.lines <= last).sum())
    columns = {name: values.slice(0, kept) for name, values in piece.columns.items()}
    truth = None if piece.truth is None else piece.truth[:kept]
    return Piece(columns, piece.file, piece.lines[:kept], [row for row in piece.bad if row.line <= last], truth)
