"""Raw shards: pieces of a source as numbers on disk, before it is known which row trains and which value is rare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.files import write_atomically
from rankitect.data.ranking.assumptions import shown_by
from rankitect.data.ranking.columns import Codes, Problems, as_index, as_numbers, as_values, codes_of
from rankitect.data.ranking.features import FIRST_ID
from rankitect.data.ranking.keys import Keys
from rankitect.data.ranking.labels import as_labels
from rankitect.data.ranking.lists import split_values
from rankitect.data.ranking.schema import Categorical, DataSettings, MultiHot, Score, TableSchema
from rankitect.data.ranking.sources import BadRow, Piece
from rankitect.data.ranking.times import as_times
from rankitect.data.ranking.typed import Role, plain, require
from rankitect.data.tensors import described, opened_tensors
from rankitect.errors import AssetError, DataError, brief

__all__ = ["CALENDAR", "RawShard", "build", "read_features", "typed_columns"]

CALENDAR = {"hour": 24, "weekday": 7}  # values of each calendar feature
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_OPTIONAL = ("times", "groups", "weights", "truth", "scores")
_HOUR = 3_600_000_000  # microseconds


@dataclass(frozen=True)
class RawShard:
    """Good rows of one piece.

    Attributes:
        numeric: After each feature's transform but not normalised, NaN where missing, [N, rows] float64: before its
            mean is taken off, a number may need more digits than float32 has.
        codes: Codes of each categorical feature, in the schema's order: categorical, multi-hot, calendar.
        labels: 0 and 1, [rows] uint8; probabilities, float32, where the schema says so.
        times: Microseconds, [rows] int64; None without timestamps.
        groups: Keys, 0 where missing, [rows] uint64; None without a group column.
        weights: [rows] float32; None without.
        truth: Probability of label 1, [rows] float32; of generated data only.
        scores: What production answered, [rows] float32; None without such a column.
        facts: `bad` rows by kind; the `file`; the `lines` of the first and the last row there; what its values have
            `shown` of what is assumed; the `largest` numbers by size, [N]; the first and the last of the `times`, and
            the line of the first that is `backward`, or None.
    """

    numeric: NDArray[np.float64]
    codes: Sequence[Codes]
    labels: NDArray[Any]
    times: NDArray[np.int64] | None
    groups: Keys | None
    weights: NDArray[np.float32] | None
    truth: NDArray[np.float32] | None
    facts: Mapping[str, Any]
    scores: NDArray[np.float32] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def keep(self, rows: NDArray[np.bool_], **facts: Any) -> RawShard:
        """Only some rows, with these facts in the place of others."""
        optional = {name: None if (x := getattr(self, name)) is None else x[rows] for name in _OPTIONAL}
        codes = [column.keep(rows) for column in self.codes]
        numeric, labels = self.numeric[:, rows], self.labels[rows]
        kept = {**self.facts, "largest": _largest(numeric), "times": _ends(optional["times"]), **facts}
        return RawShard(numeric=numeric, codes=codes, labels=labels, facts=kept, **optional)

    def save(self, path: Path) -> None:
        """Writes it as one safetensors file, whole or not at all."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {"numeric": self.numeric, "labels": self.labels}
        for place, codes in enumerate(self.codes):
            arrays[f"codes{place}"], arrays[f"keys{place}"] = codes.codes, codes.keys
            if codes.offsets is not None:
                arrays[f"offsets{place}"] = codes.offsets
        for name in _OPTIONAL:
            if (values := getattr(self, name)) is not None:
                arrays[name] = values
        texts = [codes.texts for codes in self.codes]
        facts = {"facts": json.dumps({**self.facts, "features": len(self.codes), "rows": self.rows, "texts": texts})}
        whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        write_atomically(path, lambda part: save_file(whole, part, facts))

    @classmethod
    def load(cls, path: Path) -> RawShard:
        """Reads it back."""
        with opened_tensors(path, "numpy", _damaged(path)) as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            facts = described(file, "facts")
        codes = [
            Codes(arrays[f"codes{i}"], arrays[f"keys{i}"], arrays.get(f"offsets{i}"), None if t is None else tuple(t))
            for i, t in enumerate(facts["texts"])
        ]
        optional = {name: arrays.get(name) for name in _OPTIONAL}
        return cls(numeric=arrays["numeric"], codes=codes, labels=arrays["labels"], facts=facts, **optional)

    @staticmethod
    def field(path: Path, name: str) -> NDArray[Any]:
        """One of its arrays."""
        with opened_tensors(path, "numpy", _damaged(path)) as file:
            tensor: NDArray[Any] = file.get_tensor(name)
            return tensor

    @staticmethod
    def outline(path: Path) -> dict[str, Any] | None:
        """Facts and `rows` of a saved shard; None if it is not there whole."""
        try:
            with opened_tensors(path, "numpy", _damaged(path)) as file:
                return described(file, "facts")
        except AssetError:
            return None


def _damaged(path: Path) -> str:
    return f"{brief(path)} of the cache is damaged. Delete it, and repeat the command"


def build(piece: Piece, schema: TableSchema, settings: DataSettings) -> RawShard:
    """The piece's rows as numbers.

    Raises:
        DataError: At its first bad row, unless bad rows are skipped.
    """
    n = len(piece.lines)
    problems = Problems(n, piece.file)
    columns = typed_columns(piece.columns, schema, piece.file)
    assert schema.label is not None
    labels = as_labels(columns[schema.label.name], schema.label, problems)
    numeric, codes, times = read_features(columns, schema, problems)
    groups: Any = None
    weights: Any = None
    truth: Any = piece.truth
    if schema.group is not None:
        single = codes_of(as_values(columns[schema.group]), None)
        groups = np.concatenate([np.zeros(1, np.uint64), single.keys])[single.codes]
    if schema.weight is not None:
        weights = _weights(columns[schema.weight], schema.weight, problems)
    scores: Any = None if schema.score is None else _scores(columns[schema.score.name], schema.score, problems)
    facts: dict[str, Any] = {"bad": _judge(piece, problems, settings), "file": piece.file, "backward": None}
    facts |= {"largest": _largest(numeric), "times": _ends(times)}
    shard, lines = RawShard(numeric, codes, labels, times, groups, weights, truth, facts, scores), piece.lines
    if problems.bad.any():
        good = ~problems.bad
        shard, lines = shard.keep(good), lines[good]
    more: dict[str, Any] = {"shown": shown_by(_good(columns, problems), schema, shard.numeric)}
    if not len(lines):
        return replace(shard, facts={**shard.facts, **more})
    more["lines"] = [int(lines[0]), int(lines[-1])]
    if shard.times is not None and len(back := np.flatnonzero(np.diff(shard.times) < 0)):
        more["backward"] = int(lines[back[0] + 1])
    return replace(shard, facts={**shard.facts, **more})


def _good(columns: Mapping[str, Any], problems: Problems) -> Mapping[str, Any]:
    """The columns without bad rows."""
    if not problems.bad.any():
        return columns
    import pyarrow as pa

    good = pa.array(~problems.bad)
    return {name: values.filter(good) for name, values in columns.items()}


def _ends(times: NDArray[np.int64] | None) -> list[int] | None:
    return None if times is None or not len(times) else [int(times[0]), int(times[-1])]


def _largest(numeric: NDArray[np.float64]) -> list[float]:
    """The largest size of the numbers of each row of `numeric`; 0 where all are missing."""
    least, most = (f.reduce(numeric, axis=1, initial=0.0) for f in (np.fmin, np.fmax))
    sizes: list[float] = np.maximum(-least, most).tolist()
    return sizes


def _scores(values: Any, score: Score, problems: Problems) -> NDArray[np.float32]:
    """What production answered for each row; a row without is bad."""
    read = as_numbers(values, score.name, problems, missing=False)
    if score.kind == "probability":
        problems.mark((read < 0) | (read > 1), score.name, values, "no probability", "a probability from 0 to 1")
    return read.astype(np.float32)


def typed_columns(given: Mapping[str, Any], schema: TableSchema, file: str) -> dict[str, Any]:
    """The columns that a schema names, each of a type that its role allows.

    Args:
        given: Arrow columns by name.
        schema: What they are for.
        file: Where they are from, for messages.

    Raises:
        DataError: A column is of another type.
    """
    roles: list[tuple[str, Role]] = [] if schema.label is None else [(schema.label.name, "number")]
    roles += [(column.source, "number") for column in schema.numeric]
    roles += [(column.source, "value") for column in schema.categorical]
    roles += [(column.source, "values") for column in schema.multi_hot]
    roles += [] if schema.timestamp is None else [(schema.timestamp.name, "time")]
    roles += [] if schema.group is None else [(schema.group, "value")]
    roles += [] if schema.weight is None else [(schema.weight, "number")]
    roles += [] if schema.score is None else [(schema.score.name, "number")]
    columns = {name: plain(given[name], name, file) for name, _ in roles}
    for name, role in roles:
        require(columns[name], role, name, file)
    return columns


def _weights(values: Any, column: str, problems: Problems) -> NDArray[np.float32]:
    read = as_numbers(values, column, problems, missing=False)
    problems.mark(read < 0, column, values, "negative weight", "a weight of at least 0")
    weights = np.where(problems.bad, 0, read).astype(np.float32)
    lost = (weights == 0) & (read > 0) & ~problems.bad
    problems.mark(lost, column, values, "too small", "a weight that float32 holds (1e-45 at least, or 0)")
    return weights


def read_features(
    columns: Mapping[str, Any], schema: TableSchema, problems: Problems
) -> tuple[NDArray[np.float64], list[Codes], Any]:
    """What a model is given of rows, before it is normalised: the same for training rows and for new ones.

    Args:
        columns: Arrow columns by name.
        schema: What the columns are for.
        problems: Takes the rows that cannot be used.

    Returns:
        `RawShard.numeric`, `RawShard.codes` and `RawShard.times`.
    """
    numeric = np.empty((len(schema.numeric), problems.rows), dtype=np.float64)
    for place, number in enumerate(schema.numeric):
        numeric[place] = as_numbers(columns[number.source], number.name, problems)
        if number.transform == "log":
            numeric[place] = np.copysign(np.log1p(np.abs(numeric[place])), numeric[place])
    codes = [_encoded(columns[column.source], column, problems) for column in (*schema.categorical, *schema.multi_hot)]
    if schema.timestamp is None:
        return numeric, codes, None
    times = as_times(columns[schema.timestamp.name], schema.timestamp, problems)
    return numeric, codes + [_calendar(times, name) for name in schema.calendar], times


def _encoded(values: Any, column: Categorical, problems: Problems) -> Codes:
    offsets: NDArray[np.int64] | None = None
    if isinstance(column, MultiHot):
        flat, offsets = split_values(values, column, problems)
    else:
        flat = as_values(values)
    codes = codes_of(flat, offsets)
    if column.encoding != "index":
        return codes
    assert column.rows is not None
    return as_index(codes, flat, column.rows - FIRST_ID, column.name, values, problems)


def _calendar(times: NDArray[np.int64], name: str) -> Codes:
    hours = times // _HOUR
    values = hours % 24 if name == "hour" else (hours // 24 + 3) % 7  # 1970 began on a Thursday; Monday is 0
    texts = tuple(str(value) for value in range(CALENDAR[name])) if name == "hour" else WEEKDAYS
    return Codes((values + 1).astype(np.uint16), np.arange(CALENDAR[name], dtype=np.uint64), None, texts)


def _judge(piece: Piece, problems: Problems, settings: DataSettings) -> dict[str, int]:
    """Counts bad rows by kind; the first one is an error where they are not to be skipped."""
    bad = [
        *piece.bad,
        *(BadRow(int(piece.lines[row]), *trouble) for row, trouble in problems.troubles.items()),
    ]
    if bad and settings.bad_rows == "error":
        first = min(bad, key=lambda row: row.line)
        where = f", column {first.column!r}" if first.column else ""
        raise DataError(
            f"{piece.file}, row {first.line}{where}: found {first.trouble}. Mend the file, or let bad rows be left out "
            "and counted: task.data.bad_rows=skip."
        )
    return dict(Counter(row.kind for row in bad))
