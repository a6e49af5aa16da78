"""Parquet files, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import Piece, check_columns
from rankitect.data.ranking.typed import plain
from rankitect.data.storage import DataFile, open_raw
from rankitect.data.streams import refuse_unless
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS", "ParquetSource"]

ROWS = 131_072
"""Of a file at a time; part of what cached tables are named by."""


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, one after the other.

    Attributes:
        name: Name for reports.
        schema: What the columns are for.
        files: The files.
        rows: Rows of a piece.
        limit: Rows of each file beyond which no row group is touched; None for all.
    """

    name: str
    schema: TableSchema
    files: Sequence[DataFile]
    rows: int = ROWS
    limit: int | None = None

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        import pyarrow as pa
        from pyarrow import parquet

        for file in self.files:
            try:
                with open_raw(file) as raw:
                    refuse_unless(b"PAR1", "Parquet", raw, file)
                    table = parquet.ParquetFile(raw, page_checksum_verification=True)
                    wanted = check_columns(self.schema, table.schema_arrow.names, str(file))
                    first = 1
                    groups = self._groups(table.metadata)
                    for batch in table.iter_batches(self.rows, groups, wanted, use_threads=False):
                        yield lambda batch=batch, file=file, first=first: self._piece(batch, str(file), first)  # type: ignore[misc]
                        first += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as Parquet: {short(safe(str(error)), 200)}.") from error

    def _groups(self, metadata: Any) -> list[int]:
        """The row groups to read. Arrow reads ahead: what it is not asked for it leaves alone."""
        groups: list[int] = []
        rows = 0
        for number in range(metadata.num_row_groups):
            if self.limit is not None and rows >= self.limit:
                break
            groups.append(number)
            rows += metadata.row_group(number).num_rows
        return groups

    def _piece(self, batch: pa.RecordBatch, file: str, first: int) -> Piece:
        columns = {name: plain(batch.column(name), name, file, self.schema.missing) for name in batch.schema.names}
        return Piece(columns, file, np.arange(first, first + batch.num_rows))
