"""The source of a configuration: which reader, with which columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankitect.data.ranking.delimited import DelimitedSource, Dialect
from rankitect.data.ranking.formats import AVAZU, CRITEO, CRITEO_COLUMNS
from rankitect.data.ranking.schema import Categorical, DataSettings, TableSchema
from rankitect.data.ranking.sources import Piece, Source, check_columns, list_files
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetSource", "open_source", "with_defaults"]

_TEXT = (".csv", ".tsv", ".txt", ".gz", ".bz2", ".zst")
_ROWS = 131_072  # of a Parquet file at a time; part of what cached tables are named by


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, one after the other.

    Attributes:
        name: Name for reports.
        schema: What the columns are for.
        files: The files.
        rows: Rows of a piece.
    """

    name: str
    schema: TableSchema
    files: Sequence[Path]
    rows: int = _ROWS

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        import pyarrow as pa
        from pyarrow import parquet

        for file in self.files:
            try:
                table = parquet.ParquetFile(file)
                wanted = check_columns(self.schema, table.schema_arrow.names, str(file))
                first = 1
                for batch in table.iter_batches(self.rows, columns=wanted, use_threads=False):
                    yield lambda batch=batch, file=file, first=first: self._piece(batch, str(file), first)  # type: ignore[misc]
                    first += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as Parquet: {error}.") from error

    def _piece(self, batch: pa.RecordBatch, file: str, first: int) -> Piece:
        columns = {name: self._with_missing(batch.column(name)) for name in batch.schema.names}
        return Piece(columns, file, np.arange(first, first + batch.num_rows))

    def _with_missing(self, values: pa.Array) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
            values = pc.cast(values, pa.string())
        if not pa.types.is_string(values.type):
            return values
        gone = pc.is_in(values, value_set=pa.array(self.schema.missing, pa.string()))
        return pc.if_else(gone, pa.scalar(None, pa.string()), values)


def open_source(settings: DataSettings) -> Source:
    """The source that the settings name.

    Raises:
        DataError: If there is no such file, or it does not have the columns.
    """
    if settings.format == "synthetic":
        from rankitect.data.ranking.synthetic import SyntheticSource

        return SyntheticSource(settings.synthetic)
    if settings.format == "movielens":
        from rankitect.data.ranking.movielens import open_movielens

        return open_movielens(settings.path)
    assert settings.path is not None
    if settings.format == "parquet":
        files = list_files(settings.path, (".parquet", ".pq"))
        return ParquetSource(_stem(files), settings.table, files)
    files = list_files(settings.path, _TEXT)
    if settings.format == "criteo":
        return DelimitedSource("criteo", CRITEO, files, Dialect("\t", None), CRITEO_COLUMNS)
    if settings.format == "avazu":
        return DelimitedSource("avazu", AVAZU, files, Dialect(",", None))
    delimiter = settings.delimiter or {"csv": ",", "tsv": "\t"}[settings.format]
    dialect = Dialect(delimiter, '"', settings.table.missing)
    return DelimitedSource(_stem(files), settings.table, files, dialect)


def with_defaults(schema: TableSchema, settings: DataSettings) -> TableSchema:
    """The schema with what the settings say for all its categorical columns."""
    least = settings.min_count or {"criteo": 10, "avazu": 2}.get(settings.format, 1)

    def complete(column: Categorical) -> Categorical:
        encoding = column.encoding or settings.encoding
        rows = column.rows or {"vocabulary": settings.max_rows, "hash": settings.hash_rows}.get(encoding)
        # A hashed value needs no count unless it is asked for: counting would take the memory that hashing saves.
        count = column.min_count or (least if encoding == "vocabulary" else settings.min_count or 1)
        if encoding == "index":
            count = 1
        return column.model_copy(update={"encoding": encoding, "rows": rows, "min_count": count})

    return schema.model_copy(
        update={
            "categorical": tuple(complete(column) for column in schema.categorical),
            "multi_hot": tuple(complete(column) for column in schema.multi_hot),
        }
    )


def _stem(files: Sequence[Path]) -> str:
    return files[0].name.split(".")[0] if len(files) == 1 else files[0].parent.name
