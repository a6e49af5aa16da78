"""What a table's encoded rows look like to a model: how many numbers, and the table rows and slots of each feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankitect.errors import DataError

__all__ = ["FIRST_ID", "MISSING_ID", "PADDING", "UNKNOWN_ID", "CategoricalFeature", "Features"]

PADDING = -1  # fills the slots of a multi-hot feature that a row does not need
UNKNOWN_ID = 0  # values that the training split does not have, or too rarely
MISSING_ID = 1
FIRST_ID = 2  # of real values


@dataclass(frozen=True)
class CategoricalFeature:
    """One categorical feature.

    Attributes:
        name: Name of the feature.
        rows: Rows of its embedding table, with those for unknown and missing values. Ids are below it.
        slots: Ids a row of data; 1, or more for a multi-hot feature, whose unused slots hold `PADDING`.
    """

    name: str
    rows: int
    slots: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.slots < 1:
            raise DataError(f"Feature {self.name!r} needs at least one row and one slot; found {self}.")


@dataclass(frozen=True)
class Features:
    """The features of a table, in the order of the columns of `RankingBatch.numeric` and `RankingBatch.ids`.

    Attributes:
        numeric: Names of the numeric features.
        categorical: The categorical features.
    """

    numeric: tuple[str, ...]
    categorical: tuple[CategoricalFeature, ...]

    def __post_init__(self) -> None:
        for names in (self.numeric, tuple(feature.name for feature in self.categorical)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"Feature names must differ; found twice: {', '.join(twice)}.")
        if not self.numeric and not self.categorical:
            raise DataError("A table needs at least one numeric or categorical feature.")

    @property
    def rows(self) -> tuple[int, ...]:
        """Embedding rows of each categorical feature."""
        return tuple(feature.rows for feature in self.categorical)

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots of each categorical feature; they sum to the columns of `RankingBatch.ids`."""
        return tuple(feature.slots for feature in self.categorical)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "numeric": list(self.numeric),
            "categorical": [{"name": f.name, "rows": f.rows, "slots": f.slots} for f in self.categorical],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Features:
        """The inverse of `to_json`.

        Raises:
            DataError: If the value was not made by `to_json`.
        """
        try:
            categorical = tuple(
                CategoricalFeature(str(f["name"]), int(f["rows"]), int(f["slots"])) for f in value["categorical"]
            )
            return cls(tuple(str(name) for name in value["numeric"]), categorical)
        except (KeyError, TypeError) as error:
            raise DataError(f"This is not a description of features ({error!r}): {value!r}.") from error
