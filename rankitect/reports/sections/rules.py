"""Which design rules hold here: architectures that differ in one respect, measured alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from rankitect.metrics.intervals import mean_estimate
from rankitect.models.families import axes
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.latencies import recorded
from rankitect.reports.material import Material
from rankitect.reports.numbers import compact, percent_range, readable_name, signed_percent
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run
from rankitect.reports.section import Facts, Section
from rankitect.space.repeats import longest_row, repeats, running
from rankitect.study.summary import MetricSummary


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Examples(_Record):
    metric: str
    values: list[float]
    clusters: list[int]


class _Side(_Record):
    """One architecture that stands for one answer to a question, as contrasts.json has it."""

    question: str
    side: str
    fingerprint: str
    metrics: dict[str, float | None]
    examples: _Examples | None = None


@dataclass(frozen=True)
class _Answer:
    """What one question came to.

    Attributes:
        question: The question.
        best: The best side; "" where fewer than two were measured.
        next: The one that comes after it.
        lead: By how much the best is ahead, relative.
        clear: Whether the interval of the lead excludes zero; None without an interval.
        table: The evidence.
    """

    question: str
    best: str
    next: str
    lead: float
    clear: bool | None
    table: Table


class RulesSection(Section):
    """Questions of design with their evidence; only in the report of a run that asked some."""

    id, short, order = "rules", "Rules", 150

    def facts(self, material: Material) -> Facts | None:
        """Answer every question that has two sides."""
        run, roles = material.run, material.roles
        sides = recorded(run.folder / "contrasts.json", list[_Side]) or []
        counts = Counter(side.question for side in sides)
        questions = [question for question, count in counts.items() if count > 1]
        if not questions or roles is None:
            return None
        answers = [_answer(q, [s for s in sides if s.question == q], roles) for q in questions]
        clear = sum(bool(a.clear) for a in answers)
        told = [{key: value for key, value in vars(answer).items() if key != "table"} for answer in answers]
        words = {"answers": told, "clear": clear, "metric": roles.quality.name}
        tables = (*(a.table for a in answers), *_traits(run))
        return Facts(Status.PASS if clear == len(answers) else Status.WARN, words, tables)


def _answer(question: str, sides: Sequence[_Side], roles: Roles) -> _Answer:
    """The sides of a question from the best to the worst, each against the best."""
    quality = roles.quality.name
    known = [(side, value) for side in sides if (value := side.metrics.get(quality)) is not None]
    known.sort(key=lambda pair: -roles.sign * pair[1])
    latencies = [n for n in dict.fromkeys(n for s in sides for n in s.metrics) if n.endswith("_ms")]
    titles = (f"{readable_name(name.removesuffix('_ms'))}, ms" for name in latencies)
    columns = (question, readable_name(quality), "Against the best", *titles)
    if len(known) < 2:
        return _Answer(question, "", "", 0.0, None, Table(columns, ()))
    best, value = known[0]
    leads = [_lead(best, side, roles) for side, _ in known]
    reference = roles.reference.metrics if roles.reference else {}
    rows = []
    for (side, own), ends in zip(known, leads, strict=True):
        gain = roles.gain(own, value)
        cells = (_latency_cell(side.metrics.get(name), reference.get(name), roles) for name in latencies)
        note = percent_range(*ends) if ends else ""
        rows.append((Cell(side.side), Cell(compact(own), own), Cell(signed_percent(gain), gain, note=note), *cells))
    clear = None if leads[1] is None else leads[1][1] < 0
    lead = abs(roles.gain(known[1][1], value))
    return _Answer(question, best.side, known[1][0].side, lead, clear, Table(columns, tuple(rows)))


def _latency_cell(value: float | None, whole: MetricSummary | None, roles: Roles) -> Cell:
    if value is None:
        return DASH
    name = roles.reference.name if roles.reference else ""
    share = "" if whole is None or not whole.value else f"{100 * value / whole.value:.0f}% of the {name}'s"
    return Cell(compact(value), value, note=share)


def _lead(best: _Side, other: _Side, roles: Roles) -> tuple[float, float] | None:
    """The 95% interval of how much better the other side is than the best, relative; paired over examples."""
    one, two = best.examples, other.examples
    if best is other or one is None or two is None or one.metric != roles.quality.name:
        return None
    if one.clusters != two.clusters or len(one.values) != len(two.values):
        return None
    gaps = [b - a for a, b in zip(one.values, two.values, strict=True)]
    ends = mean_estimate(gaps, clusters=one.clusters).interval()
    if not all(map(math.isfinite, ends)):
        return None
    low, high = sorted(roles.sign * math.expm1(end) for end in ends)
    return low, high


def _traits(run: Run) -> Iterator[Table]:
    """What the models on the front have in common."""
    rows = []
    for candidate in sorted(run.summary.pareto, key=lambda c: c.rank):
        total, layers = len(repeats(candidate.choices)), running(candidate.choices).values()
        if not total:
            return
        rows.append((Cell(str(candidate.rank), candidate.rank), *_layers(total, list(layers))))
    columns = ("Candidate", "Layers", "Skips", "Longest row of skips", "Windows", "Mean feed-forward width")
    if rows:
        yield Table(columns, tuple(rows), caption="What the models on the front look like")


def _layers(total: int, layers: Sequence[Mapping[str, object]]) -> Iterator[Cell]:
    patterns = [own.get(axes.PATTERN) for own in layers]
    widths = [float(width) for own in layers if isinstance(width := own.get(axes.FFN), int | float)]
    row = longest_row(p == axes.SKIP for p in patterns)
    yield Cell(f"{len(layers)} of {total}", len(layers))
    for count in (patterns.count(axes.SKIP), row, patterns.count(axes.WINDOW)):
        yield Cell(str(count), count)
    mean = sum(widths) / len(widths) if widths else None
    yield Cell(compact(mean) if mean else "–", mean)


SECTION = RulesSection()
