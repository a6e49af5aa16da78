"""The best candidate against the reference model, choice by choice."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from rankitect.reports.cards import Cell, Figure, Status, Table
from rankitect.reports.comparison import best_of
from rankitect.reports.figures.architecture import architecture_figure
from rankitect.reports.material import Material
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import CandidateSummary


class PictureSection(Section):
    """What the best candidate looks like."""

    id, short, order = "picture", "Best model", 180

    def facts(self, material: Material) -> Facts:
        """Draw the choices of the candidate over those of the reference; without any, the candidate's graph."""
        run, best = material.run, best_of(material.run, material.comparisons)
        reference = material.roles.reference if material.roles else None
        name = reference.name if reference else ""
        if best is None:
            return Facts.missing("candidates", reference=name)
        other = run.choices_of(reference)
        figures = architecture_figure(best.choices, other, name or "reference") or _graph(best, run.graph_of(best))
        tables = tuple(_whole_model(best, other, name))
        if not figures and not tables:
            return Facts.missing("drawing", reference=name)
        words = {
            "rank": best.rank,
            "fingerprint": best.fingerprint[:8],
            "captions": [figure.caption for figure in figures],
            "reference": name,
            "known": bool(other),
        }
        if len(figures) == 1:  # the finding says it
            figures = [replace(figures[0], caption="")]
        status = Status.PASS if other or not reference else Status.WARN
        return Facts(status, words, tables, tuple(figures))


def _graph(candidate: CandidateSummary, svg: str) -> list[Figure]:
    """The drawing in the candidate's folder. As an image it cannot run scripts in this page."""
    if not svg:
        return []
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    image = Markup('<img class="graph" alt="graph of candidate {}" src="{}">').format(candidate.rank, source)
    return [Figure(image, Markup(""), caption="The candidate's graph.")]


def _whole_model(candidate: CandidateSummary, other: Mapping[str, Any], name: str) -> Iterator[Table]:
    """The choices that are not of a repeated block, where they differ from the reference's."""
    changed = [
        (path, value, other.get(path))
        for path, value in candidate.choices.items()
        if not any(part.isdigit() for part in path.split(".")) and (value != other.get(path) or not other)
    ]
    rows = [(Cell(p), Cell(str(v), v), Cell("–" if r is None else str(r), r)) for p, v, r in changed]
    columns = ("Choice", f"Candidate {candidate.rank}", name)
    width = 3 if name else 2
    if rows:
        yield Table(columns[:width], tuple(row[:width] for row in rows), caption="Choices of the whole model")


SECTION = PictureSection()
