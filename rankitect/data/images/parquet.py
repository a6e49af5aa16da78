"""Parquet files with encoded images: a column of bytes, or of `{bytes, path}` as the library `datasets` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankitect.data.guard import guarded
from rankitect.data.images.decode import check_bytes, named
from rankitect.data.images.idx import split_of
from rankitect.data.images.raw import RawImage
from rankitect.data.storage import DataFile, open_raw
from rankitect.documents import parse_json
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetImages"]

_IMAGE, _LABEL = ("image", "img"), ("label",)
_FEATURES = b"huggingface"
_ROWS, _MOST_READ = 256, 1 << 30
"""Rows that are read at a time; and bytes, if every one of them were as large as all that lie together in the file."""


@dataclass(frozen=True)
class ParquetImages:
    """Images of Parquet files; see `rankitect.data.images.raw.ImageSource`.

    Attributes:
        name: For reports.
        files: The files; one whose name says test or validation is of that split, if there are others.
        image_column: Of the images; None for one of the usual names.
        label_column: Of the classes; None for the usual name.
    """

    name: str
    files: Sequence[DataFile]
    image_column: str | None = None
    label_column: str | None = None

    @cached_property
    def class_names(self) -> Mapping[str | int, str]:
        """Names of the classes by number, as `datasets` keeps them in the schema; empty where it does not say."""
        first = self.files[0]
        with guarded(f"{named(str(first))} cannot be read as Parquet", DataError), self._file(first) as opened:
            schema = opened.schema_arrow
            label = self._column(schema, self.label_column, _LABEL, "label_column", first)
            try:
                about = parse_json((schema.metadata or {}).get(_FEATURES, b"{}"), dict[str, Any], "metadata", DataError)
                names = about["info"]["features"][label]["names"]
            except (KeyError, TypeError, ValueError):
                return {}
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return {}
        return {place: short(safe(name), 60) for place, name in enumerate(names)}

    def images(self) -> Iterator[RawImage]:
        """The images, file after file."""
        told = {split_of(file.name.rpartition(".")[0]) for file in self.files}
        for file in self.files:
            split = split_of(file.name.rpartition(".")[0]) if len(told) > 1 else None
            with guarded(f"{named(str(file))} cannot be read as Parquet", DataError), self._file(file) as opened:
                schema, row = opened.schema_arrow, 0
                image = self._column(schema, self.image_column, _IMAGE, "image_column", file)
                label = self._column(schema, self.label_column, _LABEL, "label_column", file)
                _check_kinds(schema, image, label, file)
                for batch in opened.iter_batches(_rows(opened.metadata, image), columns=[image, label]):
                    for content, value in zip(batch.column(image), batch.column(label), strict=True):
                        place = f"{file}, row {row}"
                        yield RawImage(place, _label(value.as_py(), place), split, _bytes(content, place))
                        row += 1

    def _file(self, file: DataFile) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(open_raw(file))

    def _column(self, schema: pa.Schema, given: str | None, usual: Sequence[str], key: str, file: DataFile) -> str:
        for name in usual if given is None else (given,):
            if name in schema.names:
                return name
        columns = short(safe(", ".join(schema.names)), 150)
        raise DataError(
            f"{named(str(file))} has no column {' or '.join(map(repr, usual if given is None else (given,)))}. Its "
            f"columns: {columns}. Name it with task.{key}."
        )


def _check_kinds(schema: pa.Schema, image: str, label: str, file: DataFile) -> None:
    """Refuse columns of other types than those that images and classes have."""
    import pyarrow.types as kinds

    def binary(kind: Any) -> bool:
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    kind = schema.field(image).type
    if kinds.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
    if kind is None or not binary(kind):
        raise DataError(
            f"{named(str(file))}: column {named(image)} holds no encoded images, which are bytes, or a structure with "
            f"bytes, but {short(safe(str(schema.field(image).type)), 80)}."
        )
    kind = schema.field(label).type
    if not (kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind)):
        raise DataError(
            f"{named(str(file))}: column {named(label)} holds {short(safe(str(kind)), 80)}; a class is a whole number "
            "or a text."
        )


def _rows(metadata: Any, column: str) -> int:
    """Rows to read at a time: one cell that a dictionary holds once may stand in all of them."""
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    sizes = [c.total_uncompressed_size for c in chunks if f"{c.path_in_schema}.".startswith(f"{column}.")]
    return max(1, min(_ROWS, _MOST_READ // max(1, *sizes, 1)))


def _bytes(content: pa.Scalar, place: str) -> bytes:
    """The bytes of an encoded image, of a cell that `_check_kinds` has passed."""
    import pyarrow as pa

    nested = isinstance(content, pa.StructScalar) and content.is_valid
    data = (content["bytes"] if nested else content).as_buffer() if nested or content.is_valid else None
    if data is None:
        raise DataError(f"{named(place)} has no image: files hold the bytes of their images, and no paths to them.")
    check_bytes(data.size, place)
    encoded: bytes = data.to_pybytes()
    return encoded


def _label(value: Any, place: str) -> str | int:
    if value is None or value == "" or (isinstance(value, int) and value < 0):
        raise DataError(f"{named(place)} has no class: its label is {'missing' if value in (None, '') else value}.")
    return value if isinstance(value, int) else str(value)
