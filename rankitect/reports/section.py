"""A section of a report: facts computed in typed code, and the sentences about them in a template.

The template of the section `drift` is `drift.j2`, beside the file of its class. It has four blocks, one for each text
of the card: `title`, `reason` (of the status), `finding` (which may repeat `{{ reason }}`), and `how_to_read`. It sees
the facts as report.json keeps them and nothing else (`texts_of` renders a card's sentences from there again); numbers
are unformatted, and the filters that format them are those of `rankitect.reports.numbers`. What several sections speak
about is one fact for all of them: `common` (`rankitect.reports.material.Common`). A template writes plain text: what is
rendered from it is escaped once, as HTML or as Markdown, where the page is put together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import getfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rankitect.reports.cards import JSON, Card, Figure, Status, Table
from rankitect.reports.facts import plain
from rankitect.reports.numbers import FILTERS

if TYPE_CHECKING:
    from rankitect.reports.case import Case
    from rankitect.reports.common import Common, Lead
    from rankitect.reports.material import Material

_AFTER = 1000

__all__ = ["Facts", "ProductionSection", "Section", "partial"]


@dataclass(frozen=True)
class Facts:
    """What a section found.

    Attributes:
        status: Its verdict.
        words: What the template speaks about, by the name that it has there: numbers, texts, records, lists of these.
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
        search_order: Its place in a report that leads with the search, where it is another (`Common.lead`).
        judges_quality: Whether it says something of a model's quality, which no card may call right while the data are
            in doubt (`rankitect.reports.doubts`).
    """

    id: ClassVar[str]
    short: ClassVar[str]
    order: ClassVar[int]
    search_order: ClassVar[int | None] = None
    judges_quality: ClassVar[bool] = False

    def place(self, lead: Lead) -> int:
        """Its place in a report that leads with something."""
        return self.order if lead == "production" or self.search_order is None else self.search_order

    @abstractmethod
    def facts(self, material: Material) -> Facts | None:
        """Compute what the section says; None leaves it out of a report that it has nothing to do with."""

    def card(self, material: Material) -> Card | None:
        """The section as a card: the facts with the sentences of the template."""
        facts = self.facts(material)
        if facts is None:
            return None
        doubted = self.judges_quality and facts.status is Status.PASS and bool(material.common.doubts)
        words = {"missing": "", **facts.words, "doubted": doubted}
        data = {name: plain(value) for name, value in words.items()}
        return Card(
            id=self.id,
            short=self.short,
            status=Status.WARN if doubted else facts.status,
            tables=facts.tables,
            figures=facts.figures,
            code=facts.code,
            facts=data,
            **self.texts_of(data, material.common.as_json()),
        )

    def texts_of(self, facts: Mapping[str, JSON], common: Mapping[str, JSON]) -> dict[str, str]:
        """The sentences of a card, by `title`, `reason`, `finding` and `how_to_read`.

        Args:
            facts: Its facts, as report.json has them.
            common: The facts that all sections share, as report.json has them.
        """
        words: dict[str, object] = {**facts, "common": common}
        # The reason comes first: the finding may repeat it.
        reason = _rendered(self, "reason", words)
        if facts["doubted"]:
            reason = f"the data are in doubt, see Warnings; else: {reason}"
        words["reason"] = reason
        texts = {block: _rendered(self, block, words) for block in ("title", "finding")}
        # There is nothing to read where something is missing.
        how = "" if facts["missing"] else _rendered(self, "how_to_read", words)
        return {**texts, "reason": reason, "how_to_read": how}


class ProductionSection(Section):
    """A section about a candidate and the production model; it says why where there is no such pair."""

    def place(self, lead: Lead) -> int:
        """Its place; after all others in a report that leads with the search."""
        return super().place(lead) + (0 if lead == "production" else _AFTER)

    def facts(self, material: Material) -> Facts | None:
        """Compute what the section says of the pair."""
        if isinstance(material.case, str):
            return Facts.missing(material.case)
        return self.facts_of(material.case)

    @abstractmethod
    def facts_of(self, case: Case) -> Facts:
        """Compute what the section says of one pair."""


class _Environment(Environment):
    """What templates are rendered in: `fact.clear` is the entry of that name before any method of mappings."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The entry or attribute of a value."""
        return self.getitem(obj, attribute) if isinstance(obj, dict) else super().getattr(obj, attribute)


@cache
def _templates(folder: Path) -> Environment:
    environment = _Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=False)
    environment.filters |= FILTERS
    return environment


def partial(name: str, common: Common) -> str:
    """A sentence that several sections and the head of the page share, rendered from the common facts.

    Args:
        name: Of its template in `sections`.
        common: The facts.
    """
    page = _templates(Path(__file__).parent / "sections").get_template(f"{name}.j2")
    return " ".join(page.render(common=common.as_json()).split())


def _rendered(section: Section, block: str, words: Mapping[str, object]) -> str:
    """One text of a section's template, in one line however the template is broken into lines."""
    page = _templates(Path(getfile(type(section))).parent).get_template(f"{section.id}.j2")
    text = "".join(page.blocks[block](page.new_context(dict(words)))) if block in page.blocks else ""
    return " ".join(text.split())
