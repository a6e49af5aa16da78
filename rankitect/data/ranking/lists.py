"""Columns with several values a row: lists, text with a separator, and lists that are written as text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rankitect.data.ranking.columns import Codes, Problems, as_values, codes_of
from rankitect.data.ranking.schema import MultiHot
from rankitect.data.ranking.typed import is_list
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["split_codes"]

_DEFAULT = "|"
_OTHERS = (",", ";")
"""Separators that are tried where the default one is in no value."""
_SUSPICIOUS = 0.1
"""Share of the values with another separator from which on it is one."""
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_BRACKETED = r"^\s*[\[({]|[\])}]\s*$"
_NOTHING = ("null", "None", "NULL", "nan", "NaN")
_WORDS = {"True": "true", "False": "false"}
_ITEM = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\.)*')|([^\s,'"\[\](){}]+))\s*(,|\Z)""")
_WANTED = """a list such as ["a", "b"] or ['a', 'b'], or values between separators (table.multi_hot.separator)"""


def split_codes(values: pa.Array, column: MultiHot, problems: Problems) -> Codes:
    """A column with several values a row.

    Text is a list as JSON or Python write it, with or without quotes; any other text is values between separators.
    Blanks around values do not belong to them, and empty values are none.

    Args:
        values: Lists, or single values.
        column: The column.
        problems: Takes the rows whose text is half a list, or a list of other things than values.

    Raises:
        DataError: No separator is given, and the values have another one than the default.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_list(values.type):
        values = as_values(values)
        bracketed = pc.match_substring_regex(values, _BRACKETED)
        _check_separator(values.filter(pc.invert(bracketed)), column, problems)
        if pc.any(bracketed).as_py():
            values = _with_lists(values, column, problems)
        else:
            values = pc.split_pattern(values, column.separator or _DEFAULT)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = _trimmed(as_values(values.flatten()))
    empty = np.asarray(pc.fill_null(pc.equal(pc.binary_length(flat), 0), True))
    rows = np.repeat(np.arange(len(lengths)), lengths)[~empty]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lengths)))]).astype(np.int64)
    return codes_of(flat.filter(pa.array(~empty)), offsets)


def _trimmed(values: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring_regex(values, r"^\s|\s$")).as_py():
        return values
    return pc.replace_substring_regex(values, r"^\s+|\s+$", "")


def _check_separator(values: pa.Array, column: MultiHot, problems: Problems) -> None:
    """Refuse values without the default separator, most of which have the same other one."""
    import pyarrow.compute as pc

    if column.separator is not None or pc.any(pc.match_substring(values, _DEFAULT)).as_py():
        return
    known = len(values) - values.null_count
    for other in _OTHERS:
        having = pc.sum(pc.match_substring(values, other)).as_py() or 0
        if having > _SUSPICIOUS * known:
            raise DataError(
                f"{problems.file}, column {column.name!r}: no value holds the separator {_DEFAULT!r}, but {having:,} "
                f"of {known:,} hold {other!r}. Say what is between values: separator: {other!r} in table.multi_hot."
            )


def _with_lists(values: pa.Array, column: MultiHot, problems: Problems) -> pa.Array:
    """Text, some of which is lists, as lists. Each different text is taken apart once."""
    import pyarrow as pa

    encoded = values.dictionary_encode()
    separator = (column.separator or _DEFAULT).encode()
    apart = [_taken_apart(text, separator) for text in encoded.dictionary.to_pylist()]
    wrong = np.array([*(items is None for items in apart), False])
    places = encoded.indices.fill_null(len(apart)).to_numpy(zero_copy_only=False)
    problems.mark(wrong[places], column.name, values, "no list", _WANTED)
    lists = pa.array([*(items or [] for items in apart), None], pa.list_(pa.binary()))
    return lists.take(pa.array(places))


def _taken_apart(text: bytes, separator: bytes) -> list[bytes] | None:
    """The values in a text; None where it is neither a whole list nor values between separators."""
    stripped = text.strip()
    closing = _BRACKETS.get(stripped[:1].decode("ascii", "replace"))
    if closing is not None and len(stripped) > 1 and stripped.endswith(closing.encode()):
        inside = stripped[1:-1]
        if closing != ")" or re.search(rb"[,'\"]", inside) or not inside.strip():
            items = _items(inside, separator)
            if items is not None or separator not in text:
                return items
    parts = text.split(separator)
    return None if any(_is_torn(part.strip()) for part in parts) else parts


def _is_torn(part: bytes) -> bool:
    """Whether a value is a piece of a list: with a bracket and a quote, or with one of two brackets."""
    torn = (part[:1] == b"[") != (part[-1:] == b"]") and part.count(b"[") != part.count(b"]")
    return torn or part.startswith((b'["', b"['", b'{"', b"{'")) or part.endswith((b'"]', b"']", b'"}', b"'}"))


def _items(inside: bytes, separator: bytes) -> list[bytes] | None:
    """What stands between the brackets of a list; None where it is no list of single values."""
    try:
        return [item.encode() for item in _each(inside.decode(), separator.decode())]
    except (ValueError, SyntaxError, RecursionError):  # UnicodeError is a ValueError
        return None


def _each(inside: str, separator: str) -> Iterator[str]:
    place = 0
    while place < len(inside):
        item = _ITEM.match(inside, place)
        if item is None:
            if inside[place:].strip():
                raise ValueError(inside)
            return
        double, single, bare, _ = item.groups()
        place = item.end()
        if bare is None:
            yield _unquoted(double or single)
        elif separator in bare:
            raise ValueError(inside)
        elif bare not in _NOTHING:
            yield _WORDS.get(bare) or re.sub(r"^(-?\d+)\.0*$", r"\1", bare)


def _unquoted(text: str) -> str:
    """A quoted text of JSON or Python without its quotes."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return str(ast.literal_eval(text))
