"""The page: the cards of a run, rendered as HTML, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rankitect.data.files import write_whole
from rankitect.errors import RunFolderError
from rankitect.reports.cards import JSON, Card
from rankitect.reports.layout import Layout, layout_of
from rankitect.reports.material import material_of
from rankitect.reports.reproduction import ReportCheck, compared
from rankitect.reports.run import Run, load_run
from rankitect.reports.section import Section
from rankitect.reports.sections import sections
from rankitect.reports.tiles import Tile, tiles_of

__all__ = ["Content", "content_of", "verified", "write_report"]

_SCHEMA = 1
_PAGE = "index.html"


@dataclass(frozen=True)
class Content:
    """What a report says.

    Attributes:
        cards: Its sections.
        tiles: The numbers at its head.
        reproduction: What all of it was made of.
        compared: Fingerprint of the candidate and name of the production model, where there is a comparison.
        common: The facts that several sections share.
        layout: What is shown in which order, and what is folded away.
    """

    cards: list[Card]
    tiles: list[Tile]
    reproduction: Mapping[str, JSON]
    compared: dict[str, JSON]
    common: Mapping[str, JSON]
    layout: Layout


def content_of(
    run: Run, baseline: str | None = None, candidate: str | None = None, more: Sequence[Section] = ()
) -> Content:
    """What the report of a run says; sections that cannot be computed say why.

    Args:
        run: The run.
        baseline: Name of the production model; see `rankitect.reports.case.case_of`.
        candidate: Rank or fingerprint of the candidate.
        more: Sections of other packages.

    Raises:
        RunFolderError: There is no such baseline or candidate.
        ConfigError: Two sections have one id.
    """
    material = material_of(run, baseline, candidate)
    case = material.case
    names: dict[str, JSON] = {}
    if not isinstance(case, str):
        names = {"candidate": case.prints[0], "baseline": case.production.name}
    names["asked"] = {"candidate": candidate, "baseline": baseline}  # what `verified` asks for again
    lead = material.common.lead
    ordered = sorted(sections(more), key=lambda section: section.place(lead))
    cards = [card for section in ordered if (card := section.card(material)) is not None]
    common = material.common.as_json()
    return Content(cards, tiles_of(material), material.reproduction, names, common, layout_of(cards, lead))


def verified(folder: Path, report: Mapping[str, Any], more: Sequence[Section] = ()) -> list[ReportCheck]:
    """Hold a report against its run folder.

    Args:
        folder: The run folder.
        report: What its report.json holds.
        more: The sections of other packages that it was written with.

    Raises:
        RunFolderError: The folder is not a run folder or is damaged, or the report is of an older version, or has a
            section that is neither Rankitect's nor given.
        ConfigError: Two sections have one id.
    """
    known = {section.id for section in sections(more)}
    if unknown := [card["id"] for card in report["cards"] if card["id"] not in known]:
        raise RunFolderError(
            f"The report has sections of another package ({', '.join(unknown)}). Name their classes: --sections "
            "package.module.Name"
        )
    run = load_run(folder)
    run = replace(run, name=str(report.get("folder", run.name)))
    chosen = report["compared"].get("asked", {})
    content = content_of(run, chosen.get("baseline"), chosen.get("candidate"), more)
    checks = compared(report, json.loads(json.dumps(_data(run, content))), run)
    if "folder" in report:  # else of a version that did not note under which name it was written
        checks += [_page_check(folder / "report" / n, t) for n, t in _pages(run, content, report["folder"]).items()]
    return checks


def _page_check(path: Path, expected: str) -> ReportCheck:
    """Whether a page says what report.json says."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return ReportCheck(path.name, False, f"cannot be read ({error}); write the report again")
    lines = zip_longest(text.splitlines(), expected.splitlines(), fillvalue="")
    first = next((n for n, (one, other) in enumerate(lines, 1) if one != other), None)
    return ReportCheck(path.name, first is None, "as made anew" if first is None else f"differs from line {first} on")


def write_report(
    folder: Path, baseline: str | None = None, candidate: str | None = None, more: Sequence[Section] = ()
) -> Path:
    """Write `report/index.html`, `report/report.md` and `report/report.json` into a run folder.

    Args:
        folder: The run folder.
        baseline: Name of the production model; by default what the configuration says.
        candidate: Rank or fingerprint of the candidate; by default the one with the best verdict.
        more: Sections of other packages.

    Returns:
        The path of `report/index.html`.

    Raises:
        RunFolderError: The folder is not a run folder or is damaged, or has no such baseline or candidate.
        ConfigError: Two sections have one id.
    """
    run = load_run(folder)
    content = content_of(run, baseline, candidate, more)
    place = folder / "report"
    if place.exists() and not place.is_dir():
        raise RunFolderError(f"{place} is a file, but the report is a folder of that name. Move it away.")
    place.mkdir(exist_ok=True)
    data = _data(run, content)
    # A reader never sees half a page, and a killed process leaves the old one.
    write_whole(place / "report.json", json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for name, text in _pages(run, content, str(data["folder"])).items():
        write_whole(place / name, text)
    return place / _PAGE


@cache
def _environment(escaped: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("rankitect.reports", "."),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown
    return environment


def _pages(run: Run, content: Content, folder: str) -> dict[str, str]:
    """What people read, by file: the page, and the same in Markdown."""
    page, plain = _environment(True), _environment(False)
    texts = {
        "summary": run.summary,
        "layout": content.layout,
        "tiles": content.tiles,
        "folder": folder,
        "place": run.place,
    }
    source = page.loader.get_source  # type: ignore[union-attr]
    style, script = (Markup(source(page, name)[0]) for name in ("page.css", "page.js"))
    html = page.get_template("page.html.j2").render(style=style, script=script, **texts)
    return {"report.md": plain.get_template("report.md.j2").render(**texts), _PAGE: html}


def _data(run: Run, content: Content) -> dict[str, JSON]:
    summary = run.summary
    return {
        "schema": _SCHEMA,
        "folder": run.name,
        "space": summary.space,
        "task": summary.task,
        "controller": summary.controller,
        "seed": summary.seed,
        "tiles": [{"name": t.name, "value": t.value, "note": t.note} for t in content.tiles],
        "facts": dict(content.common),
        "layout": content.layout.as_json(),
        "cards": [card.as_json() for card in content.cards],
        "compared": content.compared,
        "reproduction": dict(content.reproduction),
    }


def markdown(text: object) -> str:
    """Text made harmless inside Markdown: no tags, no table breaks, no links or emphasis of its own."""
    result = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        result = result.replace(mark, f"\\{mark}")
    return " ".join(result.split())
