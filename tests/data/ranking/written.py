"""Tables of sixty rows that tests write, change and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from rankitect.data.ranking import DataSettings, RankingData, open_ranking

ROWS = 60
NAMES = ("y", "x", "u", "t")
TABLE: dict[str, Any] = {"label": "y", "numeric": ["x"], "categorical": ["u"], "timestamp": "t"}
START = 1_700_000_000
"""14 November 2023, 22:13:20 UTC, a Tuesday."""


def rows(**changed: Mapping[int, str] | Sequence[str]) -> list[list[str]]:
    """Label, number, one of five users and time of each row; with other values in some rows, or in all."""
    table = [[str(i % 2), str(i), f"u{i % 5}", str(START + 60 * i)] for i in range(ROWS)]
    for name, values in changed.items():
        for row, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            table[row][NAMES.index(name)] = value
    return table


def text(table: Sequence[Sequence[str]], names: Sequence[str] = NAMES, sep: str = ",", end: str = "\n") -> str:
    """A table as it stands in a file."""
    return "".join(sep.join(row) + end for row in (names, *table))


def read(folder: Path, content: str | bytes, kind: str = "csv", **more: Any) -> RankingData:
    """What the product reads from a file of that content; rows stay in their order."""
    path = folder / f"log.{kind}"
    path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    return opened(folder, path, kind, **more)


def read_typed(folder: Path, columns: Mapping[str, Any], **more: Any) -> RankingData:
    """The same of a Parquet file with these columns beside the usual ones, or in their place."""
    usual = {
        "y": [i % 2 for i in range(ROWS)],
        "x": [float(i) for i in range(ROWS)],
        "u": [f"u{i % 5}" for i in range(ROWS)],
        "t": [START + 60 * i for i in range(ROWS)],
    }
    parquet.write_table(pa.table({**usual, **columns}), folder / "log.parquet")
    return opened(folder, folder / "log.parquet", "parquet", **more)


def opened(folder: Path, path: Path, kind: str, **more: Any) -> RankingData:
    """The table at a path."""
    given = {"format": kind, "path": str(path), "table": TABLE, "split": "file", "workers": 1, **more}
    return open_ranking(DataSettings.model_validate(given), cache=folder / "cache")


def joined(data: RankingData, kind: str) -> NDArray[Any]:
    """An array of all rows, the splits one after the other: in the order of the file if it was divided so."""
    return np.concatenate([np.asarray(getattr(split, kind)) for split in data.splits.values()])


def texts(data: RankingData, feature: int = 0) -> list[list[str]]:
    """The texts of a categorical feature's values in each row; `?` for those that no training row has."""
    first = int(np.cumsum([0, *data.features.slots])[feature])
    one = data.features.categorical[feature]
    names = ["?", "", *data.values[one.name]]
    return [[names[i] for i in row if i >= 0] for row in joined(data, "ids")[:, first : first + one.slots].tolist()]
