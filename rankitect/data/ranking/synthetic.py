"""A generated click log with a known best model: for tests of scale and of methods, never for results.

A planted teacher gives each row its probability: weights and low-rank factors of every value (a factorization machine,
Rendle 2010), and a wave of every number. Values are Zipf-distributed. From day to day the teacher turns, as tastes do.
Rows are made piece by piece, each from its own seed, so any number of rows takes the memory of one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rankitect.data.files import write_atomically
from rankitect.data.ranking.formats import AVAZU
from rankitect.data.ranking.schema import Categorical, Label, Numeric, SyntheticSettings, TableSchema, Timestamp
from rankitect.data.ranking.sources import Piece
from rankitect.documents import as_kind
from rankitect.terminal import Parser, answered, ended

__all__ = ["SyntheticRows", "SyntheticSource", "main", "write_avazu", "write_criteo"]

_ROWS = 1 << 16  # of a piece; part of what the rows are
_RANK = 4  # of the teacher's factors
_DAY = 86_400
_START = 1_700_006_400  # a midnight
_TRIED = 1 << 15  # rows that the teacher's scale and bias are found on


@dataclass(frozen=True, eq=False)
class SyntheticRows:
    """Generated rows.

    Attributes:
        numeric: Numbers of at least 0, some of them missing (NaN), [rows, N] float32.
        ids: Values of each categorical feature, from 0 on, the most frequent first, [rows, F] int64.
        seconds: Since 1970, ascending, [rows] int64.
        truth: Probability of a click, [rows] float32.
        labels: Drawn with it, [rows] uint8.
    """

    numeric: NDArray[np.float32]
    ids: NDArray[np.int64]
    seconds: NDArray[np.int64]
    truth: NDArray[np.float32]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class SyntheticSource:
    """The generator as a source.

    Attributes:
        settings: Sizes, shapes and the seed.
    """

    settings: SyntheticSettings

    @property
    def name(self) -> str:
        """Name for reports."""
        return "synthetic"

    @property
    def files(self) -> Sequence[Path]:
        """No files: the settings decide the rows."""
        return ()

    @property
    def schema(self) -> TableSchema:
        """Numbers I1…, values C1… with a row of their own each, and a timestamp."""
        return TableSchema(
            label=Label(name="label"),
            numeric=tuple(Numeric(name=f"I{i + 1}", transform="log") for i in range(self.settings.numeric)),
            categorical=tuple(
                Categorical(name=f"C{i + 1}", encoding="index", rows=int(size) + 2)
                for i, size in enumerate(self.vocabularies)
            ),
            timestamp=Timestamp(name="time"),
        )

    @property
    def vocabularies(self) -> NDArray[np.int64]:
        """Different values of each categorical feature: from the smallest to the largest, evenly in the logarithm."""
        s = self.settings
        sizes: NDArray[np.int64] = np.geomspace(min(s.smallest, s.ids), s.ids, s.categorical).round().astype(np.int64)
        return sizes

    def rows(self) -> Iterator[SyntheticRows]:
        """All rows, in pieces."""
        for number in range(-(-self.settings.rows // _ROWS)):
            yield self.piece(number)

    def piece(self, number: int) -> SyntheticRows:
        """One piece of the rows: a function of the settings and its number."""
        s = self.settings
        count = min(_ROWS, s.rows - number * _ROWS)
        rng = np.random.default_rng([s.seed, 1, number])
        numeric, ids = self._inputs(rng, count)
        share = (number * _ROWS + np.arange(count)) / s.rows
        logit = self._logit(numeric, ids, share * s.days)
        scale, bias = self._level
        truth = (1 / (1 + np.exp(-(scale * logit + bias)))).astype(np.float32)
        labels = (rng.random(count) < truth).astype(np.uint8)
        return SyntheticRows(numeric, ids, _START + (share * s.days * _DAY).astype(np.int64), truth, labels)

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        for number in range(-(-self.settings.rows // _ROWS)):
            yield lambda number=number: self._as_piece(number)  # type: ignore[misc]

    def _as_piece(self, number: int) -> Piece:
        import pyarrow as pa

        rows = self.piece(number)
        columns = {f"I{i + 1}": pa.array(values, from_pandas=True) for i, values in enumerate(rows.numeric.T)}
        columns |= {f"C{i + 1}": pa.array(values) for i, values in enumerate(rows.ids.T)}
        columns |= {"label": pa.array(rows.labels), "time": pa.array(rows.seconds)}
        first = number * _ROWS + 1
        return Piece(columns, "synthetic", np.arange(first, first + len(rows.labels)), truth=rows.truth)

    def _inputs(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        s = self.settings
        numeric = np.floor(np.expm1(rng.gamma(2.0, 1.0, (count, s.numeric)))).astype(np.float32)
        numeric[rng.random(numeric.shape) < 0.1] = np.nan
        ids = np.empty((count, s.categorical), dtype=np.int64)
        for place, size in enumerate(self.vocabularies):
            ids[:, place] = _zipf(rng.random(count), int(size), s.zipf)
        return numeric, ids

    @cached_property
    def _teacher(self) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
        """Weight and factors of each value at the two moments between which the teacher turns; each number's wave."""
        rng = np.random.default_rng([self.settings.seed, 0])
        tables = [rng.standard_normal((size, 2, 1 + _RANK), dtype=np.float32) for size in self.vocabularies]
        return tables, rng.uniform(0.5, 2.0, (2, self.settings.numeric))

    @cached_property
    def _level(self) -> tuple[float, float]:
        """Scale and bias of the logit, so that its deviation and the share of clicks are as asked for."""
        s = self.settings
        numeric, ids = self._inputs(np.random.default_rng([s.seed, 2]), _TRIED)
        logit = self._logit(numeric, ids, np.linspace(0, s.days, _TRIED))
        logit = logit * (scale := s.signal / max(float(logit.std()), 1e-9))
        low, high = -30.0, 30.0
        for _ in range(60):
            middle = (low + high) / 2
            below = float(np.mean(1 / (1 + np.exp(-(logit + middle))))) < s.base_rate
            low, high = (middle, high) if below else (low, middle)
        return scale, low

    def _logit(
        self, numeric: NDArray[np.float32], ids: NDArray[np.int64], days: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        tables, waves = self._teacher
        angle = (self.settings.drift * np.floor(days)).astype(np.float32)
        turn = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, :, None]
        total = np.zeros((len(ids), 1 + _RANK), dtype=np.float32)
        squares = np.zeros((len(ids), _RANK), dtype=np.float32)
        for place, table in enumerate(tables):
            factors = (table[ids[:, place]] * turn).sum(axis=1)
            total += factors
            squares += factors[:, 1:] ** 2
        fields = max(len(tables), 1)
        pairs = 0.5 * (total[:, 1:] ** 2 - squares).sum(axis=1) / max(fields, 1)
        logit = total[:, 0].astype(np.float64) / np.sqrt(fields) + pairs / np.sqrt(_RANK)
        if numeric.shape[1]:
            known = np.nan_to_num(np.log1p(numeric))
            logit += (np.sin(known * waves[0]) * waves[1]).sum(axis=1) / np.sqrt(numeric.shape[1])
        return logit


def write_criteo(settings: SyntheticSettings, file: BinaryIO) -> None:
    """Writes generated rows as Criteo's tab-separated text: 13 numbers and 26 values of eight hexadecimal digits."""
    import pyarrow as pa
    from pyarrow import csv

    source = SyntheticSource(settings.model_copy(update={"numeric": 13, "categorical": 26}))
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    for rows in source.rows():
        columns: dict[str, Any] = {"label": pa.array(rows.labels)}
        for i, values in enumerate(rows.numeric.T):
            columns[f"I{i + 1}"] = pa.array(values, from_pandas=True).cast(pa.int64())
        columns |= {f"C{i + 1}": _hexadecimal(ids, i) for i, ids in enumerate(rows.ids.T)}
        csv.write_csv(pa.table(columns), file, options)


def write_avazu(settings: SyntheticSettings, file: BinaryIO) -> None:
    """Writes generated rows as Avazu's CSV: id, click, hour and 21 values."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    names = [column.name for column in AVAZU.categorical]
    source = SyntheticSource(settings.model_copy(update={"numeric": 0, "categorical": len(names)}))
    first = 0
    for rows in source.rows():
        hours = pc.strftime(pa.array(rows.seconds).cast(pa.timestamp("s")), format="%y%m%d%H")
        columns: dict[str, Any] = {
            "id": pa.array(np.arange(first, first + len(hours))),
            "click": pa.array(rows.labels),
            "hour": hours,
        }
        columns |= {name: _hexadecimal(ids, i) for i, (name, ids) in enumerate(zip(names, rows.ids.T, strict=True))}
        csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=first == 0, quoting_style="none"))
        first += len(hours)


def _hexadecimal(ids: NDArray[np.int64], feature: int) -> Any:
    """Eight hexadecimal digits for each id, one to one and without order, as hashes are; an Arrow string array."""
    import pyarrow as pa

    hashed = (ids.astype(np.uint64) * np.uint64(2_654_435_761) + np.uint64(feature * 97)) & np.uint64(0xFFFFFFFF)
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[
        (hashed.astype(np.uint32)[:, None] >> shifts) & np.uint32(15)
    ]
    offsets = np.arange(0, 8 * len(ids) + 1, 8, dtype=np.int32)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits)))


def _zipf(chance: NDArray[np.float64], size: int, exponent: float) -> NDArray[np.int64]:
    """Ranks from 0 on with frequencies near (1 + rank)^-exponent: the inverse of the continuous distribution."""
    if abs(exponent - 1) < 1e-6:
        ranks = np.exp(chance * np.log(size + 1.0))
    else:
        power = 1 - exponent
        ranks = (chance * ((size + 1.0) ** power - 1) + 1) ** (1 / power)
    return np.minimum(ranks.astype(np.int64) - 1, size - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a generated log from the command line.

    Returns:
        0; 2 if the file cannot be written or a size is not allowed, 3 for a full disk.
    """
    parser = Parser(
        prog="python -m rankitect.data.ranking.synthetic", description="Write a generated click log, to try things on."
    )
    parser.add_argument("file", type=Path, help="what to write")
    parser.add_argument("--layout", choices=("criteo", "avazu"), default="criteo", help="columns of the file")
    parser.add_argument("--rows", type=int, default=20_000, help="default 20000")
    parser.add_argument("--ids", type=int, default=1000, help="values of the largest feature, default 1000")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    def act() -> int:
        settings = as_kind({"rows": args.rows, "ids": args.ids, "seed": args.seed}, SyntheticSettings, "The log")
        write = {"criteo": write_criteo, "avazu": write_avazu}[args.layout]
        write_atomically(args.file, lambda part: _to(part, settings, write))
        return 0

    return answered(act)


def _to(path: Path, settings: SyntheticSettings, write: Callable[[SyntheticSettings, BinaryIO], None]) -> None:
    with path.open("wb") as file:
        write(settings, file)


if __name__ == "__main__":
    raise SystemExit(ended(main))
