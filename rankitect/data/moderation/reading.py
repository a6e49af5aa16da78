"""Exchanges from files of a user's own: JSON lines or CSV, one exchange a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankitect.data.moderation.exchanges import Exchange, told
from rankitect.data.storage import DataFile, list_files
from rankitect.data.streams import PACKED, unpacked_name
from rankitect.data.text_files import utf8_lines
from rankitect.documents import parse_json
from rankitect.errors import DataError, closest, safe, short

__all__ = ["COLUMNS", "Reading", "read_exchanges"]

COLUMNS = ("prompt", "response", "label", "category", "source")
_NEEDED = ("prompt", "label")
_LINES, _TABLE = (".jsonl", ".ndjson"), (".csv",)
_ENDINGS = tuple(f"{name}{packed}" for name in (*_LINES, *_TABLE) for packed in ("", *PACKED))
_LONGEST = 1_000_000
"""Characters of one text."""
_WORDS: Mapping[str, bool] = {"unsafe": True, "true": True, "safe": False, "false": False}


@dataclass(frozen=True)
class Reading:
    """How a user's files are read.

    Attributes:
        columns: What the files call a column of `COLUMNS`, where that is another name.
        ignore: Other columns that files may have.
        unsafe_from: Labels between 0 and 1 (scores of annotators) count as unsafe from here on.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    unsafe_from: float = 0.5

    def named(self, column: str) -> str:
        """What the files call a column."""
        return self.columns.get(column, column)


def read_exchanges(path: str, key: str, reading: Reading | None = None) -> list[Exchange]:
    """The exchanges of a file, or of all files of a folder or glob.

    Args:
        path: Of JSON lines or CSV, packed or not; a file, folder, glob or URI.
        key: The key of the configuration that has the path, for messages.
        reading: How columns are called.

    Raises:
        DataError: There is none, or a row is unusable: names file, row and column.
    """
    how = reading or Reading()
    files = [listed.file for listed in list_files(path, _ENDINGS, key)]
    exchanges = [one for file in files for one in _exchanges(file, how)]
    if not exchanges:
        raise DataError(f"{key}={short(safe(path), 120)} has no exchanges: a row has {', '.join(COLUMNS)}.")
    return exchanges


def _exchanges(file: DataFile, how: Reading) -> Iterator[Exchange]:
    name = unpacked_name(file.name)
    if name.lower().endswith(_TABLE):
        rows = _table(file)
    elif name.lower().endswith(_LINES):
        rows = _lines(file)
    else:
        raise DataError(f"{short(safe(str(file)), 160)}: exchanges are read from {', '.join((*_LINES, *_TABLE))}.")
    stem = short(safe(name.rpartition(".")[0] or name), 60)
    for place, values in rows:
        _check_columns(values, how, place)
        yield _exchange(values, how, place, stem)


def _lines(file: DataFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row, line in utf8_lines(file):
        if line.strip():
            place = f"{short(safe(str(file)), 120)}, row {row}"
            yield place, parse_json(line, dict[str, Any], place, DataError)


def _table(file: DataFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    called = short(safe(str(file)), 120)
    lines = csv.reader((line for _, line in utf8_lines(file)), strict=True)
    header: list[str] | None = None
    try:
        for values in lines:
            place = f"{called}, line {lines.line_num}"
            if header is None:
                header = values
                if len(set(header)) < len(header):
                    twice = next(name for name in header if header.count(name) > 1)
                    raise DataError(f"{called} names column {told(twice)} twice.")
            elif values:
                if len(values) != len(header):
                    raise DataError(f"{place} has {len(values)} values, and {len(header)} columns are named.")
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(f"{called}, line {lines.line_num}: no CSV ({short(safe(str(error)), 100)}).") from error


def _check_columns(values: Mapping[str, Any], how: Reading, place: str) -> None:
    known = {how.named(column): column for column in COLUMNS}
    for column in (*_NEEDED, *how.columns):
        if how.named(column) not in values and (column in _NEEDED or column in how.columns):
            guess = closest(how.named(column), [str(name) for name in values])
            raise DataError(
                f"{place} has no column {told(how.named(column))} ({column})."
                f"{f' Did you mean {told(guess)}?' if guess else ''} Say what it is called: task.columns.{column}=…"
            )
    unknown = [name for name in values if name not in known and name not in how.ignore]
    if unknown:
        raise DataError(
            f"{place} has a column {told(unknown[0])} that is not known. Known are {', '.join(sorted(known))}; say "
            "what a column is in task.columns, or list it in task.ignore."
        )


def _exchange(values: Mapping[str, Any], how: Reading, place: str, stem: str) -> Exchange:
    text = {
        column: _text(values.get(how.named(column)), f"{place}, column '{column}'")
        for column in COLUMNS
        if column != "label"
    }
    if not text["prompt"].strip() and not text["response"].strip():
        raise DataError(f"{place} has neither a prompt nor a response: there is nothing to judge.")
    unsafe = _label(values[how.named("label")], how.unsafe_from, place)
    source = short(safe(text["source"]), 60) or stem
    return Exchange(place, text["prompt"], text["response"], unsafe, short(safe(text["category"]), 60), source)


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where} is {told(str(value))}: a text is wanted.")
    if len(value) > _LONGEST:
        raise DataError(f"{where} has {len(value):,} characters, of which at most {_LONGEST:,} are read.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, character {error.start + 1}: half of a surrogate pair, which is not text."
        ) from error
    return value


def _label(value: object, unsafe_from: float, place: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise DataError(
            f"{place}, column 'label' is {told(value if isinstance(value, str) else str(value))}; allowed are 0, 1, "
            f"true, false, safe, unsafe, and numbers from 0 to 1, which are unsafe from {unsafe_from:g} on."
        )
    return number >= unsafe_from


def _number(value: object) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        return float(value)
    except ValueError:
        return None
