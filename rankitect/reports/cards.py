"""What a report is made of: cards with a finding, a table, a figure and a status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from markupsafe import Markup

from rankitect.reports.numbers import is_number

__all__ = ["DASH", "JSON", "Card", "Cell", "Figure", "Link", "Status", "Table", "finite"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


_LONGEST = 20
"""The number of rows up to which a table is shown without being asked for."""


class Status(StrEnum):
    """How a card ends: a check that holds, one to look at, one that does not hold, or nothing to say."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    NA = "NA"


@dataclass(frozen=True)
class Link:
    """A link to a file of the run folder; `href` is None where the path may not be linked to (it is shown as text)."""

    text: str
    href: str | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What is shown, units included.
        value: The number or word behind it, in the unit of the data; tables are sorted by it and report.json holds it.
        note: A second, smaller line (an interval, a count).
        tone: "good", "bad" or "" for the colour.
        links: Files to link to, after the text.
        bar: A share from 0 to 1 drawn as a bar behind the text, or None.
    """

    text: str
    value: JSON = None
    note: str = ""
    tone: str = ""
    links: tuple[Link, ...] = ()
    bar: float | None = None

    @property
    def numeric(self) -> bool:
        """Whether the cell holds a number, which is set flush right."""
        return is_number(self.value)

    def as_json(self) -> JSON:
        """The cell as data: its value, or its text where there is no other value, with links where there are."""
        shown: JSON = finite(self.value) if self.value is not None else (self.text or None)
        if not (self.note or self.links):
            return shown
        result: dict[str, JSON] = {"value": shown}
        if self.note:
            result["note"] = self.note
        if self.links:
            result["links"] = {link.text: link.href for link in self.links}
        return result


DASH = Cell("–")
"""A cell for a number that there is none of."""


@dataclass(frozen=True)
class Table:
    """A table: column titles, rows of cells, and an anchor for each row where rows are pointed at from a figure."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    anchors: tuple[str, ...] = ()
    caption: str = ""
    sortable: bool = True

    @property
    def long(self) -> bool:
        """Whether it is folded away: nothing points into it, and few read it whole."""
        return len(self.rows) > _LONGEST and not self.anchors

    def as_json(self) -> JSON:
        """The table as a list of rows, each a mapping from column title to value."""
        return [
            {name: cell.as_json() for name, cell in zip(self.columns, row, strict=True) if name or cell.text}
            for row in self.rows
        ]


@dataclass(frozen=True)
class Figure:
    """A drawing in two widths (a desk and a phone), with the numbers that it draws."""

    wide: Markup
    narrow: Markup
    caption: str = ""
    data: JSON = None


@dataclass(frozen=True)
class Card:
    """One section of a report. A card that cannot be computed stays, with status NA and the reason.

    Attributes:
        id: Stable name of the section, used as the anchor and as the key in report.json.
        title: Heading.
        short: Its name in the navigation.
        finding: What the section found, in one sentence.
        how_to_read: What the table and figure show, for someone who sees one for the first time.
        status: The verdict of the section.
        reason: Why the status is what it is.
        tables: Tables, in order.
        figures: Figures, in order.
        code: A text to be shown as it is (a command, a configuration), with its title.
        facts: What the texts were rendered from.
    """

    id: str
    title: str
    short: str
    finding: str
    how_to_read: str = ""
    status: Status = Status.NA
    reason: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    code: tuple[tuple[str, str], ...] = field(default=())
    facts: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to say but why: something is missing, and nothing is shown all the same."""
        return bool(self.facts.get("missing")) and not (self.tables or self.figures or self.code)

    def as_json(self) -> JSON:
        """The card as data, without its drawings."""
        return {
            "id": self.id,
            "title": self.title,
            "finding": self.finding,
            "how_to_read": self.how_to_read,
            "status": self.status.value,
            "reason": self.reason,
            "tables": [{"caption": table.caption, "rows": table.as_json()} for table in self.tables],
            "figures": [{"caption": figure.caption, "data": finite(figure.data)} for figure in self.figures],
            "texts": dict(self.code),
            "facts": dict(self.facts),
        }


def finite(value: JSON) -> JSON:
    """Replace what JSON cannot say (not-a-number, infinities) by null, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value
