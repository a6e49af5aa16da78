"""New rows as a model's inputs: the columns, vocabularies and scaling that its training rows gave, in a folder.

The same code reads and encodes training rows and new ones, so that a value that training never saw, a rare one and a
missing one come to the same rows of the tables.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rankitect.data.files import write_atomically, write_whole
from rankitect.data.members import place_of
from rankitect.data.ranking.columns import Problems
from rankitect.data.ranking.encoding import EncodingPlan, encode_features
from rankitect.data.ranking.features import FIRST_ID, UNKNOWN_ID, Features
from rankitect.data.ranking.new_rows import PLACE, Rows, as_spelt, read_rows
from rankitect.data.ranking.outliers import FAR, too_far
from rankitect.data.ranking.raw import CALENDAR, read_features, typed_columns
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.vocabulary import Vocabulary
from rankitect.data.tensors import read_arrays
from rankitect.documents import read_json
from rankitect.errors import AssetError, DataError, safe, short

__all__ = ["FILES", "RowEncoder"]

_SCHEMA = 1
_ABOUT, _ARRAYS = "encoder.json", "vocabularies.safetensors"
FILES = (_ABOUT, _ARRAYS)
_JUDGED, _STRANGE = 20, 0.5
"""Rows from which on a column is judged, and the share of unknown values that is said."""


class _About(BaseModel):
    """Content of encoder.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_number: int
    table: TableSchema
    features: dict[str, Any]
    hashed: list[bool]


@dataclass(frozen=True, eq=False)
class RowEncoder:
    """How rows become a model's inputs.

    Attributes:
        table: What the columns are for.
        plan: Vocabularies, shifts and scales.
    """

    table: TableSchema
    plan: EncodingPlan

    @property
    def features(self) -> Features:
        """What comes out."""
        return self.plan.features

    @property
    def columns(self) -> list[str]:
        """The columns that are read, each once."""
        table = self._inputs()
        names = [c.source for c in (*table.numeric, *table.categorical, *table.multi_hot)]
        return list(dict.fromkeys([*names, *([table.timestamp.name] if table.timestamp else [])]))

    def encode(self, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
        """A model's inputs.

        Args:
            rows: A frame of pandas, a table of Arrow, or a mapping of column to value for each row. Further columns
                are left alone; None, NaN and the schema's `missing` texts are missing values.

        Returns:
            Numbers [rows, N] float32 and ids [rows, S] int64.

        Raises:
            DataError: A column is missing, or a value cannot be used: names the row, from 0, and the column.
        """
        table = self._inputs()
        columns = read_rows(rows, self.columns, self.table.missing)
        numbers_too = {column.source for column in table.numeric}
        for column, vocabulary in zip((*table.categorical, *table.multi_hot), self.plan.vocabularies, strict=False):
            if column.source not in numbers_too:
                columns[column.source] = as_spelt(columns[column.source], vocabulary)
        typed = typed_columns(columns, table, PLACE)
        problems = Problems(len(next(iter(columns.values()))), PLACE)
        numeric, codes, _ = read_features(typed, table, problems)
        if problems.troubles:
            row = min(problems.troubles)
            column_name, trouble, _ = problems.troubles[row]
            raise DataError(f"Row {row}, column {short(column_name, 60)!r}: found {safe(trouble)}.")
        far = too_far(numeric, self.plan)
        if far.any():
            row = int(far.any(axis=0).argmax())
            column_name = self.features.numeric[int(far[:, row].argmax())]
            raise DataError(f"Row {row}, column {short(repr(column_name), 60)}: found {FAR}.")
        numbers, ids = encode_features(numeric, codes, self.plan)
        self._warn(ids)
        return np.ascontiguousarray(numbers), ids.astype(np.int64)

    def _inputs(self) -> TableSchema:
        """The columns that a model is given something of: neither label, weight nor group, and a time only if it is."""
        left_out: dict[str, Any] = {"label": None, "group": None, "weight": None, "score": None}
        if not self.table.calendar:
            left_out["timestamp"] = None
        return self.table.model_copy(update=left_out)

    def _warn(self, ids: NDArray[np.int32]) -> None:
        """Say which columns are mostly unknown: their values may be spelt in another way than in training."""
        if len(ids) < _JUDGED:
            return
        firsts = np.cumsum([0, *self.features.slots])[:-1]
        for feature, first in zip(self.features.categorical, firsts, strict=True):
            share = float((ids[:, first] == UNKNOWN_ID).mean())
            if share > _STRANGE:
                logging.getLogger("rankitect").warning(
                    "Column %r: training knew no such value for %.0f%% of the rows. "
                    "Are values spelt as in the training data?",
                    feature.name,
                    100 * share,
                )

    def save(self, folder: Path) -> None:
        """Write it as JSON and safetensors, each file whole or not at all.

        Args:
            folder: Created if it does not exist.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        from safetensors.numpy import save_file

        plan = self.plan
        arrays: dict[str, NDArray[Any]] = {"centre": plan.centre, "scale": plan.scale}
        arrays |= {f"keys{i}": np.asarray(v.keys) for i, v in enumerate(plan.vocabularies) if v.keys is not None}
        about = {
            "schema_number": _SCHEMA,
            "kind": "rankitect row encoder",
            "table": self.table.model_dump(mode="json"),
            "features": plan.features.to_json(),
            "hashed": [vocabulary.hashed for vocabulary in plan.vocabularies],
        }
        folder.mkdir(parents=True, exist_ok=True)
        whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        write_atomically(folder / _ARRAYS, lambda part: save_file(whole, part))
        write_whole(folder / _ABOUT, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RowEncoder:
        """Read what `save` wrote.

        Raises:
            AssetError: A file is missing or damaged, or the two do not belong together.
        """
        about = read_json(place_of(folder, _ABOUT), _About, AssetError, advice="Copy the candidate again.")
        where = short(str(folder / _ARRAYS), 200)
        if about.schema_number != _SCHEMA:
            raise AssetError(f"{short(str(folder / _ABOUT), 200)}: schema_number is not {_SCHEMA}: of a newer version.")
        arrays = read_arrays(place_of(folder, _ARRAYS), f"{where} is truncated or damaged. Copy the candidate again")
        try:
            return cls(about.table, _plan(about, arrays))
        except (DataError, KeyError, ValueError) as error:
            raise AssetError(f"{where} does not fit {_ABOUT}: {short(safe(str(error)), 200)}") from error


def _plan(about: _About, arrays: Mapping[str, NDArray[Any]]) -> EncodingPlan:
    """The plan of stored arrays.

    Raises:
        ValueError: They are not those of the features.
    """
    features, table = Features.from_json(about.features), about.table
    names = [c.name for c in (*table.categorical, *table.multi_hot)] + list(table.calendar)
    if [f.name for f in features.categorical] != names or features.numeric != tuple(c.name for c in table.numeric):
        raise ValueError("the features are not the table's columns")
    if len(about.hashed) != len(names):
        raise ValueError(f"{len(names)} features, but {len(about.hashed)} vocabularies")
    centre, scale = (_numbers(arrays[name], len(features.numeric), name) for name in ("centre", "scale"))
    if not (scale > 0).all():
        raise ValueError("a scale is not above 0")
    vocabularies = []
    for place, (feature, hashed) in enumerate(zip(features.categorical, about.hashed, strict=True)):
        keys = arrays.get(f"keys{place}")
        if keys is not None and (keys.dtype != np.uint64 or keys.ndim != 1 or len(np.unique(keys)) != len(keys)):
            raise ValueError(f"keys{place} are not different 64-bit numbers")
        if keys is not None and not hashed and feature.rows != len(keys) + FIRST_ID:
            raise ValueError(f"{feature.name!r} has {feature.rows} rows for {len(keys)} values")
        if keys is None and feature.name in table.calendar and feature.rows != CALENDAR[feature.name] + FIRST_ID:
            raise ValueError(f"{feature.name!r} has {feature.rows} rows")
        if feature.rows <= FIRST_ID and (keys is None or hashed):
            raise ValueError(f"{feature.name!r} has {feature.rows} rows")
        vocabularies.append(Vocabulary(feature.rows, keys, hashed))
    return EncodingPlan(features, tuple(vocabularies), centre, scale)


def _numbers(values: NDArray[Any], count: int, name: str) -> NDArray[np.float64]:
    if values.shape != (count,) or values.dtype != np.float64 or not np.isfinite(values).all():
        raise ValueError(f"{name} is not {count} finite numbers of 64 bits")
    return values
