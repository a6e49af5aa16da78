"""The page: the cards of a run, rendered as HTML, Markdown and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rankitect.errors import RunFolderError
from rankitect.reports.cards import JSON, Card
from rankitect.reports.case import case_of
from rankitect.reports.comparison import Comparison, How, Point, Roles, compare, points_of, roles_of, standing
from rankitect.reports.numbers import as_value, compact, plural, readable_name, signed_percent
from rankitect.reports.reading import Run, load_run
from rankitect.reports.reproduction import Check, compared, reproduction_of
from rankitect.reports.sections.anytime import anytime_card
from rankitect.reports.sections.health import health_card
from rankitect.reports.sections.importance import importance_card
from rankitect.reports.sections.latency import latency_cards
from rankitect.reports.sections.production import launch_card, quality_card
from rankitect.reports.sections.production_plan import cost_card, experiment_card, model_card, rollout_card
from rankitect.reports.sections.production_rows import agreement_card, calibration_card, drift_card, slices_card
from rankitect.reports.sections.search import candidates_card, front_card, picture_card, verdict_card
from rankitect.reports.sections.spending import data_of, ledger_card, reproduce_card, totals_of
from rankitect.reports.trials import measured

__all__ = ["Content", "Tile", "content_of", "verified", "write_report"]

_SCHEMA = 1
_PAGE = "index.html"
_RIVALS: dict[How, str] = {
    "measured": "at equal cost",
    "interpolated": "at equal cost",
    "costlier": "over a costlier model",
    "cheaper": "over a cheaper model",
    "best of all": "over the best model",
    "best of all, cheaper": "over a cheaper model",
}


@dataclass(frozen=True)
class Tile:
    """A number at the head of the page, with its name and a line of context."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Content:
    """What a report says.

    Attributes:
        cards: Its sections.
        tiles: The numbers at its head.
        reproduction: What all of it was made of.
        compared: Fingerprint of the candidate and name of the production model, where there is a comparison.
    """

    cards: list[Card]
    tiles: list[Tile]
    reproduction: dict[str, JSON]
    compared: dict[str, JSON]


def content_of(run: Run, baseline: str | None = None, candidate: str | None = None) -> Content:
    """What the report of a run says; sections that cannot be computed say why.

    Args:
        run: The run.
        baseline: Name of the production model; see `rankitect.reports.case.case_of`.
        candidate: Rank or fingerprint of the candidate.

    Returns:
        In its cards the production comparison (launch, quality, calibration, slices, drift, agreement, cost,
        experiment, rollout, model), then the search (verdict, front, candidates, latency and rules of a search
        against a device, anytime, importance, picture, health, ledger and reproduce).

    Raises:
        RunFolderError: There is no such baseline or candidate.
    """
    roles = roles_of(run)
    points = points_of(run, roles) if roles else []
    comparisons = compare(points, roles, run) if roles else []
    case = case_of(run, roles, comparisons, baseline, candidate)
    made = reproduction_of(run, case)
    cards = [
        launch_card(case),
        quality_card(case),
        calibration_card(case),
        slices_card(case),
        drift_card(case),
        agreement_card(case),
        cost_card(case),
        experiment_card(case),
        rollout_card(case),
        model_card(case),
        verdict_card(run, roles, comparisons),
        front_card(run, roles, points),
        candidates_card(run, roles, comparisons),
        *latency_cards(run, roles),
        anytime_card(run, roles),
        importance_card(run, roles),
        picture_card(run, roles, comparisons),
        health_card(run, roles),
        ledger_card(run),
        reproduce_card(run, made),
    ]
    names: dict[str, JSON] = (
        {} if isinstance(case, str) else {"candidate": case.prints[0], "baseline": case.production.name}
    )
    names |= {"asked": {"candidate": candidate, "baseline": baseline}}  # what `verified` asks for again
    return Content(cards, _tiles(run, roles, points, comparisons), made, dict(names))


def verified(folder: Path, report: Mapping[str, Any]) -> list[Check]:
    """Hold a report against its run folder.

    Args:
        folder: The run folder.
        report: What its report.json holds.

    Raises:
        RunFolderError: The folder is not a run folder or is damaged, or the report is of an older version.
    """
    run = load_run(folder)
    chosen = report["compared"].get("asked", {})
    content = content_of(run, chosen.get("baseline"), chosen.get("candidate"))
    checks = compared(report, json.loads(json.dumps(_data(run, content))), run)
    if "folder" in report:  # else of a version that did not note under which name it was written
        checks += [_page_check(folder / "report" / n, t) for n, t in _pages(run, content, report["folder"]).items()]
    return checks


def _page_check(path: Path, expected: str) -> Check:
    """Whether a page says what report.json says."""
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Check(path.name, False, f"cannot be read ({error}); write the report again")
    lines = zip_longest(found.splitlines(), expected.splitlines(), fillvalue="")
    first = next((n for n, (one, other) in enumerate(lines, 1) if one != other), None)
    return Check(path.name, first is None, "as made anew" if first is None else f"differs from line {first} on")


def write_report(folder: Path, baseline: str | None = None, candidate: str | None = None) -> Path:
    """Write `report/index.html`, `report/report.md` and `report/report.json` into a run folder.

    Args:
        folder: The run folder.
        baseline: Name of the production model; by default what the configuration says.
        candidate: Rank or fingerprint of the candidate; by default the one with the best verdict.

    Returns:
        The path of `report/index.html`.

    Raises:
        RunFolderError: The folder is not a run folder or is damaged, or has no such baseline or candidate.
    """
    run = load_run(folder)
    content = content_of(run, baseline, candidate)
    place = folder / "report"
    if place.exists() and not place.is_dir():
        raise RunFolderError(f"{place} is a file, but the report is a folder of that name. Move it away.")
    place.mkdir(exist_ok=True)
    data = _data(run, content)
    _write(place / "report.json", json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for name, text in _pages(run, content, str(data["folder"])).items():
        _write(place / name, text)
    return place / _PAGE


def _pages(run: Run, content: Content, folder: str) -> dict[str, str]:
    """What people read, by file: the page, and the same in Markdown."""
    page, plain = (
        Environment(
            loader=PackageLoader("rankitect.reports", "."),
            autoescape=escaped,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for escaped in (True, False)
    )
    plain.filters["md"] = markdown
    texts = {"summary": run.summary, "cards": content.cards, "tiles": content.tiles, "folder": folder}
    source = page.loader.get_source  # type: ignore[union-attr]
    style, script = (Markup(source(page, name)[0]) for name in ("page.css", "page.js"))
    html = page.get_template("page.html.j2").render(style=style, script=script, **texts)
    return {"report.md": plain.get_template("report.md.j2").render(**texts), _PAGE: html}


def _write(path: Path, text: str) -> None:
    """Write at once or not at all: a reader never sees half a page, and a killed process leaves the old one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _data(run: Run, content: Content) -> dict[str, JSON]:
    summary = run.summary
    return {
        "schema": _SCHEMA,
        "folder": run.folder.resolve().name,
        "space": summary.space,
        "task": summary.task,
        "controller": summary.controller,
        "seed": summary.seed,
        "tiles": [{"name": t.name, "value": t.value, "note": t.note} for t in content.tiles],
        "cards": [card.as_json() for card in content.cards],
        "compared": content.compared,
        "reproduction": content.reproduction,
    }


def markdown(text: object) -> str:
    """Text made harmless inside Markdown: no tags, no table breaks, no links or emphasis of its own."""
    result = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        result = result.replace(mark, f"\\{mark}")
    return " ".join(result.split())


def _tiles(run: Run, roles: Roles | None, points: Sequence[Point], comparisons: Sequence[Comparison]) -> list[Tile]:
    """The four numbers at the head: best gain, the front's span, models measured, what was spent."""
    tiles = []
    if roles:
        tiles.append(_gain_tile(comparisons, roles))
        costs = [p.cost for p in points if p.kind == "candidate"]
        span = roles.cost_phrase(min(costs), max(costs)) if costs else "best in the objectives"
        tiles.append(Tile("Pareto candidates", str(len(run.summary.pareto)), span))
    searched = run.searched()
    if searched:
        tiles.append(Tile("Models measured", str(len(measured(searched))), f"in {plural(len(searched), 'trial')}"))
    totals = totals_of(run.summary.ledger)
    data = data_of(totals)
    if totals:
        time = as_value(totals.get("seconds"), "s")
        tiles.append(Tile("Spent", time, f"{compact(data)} {run.unit}" if data else "by the search"))
    return tiles


def _gain_tile(comparisons: Sequence[Comparison], roles: Roles) -> Tile:
    if not comparisons:
        return Tile("Best gain", "–", "no baseline to compare with")
    top = max(comparisons, key=standing)
    note = (
        f"{readable_name(roles.quality.name).lower()}, candidate {top.point.rank} at {roles.cost_text(top.point.cost)}"
    )
    if top.how not in ("measured", "interpolated"):
        note += f" against {top.against}"
    return Tile(f"Best gain {_RIVALS[top.how]}", signed_percent(top.gain), note)
