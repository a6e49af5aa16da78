"""Quality looked up in a table that was measured before, such as NAS-Bench-201's: a search without training."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent
from rankitect.errors import ConfigError, brief, short
from rankitect.evaluators.costs import cost_specs_of, costs_of

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["Column", "Tabular", "read_table"]

MOST = 1 << 28
"""Bytes of a table."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""Python reads more as a number: `1_0`, digits of other scripts."""


class Column(BaseModel):
    """A metric of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(min_length=1, max_length=200, description="the column it stands in")
    unit: str = Field(default="percent", min_length=1, max_length=40, description="its unit")
    direction: Literal["min", "max"] = Field(default="max", description="whether more or less is better")
    held_out: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="another of these metrics, which is the same on data by which nothing was chosen: a search goes by "
        "this one, a report shows the other",
    )


class Tabular:
    """Metrics of an architecture from a CSV file with a header, in the space's own spelling; all costs beside them.

    Equal architectures that the table has under several names count by the name that `ChoiceSpace.spelling` gives.
    """

    class Config(BaseModel):
        """Keys of `evaluator.final` and `evaluator.screen`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        table: str = Field(min_length=1, description="the CSV file")
        key: str = Field("arch_str", min_length=1, max_length=200, description="the column that names architectures")
        columns: dict[str, Column] = Field(
            {"accuracy": Column(column="cifar10_test_acc", unit="percent", direction="max")},
            min_length=1,
            max_length=100,
            description="metrics by name, each with its column, unit and direction",
        )

        @model_validator(mode="after")
        def _paired(self) -> Self:
            for name, column in self.columns.items():
                other = self.columns.get(column.held_out or name)
                called = f"columns.{short(name, 60)}.held_out: {short(str(column.held_out), 60)}"
                if other is None or column.held_out == name:
                    others = short(", ".join(other for other in self.columns if other != name) or "none", 100)
                    raise ValueError(f"{called} is no other metric of the table; allowed: {others}")
                if (column.unit, column.direction) != (other.unit, other.direction) or other.held_out == name:
                    raise ValueError(f"{called} must have the same unit and direction, and be held out itself")
            return self

    def __init__(self, config: Config, task: object, space: ChoiceSpace) -> None:
        self._config, self._task, self._space = config, task, space
        self._values = read_table(Path(config.table).expanduser(), config.key, config.columns)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Tabular:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The table cannot be read, lacks a column, or holds what is no number.
        """
        evaluator = cls(config, parts.task, parts.space)
        some = parts.space.sample(0)
        try:
            evaluator.values_of(some)
        except ConfigError as error:
            raise ConfigError(f"{error}: is it a table of space={parts.names.get('space', '?')}?") from None
        return evaluator

    @property
    def name(self) -> str:
        """Which table it is."""
        return f"{', '.join(self._config.columns)} by the table {short(Path(self._config.table).name, 60)}"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The table's, and all costs."""
        told = [
            MetricSpec(name, c.unit, c.direction, "quality", c.held_out) for name, c in self._config.columns.items()
        ]
        return [*told, *cost_specs_of(self._task)]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Look one architecture up."""
        units = {name: column.unit for name, column in self._config.columns.items()}
        values = {name: Metric(value, units[name]) for name, value in self.values_of(architecture).items()}
        return Measurement({**values, **costs_of(self._task, self._space, architecture)}, Spent())

    def values_of(self, architecture: Architecture) -> Mapping[str, float]:
        """What the table says of an architecture.

        Raises:
            ConfigError: It has no such row.
        """
        spelled = self._space.spelled(architecture)
        if spelled not in self._values:
            raise ConfigError(
                f"{short(self._config.table, 120)} has no row with {self._config.key}={short(spelled, 160)}"
            )
        return dict(zip(self._config.columns, self._values[spelled], strict=True))


def read_table(path: Path, key: str, columns: Mapping[str, Column]) -> dict[str, tuple[float, ...]]:
    """The numbers of every row of a CSV file (RFC 4180), by its key.

    Args:
        path: The file, in UTF-8, with a header.
        key: The column of the keys.
        columns: The columns of the numbers.

    Raises:
        ConfigError: The file cannot be read, lacks a column or has it twice, has a key twice, or holds what is no
            number; names the column or the line.
    """
    from rankitect.documents import read_text

    lines = csv.reader(io.StringIO(read_text(path, most=MOST), newline=""), strict=True)
    wanted = [key, *(column.column for column in columns.values())]
    values: dict[str, tuple[float, ...]] = {}
    try:
        header = next(lines, [])
        if missing := [name for name in wanted if name not in header]:
            told = brief(", ".join(header) or "none", 160)
            raise ConfigError(f"{brief(path)} has no column {short(repr(missing[0]), 80)}; its columns: {told}")
        if twice := [name for name in wanted if header.count(name) > 1]:
            raise ConfigError(f"{brief(path)} has several columns {short(repr(twice[0]), 80)}")
        places = [header.index(name) for name in wanted]
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise ConfigError(f"{brief(path)}, line {lines.line_num}: {len(row)} values, not {len(header)}")
            name, *texts = (row[place] for place in places)
            if name in values:
                raise ConfigError(f"{brief(path)}, line {lines.line_num}: {short(repr(name), 160)} stands there twice")
            values[name] = tuple(_number(text, path, lines.line_num) for text in texts)
    except csv.Error as error:
        raise ConfigError(f"{brief(path)}, line {lines.line_num}: {brief(error, 120)}") from None
    return values


def _number(text: str, path: Path, line: int) -> float:
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{brief(path)}, line {line}: {short(repr(text), 60)} is no number")
    return number
