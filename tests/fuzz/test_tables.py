"""Fuzzers of tables: delimited text, and Parquet."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import ValidationError

from rankitect.data.ranking import DataSettings, RankingData, open_ranking
from rankitect.errors import ConfigError
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

NAMES = ("y", "x", "u", "m", "t")
TABLE = {"label": "y", "numeric": ["x"], "categorical": ["u"], "multi_hot": ["m"], "timestamp": "t", "group": "u"}
START = 1_700_000_000
_PLAIN = {
    "y": re.compile("[01]"),
    "x": re.compile(r"-?\d{1,9}(\.\d{1,6})?"),
    "u": re.compile(r"[a-zA-Z0-9]+"),
    "m": re.compile(r"[a-z]+(\|[a-z]+)*"),
    "t": re.compile(r"17\d{8}"),
}
"""Cells whose meaning nobody doubts."""


@dataclass(frozen=True)
class Log:
    """A file and how it is to be read."""

    content: bytes
    kind: str
    settings: dict[str, Any]


def read(log: Log, folder: Path) -> RankingData:
    path = folder / f"log.{log.kind}"
    path.write_bytes(log.content)
    given = {"format": log.kind, "path": str(path), "table": TABLE, "split": "file", "workers": 1, **log.settings}
    try:
        settings = DataSettings.model_validate(given)
    except ValidationError as error:  # the command says so in words of its own
        raise ConfigError(error.errors()[0]["msg"]) from error
    return open_ranking(settings, cache=folder / "cache")


def every(data: RankingData, kind: str) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(getattr(split, kind)) for split in data.splits.values()])


def ordered(times: list[int], data: RankingData) -> list[int]:
    """The rows of a file as they stand in the splits: one part after the other, each in the order of time."""
    order, first = [], 0
    for split in data.splits.values():
        order += sorted(range(first, first + split.rows), key=lambda i: times[i])
        first += split.rows
    return order


def row(random: Random, number: int) -> list[str]:
    """Mostly what belongs there."""
    cells = [
        str(random.randrange(2)),
        str(random.randint(-999, 999)),
        f"u{random.randrange(4)}",
        "a|b",
        str(START + number),
    ]
    if random.random() < 0.03:
        cells[random.randrange(5)] = random.choice([
            '"a', 'a"b', '"a,b"', '"a""b"', '"a\nb"', '["x", "y"]', "['x'", "x, y", "NA", "", "1e39", "-1e-50", "nan",
            "20231114", str((START + number) * 1000), "2023-11-14 22:13:20 UTC", "14/11/2023", "é", "\x1b[2J", "0x1",
            "inf", "1_0", " 1 ", "x" * 3000, "\ud800", "\x00", "a\rb", r'"a\"b"',
        ])  # fmt: skip
    return cells


class TestDelimited(Fuzz):
    """Tables of delimited text."""

    cases = 150
    share = 2.0

    def make(self, random: Random) -> Log:
        kind, sep = random.choice([("csv", ","), ("tsv", "\t")])
        end = random.choice(["\n", "\n", "\r\n", "\r"] if random.random() < 0.2 else ["\n"])
        lines = [sep.join(NAMES), *(sep.join(row(random, i)) for i in range(random.choice([12, 40])))]
        content = (end.join(lines) + random.choice(["", end, end * 3])).encode("utf-8", "surrogatepass")
        if random.random() < 0.5:
            content = mutate.bytes_(random, content, 2)
        settings: dict[str, Any] = {"bad_rows": random.choice(["error", "skip"]), "bad_share": 0.5}
        if random.random() < 0.2:
            settings |= {"quote": random.choice(['"', "'", "none"]), "newlines_in_values": random.random() < 0.5}
        if random.random() < 0.05:
            settings["delimiter"] = random.choice([";", "\t", "|", "é", '"', "\n", "\0"])
        return Log(content, kind, settings)

    def read(self, data: Log, folder: Path) -> RankingData:
        return read(data, folder)

    def confirm(self, data: Log, value: RankingData) -> None:
        labels, bad = every(value, "labels"), sum(value.facts["bad_rows"].values())
        lines = [line.rstrip(b"\r") for line in data.content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        sep = (data.settings.get("delimiter") or {"csv": ",", "tsv": "\t"}[data.kind]).encode()
        filled = [line for line in lines[1:] if line.strip(b" ".replace(sep, b"") + b"\r")]
        if not data.settings.get("newlines_in_values"):
            assert len(labels) + bad == len(filled), "a line is a row, read or bad"
        names = [name.strip() for name in lines[0].decode().replace('"', "").split(sep.decode())]
        rows = [dict(zip(names, line.decode("utf-8", "replace").split(sep.decode()), strict=False)) for line in filled]
        sure = all(len(line.split(sep)) == len(names) for line in filled) and all(
            _PLAIN[name].fullmatch(cells.get(name, "")) for cells in rows for name in NAMES
        )
        if not sure:
            return
        assert bad == 0
        rows = [rows[i] for i in ordered([int(cells["t"]) for cells in rows], value)]
        assert labels.tolist() == [float(cells["y"]) for cells in rows]
        assert every(value, "times").tolist() == [int(cells["t"]) * 1_000_000 for cells in rows]
        numbers = np.array([float(cells["x"]) for cells in rows])
        train = numbers[: value.split("train").rows]
        expected = (numbers - train.mean()) / (train.std() or 1)
        assert np.allclose(every(value, "numeric")[:, 0], expected, rtol=1e-4, atol=1e-4)
        users = [cells["u"] for cells in rows]
        groups = every(value, "groups").tolist()
        assert len(set(zip(users, groups, strict=True))) == len(set(users)) == len(set(groups))


ROWS = 24
_KINDS = [
    pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(20, 3), pa.bool_(),
    pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.date32(), pa.date64(), pa.time64("us"),
    pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("ns"), pa.duration("ms"), pa.null(),
    pa.list_(pa.string()), pa.large_list(pa.int32()), pa.list_(pa.list_(pa.int8())), pa.struct({"a": pa.int8()}),
    pa.map_(pa.string(), pa.int8()), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.float32(), 2),
]  # fmt: skip


def column(random: Random, kind: pa.DataType, name: str) -> pa.Array:
    """A column of any type whose values are, where the type can say them, those that its role wants."""
    wanted = {"y": [0, 1], "x": [-1, 0, 7], "u": [1, 2, 3], "m": [1, 2], "t": [START]}[name]
    numbers = [None if random.random() < 0.05 and name not in "yt" else random.choice(wanted) for _ in range(ROWS)]
    if pa.types.is_nested(kind):
        single = {pa.list_(pa.list_(pa.int8())): [[1]], pa.struct({"a": pa.int8()}): {"a": 1}}.get(kind)
        if pa.types.is_map(kind):
            single = [("a", 1)]
        return pa.array([single or [str(n) if kind == pa.list_(pa.string()) else 1, None][:2] for n in numbers], kind)
    if pa.types.is_dictionary(kind):
        return pa.array([None if n is None else str(n) for n in numbers]).dictionary_encode().cast(kind)
    if pa.types.is_null(kind):
        return pa.nulls(ROWS)
    if pa.types.is_timestamp(kind) and random.random() < 0.8:
        return pa.array(numbers, pa.timestamp("s", kind.tz)).cast(kind)
    texts = pa.array([None if n is None else str(n) for n in numbers], pa.string())
    try:
        return texts.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array(np.resize(np.arange(7), ROWS)).cast(kind, safe=False)


class TestParquet(Fuzz):
    """Tables in Parquet."""

    cases = 150

    def make(self, random: Random) -> Log:
        usual = {
            "y": pa.int64(),
            "x": pa.float64(),
            "u": pa.string(),
            "m": pa.list_(pa.string()),
            "t": pa.timestamp("us"),
        }
        kinds = {name: random.choice(_KINDS) if random.random() < 0.15 else kind for name, kind in usual.items()}
        columns = {}
        for name, kind in kinds.items():
            try:
                columns[name] = column(random, kind, name)
            except pa.ArrowException:
                columns[name] = column(random, usual[name], name)
        file = io.BytesIO()
        try:
            parquet.write_table(
                pa.table(columns), file, compression=random.choice(["none", "snappy", "zstd"]), row_group_size=9
            )
        except pa.ArrowException:
            parquet.write_table(pa.table({n: column(random, k, n) for n, k in usual.items()}), file)
        content = file.getvalue()
        if random.random() < 0.4:
            content = mutate.bytes_(random, content, 2)
        return Log(content, "parquet", {"bad_rows": random.choice(["error", "skip"]), "bad_share": 0.5})

    def read(self, data: Log, folder: Path) -> RankingData:
        return read(data, folder)

    def confirm(self, data: Log, value: RankingData) -> None:
        table = parquet.read_table(io.BytesIO(data.content), columns=list(NAMES)).to_pydict()
        labels, bad = every(value, "labels"), sum(value.facts["bad_rows"].values())
        assert len(labels) + bad == len(table["y"])
        if bad:
            return
        assert labels.tolist() == [float(label) for label in table["y"]]
        numbers = np.array([float("nan") if n is None else float(n) for n in table["x"]])
        train = numbers[: value.split("train").rows]
        known = train[~np.isnan(train)]
        deviation = known.std() if len(known) and known.min() < known.max() else 1.0
        expected = np.nan_to_num((numbers - (known.mean() if len(known) else 0)) / deviation)
        assert np.allclose(every(value, "numeric")[:, 0], expected, rtol=1e-4, atol=1e-4)
        groups = every(value, "groups")
        alone = np.array(
            [user is None or user == "" or (isinstance(user, float) and math.isnan(user)) for user in table["u"]]
        )
        assert ((groups < 0) == alone).all()
