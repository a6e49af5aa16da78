"""Quality looked up in a table that was measured before, such as NAS-Bench-201's: a search without training."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent
from rankitect.errors import ConfigError, brief, short
from rankitect.evaluators.costs import cost_specs_of, costs_of

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["Tabular"]

MOST = 1 << 28
"""Bytes of a table."""


class Column(BaseModel):
    """A metric of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(min_length=1, max_length=200, description="the column it stands in")
    unit: str = Field("percent", min_length=1, max_length=40, description="its unit")
    direction: Literal["min", "max"] = Field("max", description="whether more or less is better")


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

    def __init__(self, config: Config, task: object, space: ChoiceSpace) -> None:
        self._config, self._task, self._space = config, task, space
        self._values = _read(Path(config.table).expanduser(), config.key, config.columns)

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
        told = [MetricSpec(name, c.unit, c.direction, "quality") for name, c in self._config.columns.items()]
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


def _read(path: Path, key: str, columns: Mapping[str, Column]) -> dict[str, tuple[float, ...]]:
    """The numbers of every row, by its key.

    Raises:
        ConfigError: See `Tabular.from_config`; names the column or the line.
    """
    from rankitect.documents import read_text

    lines = csv.reader(read_text(path, most=MOST).splitlines(), strict=True)
    wanted = [key, *(column.column for column in columns.values())]
    values: dict[str, tuple[float, ...]] = {}
    try:
        header = next(lines, [])
        if missing := [name for name in wanted if name not in header]:
            told = short(", ".join(header) or "none", 160)
            raise ConfigError(f"{brief(path)} has no column {short(repr(missing[0]), 80)}; its columns: {told}")
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
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{brief(path)}, line {line}: {short(repr(text), 60)} is no number")
    return number
