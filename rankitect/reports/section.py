"""A section of a report: facts computed in typed code, and the sentences about them in a template.

The template of the section `drift` is `drift.j2`, beside the file of its class. It has four blocks, one for each text
of the card: `title`, `reason` (of the status), `finding` (which may repeat `{{ reason }}`), and `how_to_read`. Numbers
reach it unformatted; the filters that format them are those of `rankitect.reports.numbers`. A template writes plain
text: what is rendered from it is escaped once, as HTML or as Markdown, where the page is put together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import getfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rankitect.reports.cards import Card, Figure, Status, Table
from rankitect.reports.numbers import FILTERS

if TYPE_CHECKING:
    from rankitect.reports.case import Case
    from rankitect.reports.material import Material

__all__ = ["Facts", "ProductionSection", "Section"]


@dataclass(frozen=True)
class Facts:
    """What a section found.

    Attributes:
        status: Its verdict.
        words: What the template speaks about, by the name that it has there.
        tables: Tables, in order.
        figures: Figures, in order.
        code: Texts to be shown as they are, each with its title.
    """

    status: Status
    words: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    code: tuple[tuple[str, str], ...] = ()

    @classmethod
    def missing(cls, why: str, **words: object) -> Self:
        """The facts of a section that cannot be computed.

        Args:
            why: What is missing: a key that the template tells apart, or the reason as a sentence.
            **words: What else the template needs to say so.
        """
        return cls(Status.NA, {"missing": why, **words})


class Section(ABC):
    """One section of a report.

    Attributes:
        id: Stable name: the anchor in the page, the key in report.json, and the name of the template.
        short: The name in the navigation.
        order: Its place; sections are sorted by it, and numbers are left free between any two.
    """

    id: ClassVar[str]
    short: ClassVar[str]
    order: ClassVar[int]

    @abstractmethod
    def facts(self, material: Material) -> Facts | None:
        """Compute what the section says; None leaves it out of a report that it has nothing to do with."""

    def card(self, material: Material) -> Card | None:
        """The section as a card: the facts with the sentences of the template."""
        facts = self.facts(material)
        if facts is None:
            return None
        words: dict[str, object] = {"missing": "", **facts.words}
        # The reason comes first: the finding may repeat it.
        words["reason"] = _rendered(self, "reason", words)
        texts = {block: _rendered(self, block, words) for block in ("title", "reason", "finding")}
        # There is nothing to read where something is missing.
        texts["how_to_read"] = "" if words["missing"] else _rendered(self, "how_to_read", words)
        return Card(
            id=self.id,
            short=self.short,
            status=facts.status,
            tables=facts.tables,
            figures=facts.figures,
            code=facts.code,
            **texts,
        )


class ProductionSection(Section):
    """A section about a candidate and the production model; it says why where there is no such pair."""

    def facts(self, material: Material) -> Facts | None:
        """Compute what the section says of the pair."""
        if isinstance(material.case, str):
            return Facts.missing(material.case)
        return self.facts_of(material.case)

    @abstractmethod
    def facts_of(self, case: Case) -> Facts:
        """Compute what the section says of one pair."""


@cache
def _templates(folder: Path) -> Environment:
    environment = Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=False)
    environment.filters |= FILTERS
    return environment


def _rendered(section: Section, block: str, words: Mapping[str, object]) -> str:
    """One text of a section's template, in one line however the template is broken into lines."""
    page = _templates(Path(getfile(type(section))).parent).get_template(f"{section.id}.j2")
    text = "".join(page.blocks[block](page.new_context(dict(words)))) if block in page.blocks else ""
    return " ".join(text.split())
