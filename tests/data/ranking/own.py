"""A table of one's own for the tests of formats, and how it is written in each of them."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from rankitect.data.ranking import DataSettings, RankingData, open_ranking

NAMES = ("click", "price", "user", "tags", "when", "rate", "day")
SCHEMA: dict[str, Any] = {
    "label": "click",
    "numeric": ["price", "rate"],
    "timestamp": "when",
    "calendar": ["hour"],
    "weight": "rate",
    "categorical": ["user", "day"],
    "multi_hot": ["tags"],
    "group": "user",
}
START = datetime.datetime(2024, 2, 28, 22, 30, tzinfo=datetime.UTC)
ROWS: list[dict[str, Any]] = [
    {
        "click": int(i % 3 == 0),
        "price": None if i % 11 == 5 else i * 7 % 13,
        "user": None if i % 17 == 3 else f"u{i % 5}",
        "tags": [f"t{k}" for k in range(i % 4)],
        "when": START + datetime.timedelta(hours=i, microseconds=i),
        "rate": i % 7 / 4,
        "day": f"d{i // 50}",
    }
    for i in range(200)
]


def as_csv(names: tuple[str, ...] = NAMES, rows: list[dict[str, Any]] = ROWS, between: str = ",") -> bytes:
    lines = [between.join(names)]
    for row in rows:
        texts = {**row, "tags": "|".join(row["tags"])}
        lines.append(between.join("" if texts[name] is None else str(texts[name]) for name in names))
    return ("\n".join(lines) + "\n").encode()


def as_jsonl(names: tuple[str, ...] = NAMES, rows: list[dict[str, Any]] = ROWS) -> bytes:
    return "".join(json.dumps({name: row[name] for name in names}, default=str) + "\n" for row in rows).encode()


def as_parquet(names: tuple[str, ...] = NAMES, rows: list[dict[str, Any]] = ROWS, **how: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([{name: row[name] for name in names} for row in rows]), out, **how)
    return out.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def by_arrow(data: bytes, kind: str) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, kind) as stream:
        stream.write(data)
    packed: bytes = out.getvalue().to_pybytes()
    return packed


PACKS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: by_arrow(data, "zstd"),
    ".lz4": lambda data: by_arrow(data, "lz4"),
    ".zip": lambda data: zipped(("log.csv", data)),
}


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def opened(cache: Path, path: Path | str, format: str = "csv", filesystem: Any = None, **more: Any) -> RankingData:
    table = {**SCHEMA, **more.pop("table", {})}
    given = {"format": format, "path": str(path), "table": table, "split": "file", "workers": 1, **more}
    return open_ranking(DataSettings.model_validate(given), cache=cache, filesystem=filesystem)


def arrays(data: RankingData) -> list[tuple[str, np.ndarray | None]]:
    """All that a model is trained on, with its names."""
    kinds = ("numeric", "ids", "labels", "weights", "groups", "times")
    return [
        (f"{name} {kind}", None if (values := getattr(split, kind)) is None else np.asarray(values))
        for name, split in data.splits.items()
        for kind in kinds
    ]


def assert_same(data: RankingData, other: RankingData) -> None:
    """Both give a model the same."""
    assert data.features == other.features
    assert data.values == other.values
    for (name, mine), (_, theirs) in zip(arrays(data), arrays(other), strict=True):
        assert (mine is None) == (theirs is None), name
        assert mine is None or np.array_equal(mine, theirs), name
