"""Columns of any Arrow type as one of the few types that `columns.py` reads, or a refusal that names the type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Role", "is_list", "plain", "require"]

Role = Literal["number", "time", "value", "values"]
"""What a column is read as: numbers, times, one value a row, or several."""
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
_TEXTS = (
    "string",
    "large_string",
    "string_view",
    "binary",
    "large_binary",
    "fixed_size_binary",
    "binary_view",
)
"""Arrow's names for its kinds of lists, and for those of texts and bytes."""
_WANTED = {"number": "numbers", "time": "times, numbers or text", "value": "one value a row", "values": "values"}


def plain(values: pa.Array, column: str, file: str, missing: Sequence[str] = ()) -> pa.Array:
    """A column as text in bytes, numbers, times, or lists of these.

    Args:
        values: A column of any type.
        column: Its name, for messages.
        file: Its file, for messages.
        missing: Texts that stand for a missing value.

    Returns:
        An array of type binary, boolean, integer, floating-point, decimal, date, timestamp, time, duration, or list of
        one of them. Texts that stand for a missing value are null, as is what is not a number (NaN).

    Raises:
        DataError: The type holds several values of a kind that no role takes, such as a struct, or cannot be read.
    """
    import pyarrow as pa

    try:
        return _plain(values, missing)
    except (pa.ArrowException, _UnreadableType) as error:
        raise DataError(
            f"{file}, column {column!r} is of type {str(values.type)[:60]!r}, which cannot be read: numbers, text, "
            "times, and lists of these are. Leave the column out, or write its parts as columns of their own."
        ) from error


def require(values: pa.Array, role: Role, column: str, file: str) -> None:
    """Refuse a column, as `plain` gives it, whose type cannot be read as its role.

    Raises:
        DataError: Its type is another.
    """
    import pyarrow as pa

    is_kind, kind = pa.types, values.type
    if is_kind.is_duration(kind.value_type if is_list(kind) else kind):
        raise DataError(
            f"{file}, column {column!r}: {_WANTED[role]} expected, found the type {kind}. Write a duration as "
            "a number, such as its seconds."
        )
    if role == "values" or is_kind.is_binary(kind):
        return
    if role == "number":
        fits = is_kind.is_integer(kind) or is_kind.is_floating(kind) or is_kind.is_decimal(kind)
        fits |= is_kind.is_boolean(kind)
    elif role == "time":
        fits = is_kind.is_integer(kind) or is_kind.is_floating(kind) or is_kind.is_decimal(kind)
        fits |= is_kind.is_timestamp(kind) or is_kind.is_date(kind)
    else:
        fits = not is_list(kind)
    if not fits:
        hint = " (columns of lists are table.multi_hot)" if is_list(kind) else ""
        raise DataError(f"{file}, column {column!r}: {_WANTED[role]} expected, found the type {kind}{hint}.")


def is_list(kind: pa.DataType) -> bool:
    """True for the lists that `plain` gives."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind))


class _UnreadableType(Exception):
    """A type that no role takes."""


def _plain(values: pa.Array, missing: Sequence[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _unwrapped(values)
    kind = values.type
    if _any_list(kind):
        flat = kind.value_type
        if pa.types.is_nested(flat):
            raise _UnreadableType
        lists = pc.cast(values, pa.list_(flat))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        # Elements are taken as they are: that a text stands for a missing value is said of whole values.
        return pa.ListArray.from_arrays(pa.array(offsets), _plain(lists.flatten(), ()), mask=lists.is_null())
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        raise _UnreadableType
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.binary())
    if _is_text(kind):
        text = values if pa.types.is_binary(kind) else pc.cast(values, pa.binary())
        if not missing:
            return text
        gone = pc.is_in(text, value_set=pa.array([word.encode() for word in missing], pa.binary()))
        return pc.if_else(gone, pa.scalar(None, pa.binary()), text)
    if pa.types.is_float16(kind):
        values = pc.cast(values, pa.float32())
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values


def _unwrapped(values: pa.Array) -> pa.Array:
    """The values themselves of dictionaries, of runs, and of types that an extension names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(values.type):
            values = pc.run_end_decode(values)
        else:
            return values


def _any_list(kind: pa.DataType) -> bool:
    return _is_any(kind, _LISTS)


def _is_text(kind: pa.DataType) -> bool:
    return _is_any(kind, _TEXTS)


def _is_any(kind: pa.DataType, names: Sequence[str]) -> bool:
    import pyarrow as pa

    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)
