"""MovieLens in its published layouts: 100K (also as packed by RecBole, the default), 1M, and 20M/25M/32M/latest.

Source: Harper and Konstan 2015, "The MovieLens datasets: history and context". A rating of at least 4 counts as liked.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.data.assets import asset_path
from rankitect.data.ranking.delimited import DelimitedSource
from rankitect.data.ranking.lines import Dialect, sort_out
from rankitect.data.ranking.schema import Categorical, Label, MultiHot, Numeric, TableSchema, Timestamp
from rankitect.data.ranking.sources import Piece, Source
from rankitect.data.storage import local_path
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MovieLensSource", "open_movielens"]

_ZIP = 2  # digits kept: about the state
_USER = ("age", "gender", "occupation", "zip")
_ITEM = ("year", "genres")
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)  # the order of the flags in u.item

_Row = Mapping[str, str]


@dataclass(frozen=True)
class _Layout:
    """The files of one layout.

    Attributes:
        name: Name for reports.
        ratings: File with user, item, rating, timestamp in this order.
        users: File of users, or None where nothing is known of them.
        items: File of items.
        dialect: How the file of ratings is written.
        header: True if the ratings' first row names the columns.
        read_user: A row of the users' file as (user, columns).
        read_item: A row of the items' file as (item, columns).
    """

    name: str
    ratings: str
    users: str | None
    items: str
    dialect: Dialect
    header: bool
    read_user: Callable[[list[str]], tuple[str, _Row]] | None
    read_item: Callable[[list[str]], tuple[str, _Row]]
    delimiter: str = "\t"
    encoding: str = "utf-8"


def _user(row: list[str]) -> tuple[str, _Row]:
    return row[0], {"age": row[1], "gender": row[2], "occupation": row[3], "zip": row[4][:_ZIP]}


def _user_1m(row: list[str]) -> tuple[str, _Row]:
    return row[0], {"gender": row[1], "age": row[2], "occupation": row[3], "zip": row[4][:_ZIP]}


def _item_flags(row: list[str]) -> tuple[str, _Row]:
    genres = [genre for genre, flag in zip(_GENRES, row[5:], strict=False) if flag == "1"]
    year = row[2][-4:]
    return row[0], {"year": year if year.isdigit() else "", "genres": "|".join(genres)}


def _item_packed(row: list[str]) -> tuple[str, _Row]:
    return row[0], {"year": row[2] if row[2].isdigit() else "", "genres": row[3].replace(" ", "|")}


def _item_titled(row: list[str]) -> tuple[str, _Row]:
    year = _YEAR.search(row[1])
    genres = "" if row[2] == "(no genres listed)" else row[2]
    return row[0], {"year": year.group(1) if year else "", "genres": genres}


_TABS = Dialect("\t", None)
_PACKED = _Layout(
    "ml-100k", "ml-100k.inter", "ml-100k.user", "ml-100k.item", _TABS, True, _user, _item_packed
)  # fmt: skip
_LAYOUTS = (
    _PACKED,
    _Layout("ml-100k", "u.data", "u.user", "u.item", _TABS, False, _user, _item_flags, "|", "latin-1"),
    _Layout(
        "ml-1m", "ratings.dat", "users.dat", "movies.dat", Dialect("\t", None, join="::"), False, _user_1m,
        _item_titled, "::", "latin-1",
    ),
    _Layout("movielens", "ratings.csv", None, "movies.csv", Dialect(",", None), True, None, _item_titled, ","),
)  # fmt: skip
_RATINGS = ("user", "item", "rating", "timestamp")


@dataclass(frozen=True)
class MovieLensSource:
    """Ratings with what is known of their users and items.

    Attributes:
        layout: Which files there are.
        paths: Ratings, items, and users where there are any.
    """

    layout: _Layout
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name for reports."""
        return self.layout.name

    @property
    def files(self) -> Sequence[Path]:
        """See `Source`."""
        return self.paths

    @property
    def schema(self) -> TableSchema:
        """User, item, what is known of them, hour and weekday; age and year also as numbers."""
        user = _USER if self.layout.users else ()
        single = ("user", "item", *user, "year")
        numbers = [name for name in ("age", "year") if name in single]
        return TableSchema(
            label=Label(name="rating", at_least=4),
            numeric=tuple(Numeric(name=name) for name in numbers),
            categorical=tuple(Categorical(name=name) for name in single),
            multi_hot=(MultiHot(name="genres"),),
            timestamp=Timestamp(name="timestamp"),
            calendar=("hour", "weekday"),
            group="user",
            missing=("",),
        )

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        wanted = TableSchema(
            label=Label(name="rating"),
            categorical=(Categorical(name="user"), Categorical(name="item")),
            timestamp=Timestamp(name="timestamp"),
        )
        ratings = DelimitedSource(
            self.name, wanted, self.paths[:1], self.layout.dialect, _RATINGS, skip_first=self.layout.header
        )
        for read in ratings.pieces():
            yield lambda read=read: self._joined(read())  # type: ignore[misc]

    def _joined(self, piece: Piece) -> Piece:
        columns = dict(piece.columns)
        for key, table in self._sides.items():
            places = _places(columns[key], table["key"])
            columns |= {name: values.take(places) for name, values in table.items() if name != "key"}
        return Piece(columns, piece.file, piece.lines, piece.bad)

    @cached_property
    def _sides(self) -> dict[str, dict[str, pa.Array]]:
        layout = self.layout
        sides = {"item": _side(self.paths[1], layout, layout.read_item, _ITEM)}
        if layout.read_user is not None:
            sides["user"] = _side(self.paths[2], layout, layout.read_user, _USER)
        return sides


def open_movielens(path: str | None) -> Source:
    """MovieLens in a folder, or MovieLens-100K fetched.

    Raises:
        DataError: If the folder holds no known layout.
        AssetError: If it cannot be fetched.
    """
    if path is None:
        names = ("ml-100k-ratings", "ml-100k-items", "ml-100k-users")
        return MovieLensSource(_PACKED, tuple(asset_path(name) for name in names))
    folder = local_path(path, "task.data.path")
    for layout in _LAYOUTS:
        wanted = [folder / name for name in (layout.ratings, layout.items, layout.users) if name]
        if wanted[0].is_file():
            for file in wanted:
                if not file.is_file():
                    raise DataError(f"{folder} has {layout.ratings} but no {file.name}: unpack all of MovieLens there.")
            return MovieLensSource(layout, tuple(wanted))
    known = ", ".join(layout.ratings for layout in _LAYOUTS)
    raise DataError(f"{folder} is no MovieLens folder: it has none of {known}.")


def _side(
    file: Path, layout: _Layout, read: Callable[[list[str]], tuple[str, _Row]], names: Sequence[str]
) -> dict[str, pa.Array]:
    """A small table by key: `key` and the columns, all binary, missing where empty."""
    import pyarrow as pa

    by_key: dict[str, _Row] = {}
    for number, row in _rows(file, layout):
        if layout.header and number == 1:
            continue
        try:
            key, values = read(row)
        except IndexError as error:
            raise DataError(f"{file}, row {number}: {len(row)} columns, which is too few: {row!r}.") from error
        by_key[key] = values
    table = {"key": pa.array([key.encode() for key in by_key], pa.binary())}
    for name in names:
        texts = [values[name].strip().encode() or None for values in by_key.values()]
        table[name] = pa.array(texts, pa.binary())
    return table


def _rows(file: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    try:
        text = file.read_bytes().decode(layout.encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not {layout.encoding} text ({error}).") from error
    if layout.delimiter == ",":
        rows = sort_out(text.encode(), 1, Dialect(), str(file))
        if rows.bad:  # a quote that is not closed would swallow what follows
            raise DataError(f"{file}, row {rows.bad[0].line}: found {rows.bad[0].trouble}.")
        lines = rows.block.decode().split("\n")
        for number, line in zip(rows.lines.tolist(), lines, strict=False):
            try:
                yield number, next(csv.reader([line.rstrip("\r")]))
            except csv.Error as error:
                raise DataError(f"{file}, row {number} cannot be read ({error}).") from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r").split(layout.delimiter)


def _places(keys: pa.Array, known: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.index_in(keys, value_set=known)
