"""Columns with several values a row: lists, text with a separator, and lists that are written as text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import Problems, as_values
from rankitect.data.ranking.schema import MultiHot
from rankitect.data.ranking.typed import is_list

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DEFAULT_SEPARATOR", "separators_in", "split_values", "wrong_separator"]

DEFAULT_SEPARATOR = "|"
_OTHERS = {",": 0.1, ";": 0.1, "\t": 0.1, "/": 0.5, " ": 0.5}
"""Other separators, and the share of the values that hold one from which on it is one: words have blanks as well."""
_RARE = 0.5
"""How often the default separator may be there for each value with another one alone: more often, it is the one."""
_SAMPLE = 4096  # values of a piece
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_BRACKETED = r"^\s*[\[({]|[\])}]\s*$"
_BRACKET = r"[\[\](){}]"
_KINDS = (
    *("List", "Set", "Array", "Vector", "Seq", "WrappedArray", "ArrayBuffer", "ListBuffer", "ArraySeq", "HashSet"),
    *("list", "tuple", "set", "frozenset", "deque", "array", "Index", "Series", "ImmutableList", "ImmutableSet"),
)
"""What Scala, Python, NumPy, pandas and Java write before a list."""
_PREFIX = re.compile(rf"(?:[A-Za-z_]\w*\.)*(?:{'|'.join(_KINDS)})\(".encode())
_PREFIXED = re.compile(_PREFIX.pattern + rb"(.*)\)", re.DOTALL)
_OPTIONS = re.compile(rb",\s*(?:dtype|maxlen|name)=[^\[\](){}\"]*\Z")
_TORN = re.compile(rb"[A-Za-z_][\w.]*\(\s*[\[({'\"]")
"""How any other word before a list begins: what it stands for is not known."""
_NOTHING = ("null", "None", "NULL", "nan", "NaN")
_WORDS = {"True": "true", "False": "false"}
_ITEM = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\.)*')|([^\s,'"\[\](){}]+))\s*(,|\Z)""")
_WANTED = """a list such as ["a", "b"] or ['a', 'b'], or values between separators (table.multi_hot.separator)"""


def split_values(values: pa.Array, column: MultiHot, problems: Problems) -> tuple[pa.Array, NDArray[np.int64]]:
    """A column with several values a row, apart.

    Text is a list as JSON or Python write it, with or without quotes; any other text is values between separators.
    Blanks around values do not belong to them, and empty values are none. What a text comes to does not depend on the
    rows beside it.

    Args:
        values: Lists, or single values.
        column: The column.
        problems: Takes the rows whose text is half a list, or a list of other things than values.

    Returns:
        The values of all rows one after the other, as binary, and where each row's start, [rows + 1].
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_list(values.type):
        values = as_values(values)
        if pc.any(pc.match_substring_regex(values, _BRACKET)).as_py():
            values = _with_lists(values, column, problems)
        else:
            values = pc.split_pattern(values, column.separator or DEFAULT_SEPARATOR)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = _trimmed(as_values(values.flatten()))
    empty = np.asarray(pc.fill_null(pc.equal(pc.binary_length(flat), 0), True))
    rows = np.repeat(np.arange(len(lengths)), lengths)[~empty]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lengths)))]).astype(np.int64)
    return flat.filter(pa.array(~empty)), offsets


def _trimmed(values: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring_regex(values, r"^\s|\s$")).as_py():
        return values
    return pc.replace_substring_regex(values, r"^\s+|\s+$", "")


def separators_in(values: pa.Array, column: MultiHot) -> dict[str, int] | None:
    """How many values of a sample that are no list hold the default separator, how many others hold each other
    character that may be one, and under "" how many there are.

    None where nothing is left open: a separator is given, or the values are no text by their type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.separator is not None or not pa.types.is_binary(values.type):
        return None
    step = -(-len(values) // _SAMPLE)
    some = values if step <= 1 else values.take(pa.array(np.arange(0, len(values), step)))
    given = some.drop_null()
    given = given.filter(pc.invert(pc.match_substring_regex(given, _BRACKETED)))
    holds = pc.match_substring(given, DEFAULT_SEPARATOR)
    counts = {"": len(given), DEFAULT_SEPARATOR: pc.sum(holds).as_py() or 0}
    left = _trimmed(given.filter(pc.invert(holds)))
    return counts | {mark: pc.sum(pc.match_substring(left, mark)).as_py() or 0 for mark in _OTHERS}


def wrong_separator(counts: Mapping[str, int]) -> str | None:
    """Another separator than the default that stands between the values of a table; None where there is none.

    The default one counts where it is in some values only as well, unless far more hold another one alone.

    Args:
        counts: As `separators_in` gives them, of all rows.
    """
    for other, share in _OTHERS.items():
        if counts[other] > share * counts[""] and counts[DEFAULT_SEPARATOR] < _RARE * counts[other]:
            return other
    return None


def _with_lists(values: pa.Array, column: MultiHot, problems: Problems) -> pa.Array:
    """Text, some of which is lists, as lists. Each different text is taken apart once."""
    import pyarrow as pa

    encoded = values.dictionary_encode()
    separator = (column.separator or DEFAULT_SEPARATOR).encode()
    apart = [_taken_apart(text, separator) for text in encoded.dictionary.to_pylist()]
    wrong = np.array([*(items is None for items in apart), False])
    places = encoded.indices.fill_null(len(apart)).to_numpy(zero_copy_only=False)
    problems.mark(wrong[places], column.name, values, "no list", _WANTED)
    lists = pa.array([*(items or [] for items in apart), None], pa.list_(pa.binary()))
    return lists.take(pa.array(places))


def _taken_apart(text: bytes, separator: bytes) -> list[bytes] | None:
    """The values in a text; None where it is neither a whole list nor values between separators."""
    stripped = text.strip()
    if (prefixed := _PREFIXED.fullmatch(stripped)) is not None:
        inside = _without_options(prefixed[1]).strip()
        whole = inside[:1] in (b"[", b"(", b"{") and inside[-1:] in (b"]", b")", b"}")
        items = _taken_apart(inside, separator) if whole else _items(inside, separator)
        if items is not None or separator not in text:
            return items
    closing = _BRACKETS.get(stripped[:1].decode("ascii", "replace"))
    if closing is not None and len(stripped) > 1 and stripped.endswith(closing.encode()):
        inside = stripped[1:-1]
        if closing != ")" or re.search(rb"[,'\"]", inside) or not inside.strip():
            items = _items(inside, separator)
            if items is not None or separator not in text:
                return items
    parts = text.split(separator)
    return None if any(_is_torn(part.strip()) for part in parts) else parts


def _without_options(inside: bytes) -> bytes:
    """What stands between the brackets of a list of NumPy or pandas, without its type and name at the end."""
    while (option := _OPTIONS.search(inside)) is not None:
        inside = inside[: option.start()]
    return inside


def _is_torn(part: bytes) -> bool:
    """Whether a value is a piece of a list: with a bracket and a quote, or with one of two brackets."""
    if part[:1] == b"[" or part[-1:] == b"]":
        torn = part.count(b"[") != part.count(b"]")
    else:
        torn = _PREFIX.match(part) is not None and part.count(b"(") != part.count(b")")
    quoted = part.startswith((b'["', b"['", b'{"', b"{'")) or part.endswith((b'"]', b"']", b'"}', b"'}"))
    return torn or quoted or _TORN.match(part) is not None


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
