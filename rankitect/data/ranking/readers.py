"""The source of a configuration: which reader, with which columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankitect.data.ranking.delimited import BLOCK_BYTES, DelimitedSource
from rankitect.data.ranking.formats import AVAZU, CRITEO, CRITEO_COLUMNS
from rankitect.data.ranking.jsonl import Fields, JsonLinesSource
from rankitect.data.ranking.lines import Dialect
from rankitect.data.ranking.parquet import ParquetSource
from rankitect.data.ranking.parts import FirstRows, Partition, PartitionedSource, without_columns
from rankitect.data.ranking.schema import Categorical, DataSettings, TableSchema
from rankitect.data.ranking.sources import Source, needed
from rankitect.data.ranking.sparse import SparseSource
from rankitect.data.storage import DataFile, list_files
from rankitect.data.streams import PACKED, open_text_stream
from rankitect.errors import DataError, safe, short

__all__ = ["open_source", "with_defaults"]

_PATH = "task.data.path"
_LEAST_BYTES, _ROW_BYTES = 1 << 20, 1 << 10
"""What is read of text at a time where a limit is given: so much for each of its rows."""
_ENDINGS = {
    "jsonl": (".jsonl", ".ndjson", ".json", *PACKED),
    "libsvm": (".libsvm", ".svm", ".svmlight", ".txt", *PACKED),
    "libffm": (".libffm", ".ffm", ".txt", *PACKED),
    "parquet": (".parquet", ".pq"),
}
_TEXT = (".csv", ".tsv", ".txt", *PACKED)
"""Endings of the files of a folder that are read, by format; of delimited text otherwise."""


def open_source(settings: DataSettings, filesystem: Any = None) -> Source:
    """The source that the settings name.

    Args:
        settings: What to read.
        filesystem: A `pyarrow.fs.FileSystem` in which `settings.path` lies; None for this machine or a URI.

    Raises:
        DataError: If there is no such file, or it does not have the columns.
    """
    source = _whole_source(settings, filesystem)
    return source if settings.limit is None else FirstRows(source, settings.limit)


def _whole_source(settings: DataSettings, filesystem: Any) -> Source:
    if settings.format == "synthetic":
        from rankitect.data.ranking.synthetic import SyntheticSource

        return SyntheticSource(settings.synthetic)
    if settings.format == "movielens":
        from rankitect.data.ranking.movielens import open_movielens

        return open_movielens(settings.path)
    assert settings.path is not None
    listed = list_files(settings.path, _ENDINGS.get(settings.format, _TEXT), _PATH, filesystem)
    files = [each.file for each in listed]
    folder = str(files[0]).removesuffix(listed[0].inside).rstrip("/")
    name = files[0].name.split(".")[0] if len(files) == 1 else folder.rpartition("/")[2]
    schema = {"criteo": CRITEO, "avazu": AVAZU}.get(settings.format, settings.table)
    named = {column for each in listed for column in each.partition} & set(needed(schema))
    size = BLOCK_BYTES
    if settings.limit is not None:
        size = min(size, max(_LEAST_BYTES, _ROW_BYTES * settings.limit))
    fields = Fields(files, schema, size, settings.limit)  # of the whole table: no file needs to have them all
    if not named:
        return _source(name, schema, files, settings, size, fields)
    parts = []
    for each in listed:
        partition = {column: value for column, value in each.partition.items() if column in named}
        inner = without_columns(schema, partition)
        parts.append(Partition(_source(name, inner, [each.file], settings, size, fields), partition))
    return PartitionedSource(name, schema, parts)


def _source(
    name: str, schema: TableSchema, files: Sequence[DataFile], settings: DataSettings, size: int, fields: Fields
) -> Source:
    """The reader of a format."""
    if settings.format == "parquet":
        return ParquetSource(name, schema, files, limit=settings.limit)
    if settings.format == "jsonl":
        return JsonLinesSource(name, schema, files, size, fields)
    if settings.format in ("libsvm", "libffm"):
        return SparseSource(name, schema, files, settings.format == "libffm", size)
    if settings.format == "criteo":
        return DelimitedSource("criteo", schema, files, Dialect("\t", None), CRITEO_COLUMNS, block_bytes=size)
    if settings.format == "avazu":
        return DelimitedSource("avazu", schema, files, Dialect(",", None), block_bytes=size)
    delimiter = settings.delimiter or {"csv": ",", "tsv": "\t"}[settings.format]
    quote = settings.quote or {"csv": '"', "tsv": "none"}[settings.format]
    dialect = Dialect(
        delimiter, None if quote == "none" else quote, schema.missing, newlines=settings.newlines_in_values
    )
    header = settings.table.columns or None
    if header is not None:
        _refuse_header(files, header, delimiter)
    return DelimitedSource(name, schema, files, dialect, header, block_bytes=size)


def _refuse_header(files: Sequence[DataFile], columns: Sequence[str], delimiter: str) -> None:
    """Raise where a file that is said to have no header begins with these very names, in whatever order."""
    named = sorted(name.casefold() for name in columns)
    for file in files:
        with open_text_stream(file) as stream:
            first = stream.head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
        if sorted(value.strip(" \"'\r").casefold() for value in first.split(delimiter)) == named:
            raise DataError(
                f"{short(safe(str(file)), 200)}: its first row names the columns, so leave table.columns out."
            )


def with_defaults(schema: TableSchema, settings: DataSettings) -> TableSchema:
    """The schema with what the settings say for all its categorical columns."""
    least = settings.min_count or {"criteo": 10, "avazu": 2}.get(settings.format, 1)

    def complete(column: Categorical) -> Categorical:
        encoding = column.encoding or settings.encoding
        rows = column.rows or {"vocabulary": settings.max_rows, "hash": settings.hash_rows}.get(encoding)
        # A hashed value needs no count unless it is asked for: counting would take the memory that hashing saves. Of an
        # index there is nothing to count.
        count = None
        if encoding != "index":
            count = column.min_count or (least if encoding == "vocabulary" else settings.min_count or 1)
        return column.model_copy(update={"encoding": encoding, "rows": rows, "min_count": count})

    return schema.model_copy(
        update={
            "categorical": tuple(complete(column) for column in schema.categorical),
            "multi_hot": tuple(complete(column) for column in schema.multi_hot),
        }
    )
