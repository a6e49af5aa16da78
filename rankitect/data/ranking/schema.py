"""What a table's columns are for, and how it is read: the keys of `task.data`. Imports nothing heavy."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rankitect.data.storage import problem_of_place

__all__ = [
    "SPLITS",
    "Categorical",
    "DataSettings",
    "Label",
    "MultiHot",
    "Numeric",
    "Score",
    "SyntheticSettings",
    "TableSchema",
    "Timestamp",
]

SPLITS = ("train", "validation", "test")

Encoding = Literal["vocabulary", "hash", "index"]
Format = Literal["movielens", "criteo", "avazu", "csv", "tsv", "jsonl", "parquet", "libsvm", "libffm", "synthetic"]
TABLES = ("csv", "tsv", "jsonl", "parquet", "libsvm", "libffm")
"""Formats whose columns are the user's own, so that `table` says what they are for."""
Splitting = Literal["auto", "time", "user_time", "user", "hash", "file"]


def _as_name(value: Any) -> Any:
    """The text that YAML has taken for a number: columns may be called 1 or nan."""
    if isinstance(value, bool):
        raise ValueError(f"YAML takes this name for the truth value {value}: write it in quotes")
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return str(value) if isinstance(value, int | float) else value


Name = Annotated[str, BeforeValidator(_as_name), Field(min_length=1)]


def _named(value: Any) -> Any:
    """A column's bare name stands for the column with everything else by default."""
    return {"name": value} if isinstance(value, str | int | float) else value


_SHORTHANDS = {"%T": "%H:%M:%S", "%F": "%Y-%m-%d", "%R": "%H:%M", "%D": "%m/%d/%y"}
"""Directives that Python's strptime does not know."""


def _words(values: Any) -> Any:
    """Values of a column as the texts that stand in a file."""
    if not isinstance(values, list | tuple):
        return values
    if any(isinstance(value, bool) for value in values):
        raise ValueError(
            "write 'yes', 'no', 'on', 'off', 'true' and 'false' in quotes: YAML reads them as truth values"
        )
    return [str(value) if isinstance(value, int | float) else value for value in values]


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class _Column(_Strict):
    name: Name = Field(description="the column's name in the file, and the feature's")
    column: Name | None = Field(default=None, description="the column in the file, where it differs")

    @property
    def source(self) -> str:
        """The column in the file."""
        return self.column or self.name


class Label(_Strict):
    """The column that is predicted."""

    name: Name = Field(description="the column's name in the file")
    at_least: float | None = Field(
        default=None, description="values from here on are 1, lower ones 0; null: the column holds 0 and 1"
    )
    positive: Words | None = Field(default=None, min_length=1, description="values that mean 1, such as [click]")
    negative: Words | Literal["others"] | None = Field(
        default=None, min_length=1, description="values that mean 0, such as [no_click]; others: all but `positive`"
    )
    soft: bool = Field(default=False, description="the column holds probabilities from 0 to 1")

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if (self.positive is None) != (self.negative is None):
            raise ValueError("`positive` and `negative` go together (negative: others stands for all other values)")
        if (self.at_least is not None) + (self.positive is not None) + self.soft > 1:
            raise ValueError("give one of `at_least`, `positive` with `negative`, and `soft`")
        both = sorted({*(self.positive or ())} & {*(() if self.negative == "others" else self.negative or ())})
        if both:
            raise ValueError(f"{both[0]!r} cannot be both positive and negative")
        return self


class Score(_Strict):
    """The column that holds what production answered for the row, to compare with; it is no feature."""

    name: Name = Field(description="the column's name in the file")
    kind: Literal["probability", "logit", "score"] = Field(
        default="probability",
        description="what it holds: probability, from 0 to 1; logit, its log-odds; score, any number, larger for "
        "likelier clicks, which is calibrated on the validation split",
    )


class Numeric(_Column):
    """A column of numbers. Mean and deviation are those of the training split; a missing value becomes the mean."""

    transform: Literal["log", "standard", "none"] = Field(
        default="standard",
        description="log: sign(x)·log(1+|x|), then standardised; standard: standardised; none: as it is",
    )


class Categorical(_Column):
    """A column of values that get a row of an embedding table each."""

    encoding: Encoding | None = Field(
        default=None,
        description="vocabulary: a row for each training value; hash: values share `rows` rows by their hash; "
        "index: the file holds whole numbers below `rows` - 2; null: task.data.encoding",
    )
    rows: int | None = Field(
        default=None,
        ge=3,
        le=10**9,
        description="rows of the table, with one for unknown and one for missing values; of a vocabulary the limit",
    )
    min_count: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="rarer training values share the unknown row; null: task.data.min_count",
    )

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if self.encoding in ("hash", "index") and self.rows is None:
            raise ValueError(f"column {self.name!r} with encoding {self.encoding} needs `rows`")
        if self.encoding == "index" and self.min_count is not None:
            raise ValueError(f"column {self.name!r}: `min_count` goes with vocabulary and hash, not with index")
        return self


class MultiHot(Categorical):
    """A column with several values a row."""

    separator: str | None = Field(
        default=None, min_length=1, description="between the values of a row that are no list; null: |"
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="values kept of a row, the first ones; null: the most a training row has",
    )


class Timestamp(_Strict):
    """When a row happened: numbers since 1970, or text."""

    name: Name = Field(description="the column's name in the file")
    unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None,
        description="of numbers since 1970; null: s, and numbers that read as dates written together are refused",
    )
    format: str | None = Field(
        default=None,
        description="strptime's, such as %y%m%d%H; null: a number, or ISO 8601 such as 2024-05-31 17:00:00",
    )
    origin: datetime.date = Field(
        default=datetime.date(1970, 1, 1), description="the day from whose midnight (UTC) numbers count"
    )

    @field_validator("format")
    @classmethod
    def _supported(cls, given: str | None) -> str | None:
        """A format by which a time can be written and read back."""
        if given is None:
            return None
        spelt = re.sub("%[TFRD]", lambda match: _SHORTHANDS[match[0]], given)
        time = datetime.datetime(2021, 12, 31, 23, 58, 59, tzinfo=datetime.UTC)
        try:
            read = datetime.datetime.strptime(time.strftime(spelt), spelt)
        except (ValueError, re.error, UnicodeError) as error:
            raise ValueError(f"times cannot be read by the format {given[:60]!r} ({error})") from error
        if read.date() != time.date():
            raise ValueError(f"the format {given[:60]!r} does not say year, month and day (such as %Y-%m-%d)")
        if "%I" in re.findall("%.", spelt) and read.hour != time.hour:
            raise ValueError(f"the format {given[:60]!r} has hours up to 12 (%I) without %p, or write %H")
        return spelt


NumericColumn = Annotated[Numeric, BeforeValidator(_named)]
CategoricalColumn = Annotated[Categorical, BeforeValidator(_named)]
MultiHotColumn = Annotated[MultiHot, BeforeValidator(_named)]
LabelColumn = Annotated[Label, BeforeValidator(_named)]
ScoreColumn = Annotated[Score, BeforeValidator(_named)]
TimestampColumn = Annotated[Timestamp, BeforeValidator(_named)]


class TableSchema(_Strict):
    """What each column is for; columns that are not named are not read."""

    columns: tuple[str, ...] = Field(
        default=(), description="names of all columns of csv and tsv files that have no header, in their order"
    )
    label: LabelColumn | None = Field(default=None, description="the column to predict")
    numeric: tuple[NumericColumn, ...] = Field(default=(), description="columns of numbers")
    categorical: tuple[CategoricalColumn, ...] = Field(default=(), description="columns with one value a row")
    multi_hot: tuple[MultiHotColumn, ...] = Field(default=(), description="columns with several values a row")
    timestamp: TimestampColumn | None = Field(default=None, description="the column that says when")
    calendar: tuple[Literal["hour", "weekday"], ...] = Field(
        default=(), description="categorical features made from the timestamp, UTC"
    )
    group: Name | None = Field(
        default=None, description="column of the user (or other unit) whose rows belong together"
    )
    weight: Name | None = Field(default=None, description="column of the rows' importance")
    score: ScoreColumn | None = Field(
        default=None, description="the column of what production answered: a baseline to compare with, and no feature"
    )
    missing: tuple[str, ...] = Field(
        default=("", "null", "NULL", "nan", "NaN", "\\N"), description="texts that stand for a missing value"
    )

    @field_validator("columns")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise ValueError(f"column {twice!r} is named twice")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [c.name for c in (*self.categorical, *self.multi_hot)] + list(self.calendar)
        for group in (names, [c.name for c in self.numeric]):
            twice = [name for name, count in Counter(group).items() if count > 1]
            if twice:
                raise ValueError(f"feature {twice[0]!r} is named twice")
        if self.calendar and self.timestamp is None:
            raise ValueError("`calendar` needs a `timestamp`")
        if self.label is not None:
            inputs = {c.source for c in (*self.numeric, *self.categorical, *self.multi_hot)}
            if self.label.name in inputs:
                raise ValueError(f"the label {self.label.name!r} is also a feature: a model would only copy it")
        if self.score is not None:
            inputs = {c.source for c in (*self.numeric, *self.categorical, *self.multi_hot)}
            if self.score.name in inputs:
                raise ValueError(f"the score {self.score.name!r} is also a feature: a model would only copy production")
            if self.label is not None and self.score.name == self.label.name:
                raise ValueError(f"the score {self.score.name!r} is also the label")
        return self

    @property
    def is_empty(self) -> bool:
        """True if it names no column."""
        return self.label is None and not (self.numeric or self.categorical or self.multi_hot or self.calendar)

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.numeric) + len(self.categorical) + len(self.multi_hot) + len(self.calendar)


class SyntheticSettings(_Strict):
    """A generated click log with a known best model; for tests of scale, never for results."""

    rows: int = Field(default=100_000, ge=100, le=10**9, description="rows of data")
    numeric: int = Field(default=13, ge=0, le=10_000, description="numeric features")
    categorical: int = Field(default=26, ge=1, le=10_000, description="categorical features")
    ids: int = Field(default=100_000, ge=2, le=10**9, description="different values of the largest categorical feature")
    smallest: int = Field(
        default=10, ge=2, le=10**9, description="different values of the smallest; the others lie between"
    )
    zipf: float = Field(default=1.1, gt=0, le=4, description="exponent of the values' frequencies")
    base_rate: float = Field(default=0.25, gt=0, lt=1, description="share of clicks")
    signal: float = Field(default=1.5, ge=0, le=10, description="deviation of the teacher's logit")
    days: int = Field(default=7, ge=1, le=10_000, description="days that the rows are spread over")
    drift: float = Field(default=0.1, ge=0, le=1, description="how far the teacher turns in a day, radians")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the generator")


class DataSettings(_Strict):
    """A ranking task's data: `task.data`."""

    format: Format = Field(default="movielens", description="of the files; with one of your own columns give `table`")
    path: str | None = Field(
        default=None,
        min_length=1,
        description="file, folder, glob or URI (s3://, gs://, …); movielens without one fetches MovieLens-100K",
    )
    limit: int | None = Field(default=None, ge=1, le=10**12, description="rows to read, the first ones; null: all")
    table: TableSchema = Field(
        default=TableSchema(), description="what the columns are for; known for movielens, criteo, avazu, synthetic"
    )
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="of csv; by default a comma")
    quote: Literal['"', "'", "none"] | None = Field(
        default=None,
        description='around values of csv and tsv that hold a delimiter; none: quotes mean nothing; null: " for csv, '
        "none for tsv",
    )
    newlines_in_values: bool = Field(
        default=False, description="whether quoted values may hold line ends; else such a row is bad"
    )
    encoding: Literal["vocabulary", "hash"] = Field(default="vocabulary", description="of categorical columns")
    hash_rows: int = Field(default=100_000, ge=3, le=2**31 - 1, description="rows of a hashed feature that names none")
    min_count: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="training values rarer than this share the unknown row; null: criteo 10, avazu 2, others 1",
    )
    max_rows: int = Field(
        default=20_000_000, ge=3, le=2**31 - 1, description="largest vocabulary of a feature, an error beyond"
    )
    split: Splitting = Field(
        default="auto",
        description="time: earliest rows train; user_time: that within each user; user: whole users; hash: rows by "
        "chance; file: in file order; auto: user_time for movielens, file for criteo, else time where there is a "
        "timestamp, else hash",
    )
    shares: tuple[float, float, float] = Field(default=(0.8, 0.1, 0.1), description="train, validation, test")
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="of the splits by user and by hash")
    out_of_order: Literal["sort", "error"] = Field(
        default="sort", description="what to do with rows that are not in the order of their timestamps"
    )
    bad_rows: Literal["error", "skip"] = Field(default="error", description="what to do with a row that is unreadable")
    bad_share: float = Field(default=0.001, ge=0, lt=1, description="with skip: the largest share of bad rows")
    workers: int | None = Field(default=None, ge=1, le=64, description="preprocessing threads; null: all cores")
    synthetic: SyntheticSettings = Field(default=SyntheticSettings(), description="with format synthetic")

    @field_validator("delimiter")
    @classmethod
    def _one_byte(cls, given: str | None) -> str | None:
        if given is not None and (not given.isascii() or given in "\r\n\0\"'"):
            raise ValueError("the delimiter is one ASCII character, and neither a quote nor a line end")
        return given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        # Here and not beside the field, as a message shows a field's value, which may hold a password.
        if self.path is not None and (problem := problem_of_place(self.path)) is not None:
            raise ValueError(f"path: {problem}")
        if self.format in TABLES:
            if self.table.label is None:
                raise ValueError(f"format {self.format} needs table.label, the column to predict")
            if not (self.table.numeric or self.table.categorical or self.table.multi_hot or self.table.calendar):
                raise ValueError(f"format {self.format} needs features: table.numeric, table.categorical, …")
        elif not self.table.is_empty:
            raise ValueError(
                f"the columns of format {self.format} are known: leave `table` out, or use {', '.join(TABLES)}"
            )
        if self.table.columns and self.format not in ("csv", "tsv"):
            raise ValueError(f"table.columns names the columns of csv and tsv files; {self.format} names its own")
        if self.path is not None and self.format == "synthetic":
            raise ValueError("format synthetic makes its rows and reads no path: name the format of what lies there")
        if self.path is None and self.format not in ("movielens", "synthetic"):
            raise ValueError(f"format {self.format} needs a path")
        if self.split in ("time", "user_time") and self.format in TABLES and not self.table.timestamp:
            raise ValueError(f"split {self.split} needs table.timestamp")
        if self.split in ("user", "user_time") and self.format in TABLES and not self.table.group:
            raise ValueError(f"split {self.split} needs table.group, the column of the user")
        if min(self.shares) <= 0:
            raise ValueError("every share of `shares` (train, validation, test) must be above 0")
        return self
