"""The sections of a search against a device: latencies predicted and measured, and which design rules hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rankitect.metrics.intervals import mean_estimate
from rankitect.reports.cards import JSON, Card, Cell, Figure, Status, Table
from rankitect.reports.comparison import Roles
from rankitect.reports.figures.svg import Canvas, Frame, Scale
from rankitect.reports.numbers import as_value, compact, percent_range, plural, readable_name, signed_percent
from rankitect.reports.reading import Candidate, Metric, Run, choices_of
from rankitect.space.repeats import longest_row, repeats, running

__all__ = ["latency_cards", "measured_latencies"]

_AGREED = 0.05
"""Difference between predicted and measured latency that is as good as none."""
_DELEGATED = 0.9
"""Share of operators below which a program is only partly accelerated, and slower than its layers promise."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Measured(_Record):
    p50: float
    p90: float
    p99: float
    load_ms: float
    first_ms: float
    peak_bytes: int


class _Latency(_Record):
    predicted_ms: float | None = None
    predicted_interval_ms: tuple[float, float] | None = None
    measured: _Measured
    trusted: bool
    tokens_per_second: float | None = None

    @property
    def error(self) -> float | None:
        """By how much the prediction is off, relative; None where there was none."""
        return None if self.predicted_ms is None else self.predicted_ms / self.measured.p50 - 1


class _Latencies(_Record):
    device: dict[str, str] = {}
    delegated: float | None = None
    latencies: dict[str, _Latency]


class _Examples(_Record):
    metric: str
    values: list[float]
    clusters: list[int]


class _Side(_Record):
    question: str
    side: str
    fingerprint: str
    metrics: dict[str, float | None]
    examples: _Examples | None = None


def latency_cards(run: Run, roles: Roles | None) -> list[Card]:
    """Predicted against measured latency, and design rules with their evidence; none where a run has no latencies."""
    measured = _latencies(run)
    sides = _read(run.folder / "contrasts.json", TypeAdapter(list[_Side])) or []
    cards = [_latency_card(measured)] if measured else []
    questions = [q for q, n in Counter(side.question for side in sides).items() if n > 1]
    return [*cards, _rules_card(run, roles, questions, sides)] if questions and roles else cards


def _read(path: Path, kind: TypeAdapter[Any]) -> Any:
    """What a file holds; None where it is missing or cannot be read."""
    try:
        return kind.validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def measured_latencies(run: Run, candidate: Candidate) -> dict[str, _Latency]:
    """The latencies of a candidate's exported program, by name; empty where none was measured."""
    return next((found.latencies for c, found in _latencies(run) if c is candidate), {})


def _latencies(run: Run) -> list[tuple[Candidate, _Latencies]]:
    """The candidates whose programs were measured, by rank."""
    found = []
    for candidate in sorted(run.summary.pareto, key=lambda c: c.rank):
        place = run.folder / "candidates" / f"{candidate.rank:02d}-{candidate.fingerprint[:8]}" / "latency.json"
        read = _read(place, TypeAdapter(_Latencies))
        if read is not None:
            found.append((candidate, read))
    return found


def _latency_card(measured: Sequence[tuple[Candidate, _Latencies]]) -> Card:
    every = [(c, name, one) for c, found in measured for name, one in found.latencies.items()]
    partly = [str(c.rank) for c, found in measured if found.delegated is not None and found.delegated < _DELEGATED]
    errors = [abs(one.error) for _, _, one in every if one.error is not None]
    untrusted = sum(not one.trusted for _, _, one in every)
    count, worst = plural(len(every), "latency", "latencies"), max(errors, default=0.0)
    finding = f"{count} of exported programs measured."
    apart = f"the largest difference is {signed_percent(worst).lstrip('+')}"
    if errors:
        mean = 100 * sum(errors) / len(errors)
        finding = f"Over {count} of whole exported programs, predictions were off by {mean:.1f}% on average; {apart}."
    agreed = f"all within {_AGREED:.0%}" if errors else "all settled"
    flagged = f"{plural(untrusted, 'measurement')} did not settle or met a busy machine" if untrusted else ""
    if partly:
        flagged = f"partly delegated programs: of candidates {', '.join(partly)}" + (f"; {flagged}" if flagged else "")
    return Card(
        "latency",
        "Latency: predicted and measured",
        finding,
        how_to_read=(
            "The search predicts a language model's latency as the sum over its layers, learned from single layers; a "
            "ranker's is of all that follows its embedding lookups. Measured is the exported program as a whole, in a "
            "process of its own, a reference program's drift divided out of every run. "
            "On the line, predicted and measured are equal; bars are the predictions' 95% intervals. Measured on: "
            f"{', '.join(measured[0][1].device.values())}."
        ),
        status=Status.PASS if worst <= _AGREED and not flagged else Status.WARN,
        reason=flagged or (agreed if worst <= _AGREED else apart),
        tables=(Table(_LATENCY_COLUMNS, tuple(_latency_row(*row) for row in every)),),
        figures=(_latency_figure(every),) if errors else (),
    )


_LATENCY_COLUMNS = (
    "Candidate",
    "Latency",
    "Predicted, ms",
    "Measured, ms",
    "Difference",
    "p90, ms",
    "p99, ms",
    "Tokens a second",
    "Loading, ms",
    "First run, ms",
    "Peak memory",
)


def _latency_row(candidate: Candidate, name: str, one: _Latency) -> tuple[Cell, ...]:
    low, high = one.predicted_interval_ms or (None, None)
    m, error = one.measured, one.error
    tone = "good" if error is not None and abs(error) <= _AGREED else "bad"
    return (
        Cell(str(candidate.rank), candidate.rank),
        Cell(readable_name(name.removesuffix("_ms"))),
        _number(one.predicted_ms, note="" if low is None or high is None else f"{compact(low)} to {compact(high)}"),
        _number(m.p50, note="" if one.trusted else "not settled, or machine busy"),
        Cell("–") if error is None else Cell(signed_percent(error), error, tone=tone),
        _number(m.p90),
        _number(m.p99),
        _number(one.tokens_per_second),
        _number(m.load_ms),
        _number(m.first_ms),
        Cell(as_value(m.peak_bytes, "bytes"), m.peak_bytes),
    )


def _number(value: float | None, note: str = "") -> Cell:
    return Cell("–") if value is None else Cell(compact(value), value, note=note)


def _latency_figure(every: Sequence[tuple[Candidate, str, _Latency]]) -> Figure:
    data: list[JSON] = [
        {"candidate": c.rank, "latency": name, "measured_ms": one.measured.p50, "predicted_ms": one.predicted_ms}
        for c, name, one in every
    ]
    return Figure(_latency_drawing(every, 560), _latency_drawing(every, 360), data=data)


def _latency_drawing(every: Sequence[tuple[Candidate, str, _Latency]], width: int) -> Markup:
    canvas = Canvas(width, 380, "Predicted latency over measured latency")
    points = [
        (c.rank, name, one.measured.p50, one.predicted_ms, one.predicted_interval_ms or (one.predicted_ms,) * 2)
        for c, name, one in every
        if one.predicted_ms is not None
    ]
    names = list(dict.fromkeys(name for _, name, *_ in points))
    top = max(max(m, p, ends[1]) for _, _, m, p, ends in points) * 1.06
    frame = Frame(canvas, Scale(0, top, 54, width - 16), Scale(0, top, 328, 54))
    frame.axes("Measured, ms", "Predicted, ms", compact, compact, 5)
    canvas.line(frame.x(0), frame.y(0), frame.x(top), frame.y(top), "axis")
    for index, name in enumerate(names):
        x = 10 + index * 150
        canvas.add("circle", cx=x, cy=12, r=5, class_=f"mark family{index % 4}")
        canvas.text(x + 12, 16, readable_name(name.removesuffix("_ms")), "legend")
    for rank, name, m, p, (low, high) in points:
        css = f"family{names.index(name) % 4}"
        tip = f"candidate {rank}, {name}: predicted {compact(p)}, measured {compact(m)}"
        canvas.line(frame.x(m), frame.y(max(low, 0.0)), frame.x(m), frame.y(high), f"interval {css}")
        canvas.add("circle", title=tip, cx=frame.x(m), cy=frame.y(p), r=5, class_=f"mark {css}", data_tip=tip)
    return canvas.render()


@dataclass(frozen=True)
class _Answer:
    """What one question came to.

    Attributes:
        text: In a sentence.
        clear: Whether the best side's lead over the next excludes zero.
        table: Its evidence.
    """

    text: str
    clear: bool | None
    table: Table


def _rules_card(run: Run, roles: Roles, questions: Sequence[str], sides: Sequence[_Side]) -> Card:
    answers = [_answer(q, [s for s in sides if s.question == q], roles, run) for q in questions]
    clear = sum(bool(a.clear) for a in answers)
    return Card(
        "rules",
        "Which design rules hold here",
        " ".join(a.text for a in answers),
        how_to_read=(
            "Each question is put to architectures that differ in one respect, healed alike and measured on the same "
            "text by the evaluator that the search asks. Differences are against the best side of a question, paired "
            "over windows of text, with 95% intervals. Each side is one architecture: the interval says how sure "
            "its difference is, not that another one of its kind would do the same. Latencies are predicted."
        ),
        status=Status.PASS if clear == len(answers) else Status.WARN,
        reason=f"{clear} of {plural(len(answers), 'question')} have a clear answer",
        tables=(*(a.table for a in answers), *_traits(run)),
    )


def _answer(question: str, sides: Sequence[_Side], roles: Roles, run: Run) -> _Answer:
    quality = roles.quality.name
    known = [(s, v) for s in sides if (v := s.metrics.get(quality)) is not None]
    known.sort(key=lambda pair: -roles.sign * pair[1])
    latencies = [n for n in dict.fromkeys(n for s in sides for n in s.metrics) if n.endswith("_ms")]
    columns = (question, readable_name(quality), "Against the best", *(_titled(n) for n in latencies))
    if len(known) < 2:
        return _Answer(f"{question} It was not measured.", None, Table(columns, ()))
    (best, value), rows = known[0], []
    leads = [_lead(best, side, roles) for side, _ in known]
    whole = roles.backbone.metrics if roles.backbone else {}
    for (side, own), ends in zip(known, leads, strict=True):
        gain = roles.gain(own, value)
        note = percent_range(*ends) if ends and side is not best else ""
        cells = (_latency_cell(side.metrics.get(name), whole.get(name)) for name in latencies)
        rows.append((Cell(side.side), Cell(compact(own), own), Cell(signed_percent(gain), gain, note=note), *cells))
    table = Table(columns, tuple(rows))
    ends = leads[1]
    clear = None if ends is None else ends[1] < 0
    sure = {True: "clearly", False: "not clearly", None: "without intervals"}[clear]
    lead = 100 * abs(roles.gain(known[1][1], value))
    ahead = f"{readable_name(quality).lower()} {lead:.1f}% ahead of {known[1][0].side}"
    text = f"{question} Best: {best.side}, {sure} ({ahead})."
    return _Answer(text, clear, table)


def _titled(name: str) -> str:
    return f"{readable_name(name.removesuffix('_ms'))}, ms"


def _latency_cell(value: float | None, whole: Metric | None) -> Cell:
    if value is None:
        return Cell("–")
    share = "" if whole is None or not whole.value else f"{100 * value / whole.value:.0f}% of the backbone's"
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
    low, high = sorted(roles.sign * math.expm1(end) for end in ends if math.isfinite(end)) or (None, None)
    return None if low is None or high is None else (low, high)


def _traits(run: Run) -> Iterable[Table]:
    """What the models on the front have in common."""
    rows = []
    for candidate in sorted(run.summary.pareto, key=lambda c: c.rank):
        choices = choices_of(candidate.architecture)
        total, layers = len(repeats(choices)), running(choices).values()
        if not total:
            return
        patterns = [own.get("attn") for own in layers]
        row = longest_row(p == "skip" for p in patterns)
        widths = [float(own["ffn"]) for own in layers if isinstance(own.get("ffn"), int | float)]
        mean = sum(widths) / len(widths) if widths else None
        counts = (len(layers), patterns.count("skip"), row, patterns.count("swa"))
        cells = (Cell(f"{n} of {total}" if i == 0 else str(n), n) for i, n in enumerate(counts))
        rows.append((Cell(str(candidate.rank), candidate.rank), *cells, Cell(compact(mean) if mean else "–", mean)))
    if rows:
        columns = ("Candidate", "Layers", "Skips", "Longest row of skips", "Windows", "Mean feed-forward width")
        yield Table(columns, tuple(rows), caption="What the models on the front look like")
