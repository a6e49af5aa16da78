"""The sections about candidates: verdict, front, table, picture of the best."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from rankitect.reports.cards import Card, Cell, Figure, Link, Status, Table
from rankitect.reports.comparison import Comparison, Point, Roles, standing
from rankitect.reports.figures.architecture_picture import architecture_figure
from rankitect.reports.figures.front import front_figure
from rankitect.reports.numbers import (
    FINE,
    as_percent,
    as_value,
    compact,
    percent_range,
    plural,
    possible,
    readable_name,
    signed_percent,
)
from rankitect.reports.reading import Candidate, Metric, Run, choices_of

__all__ = ["best_of", "candidates_card", "front_card", "picture_card", "safe_link", "verdict_card"]

_NO_OBJECTIVES = "the summary names no objective."


def best_of(run: Run, comparisons: Sequence[Comparison]) -> Candidate | None:
    """The candidate to look at first: the largest gain at equal cost, or rank 1 where none can be compared."""
    if not run.summary.pareto:
        return None
    fair = [c for c in comparisons if c.how != "costlier"]
    first = min(run.summary.pareto, key=lambda candidate: candidate.rank)
    if not fair:
        return first
    rank = max(fair, key=standing).point.rank
    return next((c for c in run.summary.pareto if c.rank == rank), first)


def verdict_card(run: Run, roles: Roles | None, comparisons: Sequence[Comparison]) -> Card:
    """Did the search beat the plain baselines at equal cost, and by how much?"""
    title = "The search against plain baselines"
    count = len(run.summary.pareto)
    if roles is None or not count:
        reason = _NO_OBJECTIVES if roles is None else "the search has no candidate yet."
        return Card("verdict", title, "There is no verdict.", reason=reason)
    if not comparisons:
        reason = "the summary has no baseline with both cost and quality." if roles.cost else "no objective is a cost."
        return Card("verdict", title, f"{plural(count, 'candidate')} found; none can be compared.", reason=reason)
    wins = [c for c in comparisons if c.won]
    clear = [c for c in wins if c.separated]
    top = max(comparisons, key=standing)
    cost = "equal or higher cost" if any(c.how == "costlier" for c in comparisons) else "equal cost"
    rivals = f"the best plain baseline of {cost}"
    if top.among_models:
        rivals = f"the best baseline, {top.against}, at no more cost"
    left = count - len(comparisons)
    rest = f" {left} more cannot be compared: no baseline of such a cost, or a value is missing." if left else ""
    name = readable_name(roles.quality.name).lower()
    side = "better" if top.gain > 0 else "worse"
    what = "The best" if top.gain > 0 else "The least bad"
    finding = (
        f"{len(wins)} of {plural(len(comparisons), 'candidate')} {'beats' if len(wins) == 1 else 'beat'} {rivals}. "
        f"{what} is candidate {top.point.rank}: {name} "
        f"{as_value(top.point.quality, roles.quality.unit)} against {as_value(top.reference, roles.quality.unit)} "
        f"({as_percent(abs(top.gain))} {side}{_surely(top)}) at {roles.cost_phrase(top.point.cost)}{_dearly(top)}."
        f"{rest}"
    )
    return Card(
        "verdict",
        title,
        finding,
        how_to_read=(
            "Each candidate is held against the best baseline of the same cost. Between two measured baselines of one "
            "recipe the value is interpolated (in the logarithm), never beyond the cheapest: a "
            "candidate cheaper than every baseline counts only where it is also better. Among models of different "
            "recipes it is held against the best of all, and wins only at no more cost. Intervals are 95%; where they "
            "do not overlap, or the paired one of the gain excludes zero, the difference is clear. A paired interval "
            "is that of the relative change over the same rows and all training seeds, as in the comparison with "
            "production, turned round: a gain of 5% is a change of −5%. The winner of "
            "many noisy measurements looks a little better than it is: measure the one you choose on data that no step "
            "of the search has seen."
        ),
        status=_verdict(len(wins), len(clear), comparisons),
        reason=_why(wins, clear, comparisons, rivals),
        tables=(_comparison_table(comparisons, roles),),
    )


def _verdict(wins: int, clear: int, comparisons: Sequence[Comparison]) -> Status:
    if not wins:
        return Status.FAIL
    known = any(c.separated is not None for c in comparisons)
    if comparisons[0].among_models:  # one winner over the best of them is what was sought
        return Status.PASS if clear or not known else Status.WARN
    return Status.PASS if wins == len(comparisons) and (not known or clear) else Status.WARN


def _tone(comparison: Comparison) -> str:
    """Good is better at no more cost; better at more cost is neither."""
    return "good" if comparison.won else "bad" if comparison.gain <= 0 else ""


def _dearly(top: Comparison) -> str:
    """That a better candidate costs more, within a sentence."""
    return "" if top.won or top.gain <= 0 else f", which is more than {top.against} costs"


def _why(
    wins: Sequence[Comparison], clear: Sequence[Comparison], comparisons: Sequence[Comparison], rivals: str
) -> str:
    known = [c for c in wins if c.separated is not None]
    if not wins:
        return f"no candidate beats {rivals}"
    text = "every candidate wins" if len(wins) == len(comparisons) else f"{len(comparisons) - len(wins)} do not win"
    if not known:
        return f"{text}; no intervals were measured, so small differences may be noise"
    return f"{text}; {len(clear)} of {len(known)} with intervals win clearly"


def _comparison_table(comparisons: Sequence[Comparison], roles: Roles) -> Table:
    rows = []
    for c in comparisons:
        sure = {True: "yes", False: "no", None: "no intervals"}[c.separated]
        rows.append(
            (
                Cell("", c.point.rank, links=(Link(f"candidate {c.point.rank}", f"#candidate-{c.point.rank}"),)),
                Cell(roles.cost_text(c.point.cost), c.point.cost),
                Cell(
                    as_value(c.point.quality, roles.quality.unit),
                    c.point.quality,
                    note=_spread(c.point.ci95, roles.quality.unit),
                ),
                Cell(as_value(c.reference, roles.quality.unit), c.reference, note=f"{c.how}: {c.against}"),
                Cell(signed_percent(c.gain), c.gain, tone=_tone(c), note=_gain_spread(c.paired)),
                Cell(sure, sure),
            )
        )
    kind = "baseline, whatever it costs" if comparisons[0].among_models else "plain baseline of equal cost"
    quality = readable_name(roles.quality.name)
    names = ("Candidate", roles.cost_label, quality, f"Best baseline's {quality.lower()}", "Gain", "Clear")
    return Table(names, tuple(rows), caption=f"Against the best {kind}")


def _surely(comparison: Comparison) -> str:
    """The paired interval of the gain, within a sentence."""
    if comparison.paired is None:
        return ""
    return f" than {comparison.against}, 95% interval {percent_range(*comparison.paired)}"


def _gain_spread(paired: tuple[float, float] | None) -> str:
    return f"{signed_percent(paired[0])} to {signed_percent(paired[1])}, paired" if paired else ""


def _spread(ci95: tuple[float, float] | None, unit: str = "") -> str:
    shown = [as_value(end, unit) if unit.lower() in FINE else compact(end) for end in ci95 or ()]
    return " to ".join(shown)


def front_card(run: Run, roles: Roles | None, points: Sequence[Point]) -> Card:
    """Quality over cost, with the baselines drawn in."""
    title = "Pareto front"
    if roles is None or roles.cost is None:
        reason = _NO_OBJECTIVES if roles is None else f"a front needs a cost beside {roles.quality.name}."
        return Card("front", title, "The front cannot be drawn.", reason=reason)
    found = [p for p in points if p.kind == "candidate"]
    if not found:
        return Card("front", title, "The front cannot be drawn.", reason="no candidate has both a cost and a quality.")
    costs, values = [p.cost for p in found], [p.quality for p in found]
    finding = (
        f"{plural(len(found), 'candidate')} at {roles.cost_phrase(min(costs), max(costs))}, "
        f"{readable_name(roles.quality.name).lower()} {as_value(min(values), roles.quality.unit)} to "
        f"{as_value(max(values), roles.quality.unit)}."
    )
    drawn = {p.fingerprint for p in points}
    name = roles.cost.name
    others = [
        (t.metrics[name] / roles.scale, t.metrics[roles.quality.name])
        for t in run.searched()
        if t.state == "done"
        and t.evaluator in ("", "final")
        and t.fingerprint not in drawn
        and name in t.metrics
        and roles.quality.name in t.metrics
    ]
    side = "Down and left" if roles.quality.direction == "min" else "Up and left"
    baselines = sum(p.kind != "candidate" for p in points)
    return Card(
        "front",
        title,
        finding,
        how_to_read=(
            f"{side} is better. Numbers are ranks: click one for its row in the table. Vertical bars are 95% "
            "intervals, where they are known. Lines of baselines join one recipe at "
            "several sizes and end in the backbone; baselines are measured by the same evaluator as the candidates."
        ),
        status=Status.PASS if baselines else Status.WARN,
        reason=f"{plural(baselines, 'baseline')} drawn in"
        if baselines
        else "no baseline has both a cost and a quality, so there is nothing to compare with",
        figures=(front_figure(points, roles, others),),
    )


def candidates_card(run: Run, roles: Roles | None, comparisons: Sequence[Comparison]) -> Card:
    """Every candidate with its metrics, intervals and files, and the baselines below."""
    title = "Candidates"
    candidates = sorted(run.summary.pareto, key=lambda c: c.rank)
    if not candidates:
        return Card("candidates", title, "There are no candidates.", reason="the search has no candidate yet.")
    objectives = [o.name for o in run.summary.objectives]
    known = {name for c in candidates for name in c.metrics} | {n for b in run.summary.baselines for n in b.metrics}
    first, names = [name for name in objectives if name in known], sorted(known - set(objectives))
    gains = {c.point.rank: c for c in comparisons}
    rows = []
    for candidate in candidates:
        won = gains.get(candidate.rank)
        gain = Cell(signed_percent(won.gain), won.gain, tone=_tone(won)) if won else Cell("–")
        files = tuple(safe_link(name, path) for name, path in sorted(candidate.artifacts.items()))
        rows.append(
            (
                Cell(str(candidate.rank), candidate.rank),
                Cell(candidate.fingerprint[:8], candidate.fingerprint, note=_notes(candidate)),
                *(_metric_cell(candidate.metrics.get(name), name, roles) for name in first),
                gain,
                *(_metric_cell(candidate.metrics.get(name), name, roles) for name in names),
                Cell("" if files else "none", links=files),
            )
        )
    rows.extend(
        (
            Cell("baseline"),
            Cell(baseline.name.replace("_", " ")),
            *(_metric_cell(baseline.metrics.get(name), name, roles) for name in first),
            Cell("–"),
            *(_metric_cell(baseline.metrics.get(name), name, roles) for name in names),
            Cell(""),
        )
        for baseline in run.summary.baselines
    )
    anchors = [*(f"candidate-{c.rank}" for c in candidates), *("" for _ in run.summary.baselines)]
    repeated = sum(c.metrics.get(objectives[0], Metric()).ci95 is not None for c in candidates) if objectives else 0
    return Card(
        "candidates",
        title,
        f"{plural(len(candidates), 'candidate')} with {plural(len(first) + len(names), 'metric')} each, "
        f"{repeated or 'none'} of them with intervals; "
        f"{plural(len(run.summary.baselines), 'baseline')} below for comparison.",
        how_to_read="Click a column's title to sort. Small numbers under a value are its 95% interval and the number "
        "of repeats or examples it is a mean of; they end where the metric does (0, or 1 for AUC). Gain is against the "
        "baseline named in the section on plain baselines. Files are relative to this page.",
        status=Status.PASS if repeated == len(candidates) else Status.WARN,
        reason="every candidate has an interval"
        if repeated == len(candidates)
        else f"{len(candidates) - repeated} of {len(candidates)} have no interval: their noise is not known",
        tables=(
            Table(
                (
                    "Rank",
                    "Model",
                    *(_column(name, roles) for name in first),
                    "Gain",
                    *(_column(name, roles) for name in names),
                    "Files",
                ),
                tuple(rows),
                tuple(anchors),
            ),
        ),
    )


def _column(name: str, roles: Roles | None) -> str:
    arrow = ""
    for objective in (roles.quality, roles.cost) if roles else ():
        if objective is not None and objective.name == name:
            arrow = " ↓" if objective.direction == "min" else " ↑"
    return readable_name(name) + arrow


def _metric_cell(metric: Metric | None, name: str, roles: Roles | None) -> Cell:
    if metric is None or metric.value is None:
        return Cell("–")
    note = [_spread(possible(name, metric.ci95), metric.unit)] if metric.ci95 else []
    if metric.n and metric.n > 1:
        note.append(f"n = {metric.n}")
    if roles and roles.cost and name == roles.cost.name and roles.unit == "share" and roles.scale not in (1.0, 100.0):
        note.append(as_percent(metric.value / roles.scale))
    # A unit that the column's title already says would be noise in every row; bytes and seconds also set the format.
    said = _says(name, metric.unit) and metric.unit.lower() not in ("bytes", "seconds", *FINE)
    if roles and roles.cost and name == roles.cost.name and roles.unit == "share" and roles.scale == 1.0:
        return Cell(roles.cost_text(metric.value), metric.value, note=", ".join(note))
    return Cell(as_value(metric.value, "" if said else metric.unit), metric.value, note=", ".join(note))


def _says(name: str, unit: str) -> bool:
    """Whether a metric's name has its unit in it: "params" says parameters, "bits_per_byte" says bit/byte."""
    words, parts = name.lower().split("_"), unit.lower().replace("/", " ").split()
    return bool(parts) and all(any(w and (p[:5] == w[:5] or w.startswith(p)) for w in words) for p in parts)


def _notes(candidate: Candidate) -> str:
    notes = candidate.notes
    if isinstance(notes, list):
        notes = "; ".join(str(note) for note in notes)
    return str(notes) if notes else ""


def safe_link(name: str, path: str) -> Link:
    """A link from the report to a file of the run folder.

    Args:
        name: What to call it.
        path: Its path, relative to the run folder.

    Returns:
        The link; with no address where the path is absolute, leaves the run folder or is an address of its own (a
        summary that came from elsewhere must not make the page link to, or run, anything but the run's files).
    """
    parts = path.replace("\\", "/").split("/")
    split = urlsplit(path)
    bad = not path or split.scheme or split.netloc or path.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
    return Link(f"{name} ({path})", None) if bad else Link(name, "../" + quote("/".join(parts)))


def picture_card(run: Run, roles: Roles | None, comparisons: Sequence[Comparison]) -> Card:
    """The best candidate against the backbone, choice by choice."""
    backbone = roles.backbone if roles else None
    title = "The best candidate" + (f" against the {backbone.name}" if backbone else "")
    best = best_of(run, comparisons)
    if best is None:
        return Card("picture", title, "There is nothing to draw.", reason="the search has no candidate yet.")
    choices = choices_of(best.architecture)
    reference = run.architecture_of(backbone) if backbone else {}
    name = backbone.name if backbone else "backbone"
    figures = architecture_figure(choices, reference, name)
    graph = run.graph_of(best)
    if not figures and graph:
        # As an image, a drawing from the run folder cannot run scripts in this page.
        source = "data:image/svg+xml;base64," + base64.b64encode(graph.encode()).decode()
        image = Markup('<img class="graph" alt="graph of candidate {}" src="{}">').format(best.rank, source)
        figures = [Figure(image, Markup(""), caption="The candidate's graph.")]
    changed = [
        (path, value, reference.get(path))
        for path, value in choices.items()
        if not any(part.isdigit() for part in path.split(".")) and (value != reference.get(path) or not reference)
    ]
    tables: tuple[Table, ...] = ()
    if changed:
        rows = tuple((Cell(p), Cell(str(v), v), Cell("–" if r is None else str(r), r)) for p, v, r in changed)
        width = 3 if backbone else 2
        columns = ("Choice", f"Candidate {best.rank}", name)[:width]
        tables = (Table(columns, tuple(row[:width] for row in rows), caption="Choices of the whole model"),)
    if not figures and not tables:
        return Card(
            "picture",
            title,
            "There is nothing to draw.",
            tables=tables,
            reason="the candidate has no repeated choices, and its folder has no graph.svg.",
        )
    finding = f"Candidate {best.rank} ({best.fingerprint[:8]}). " + " ".join(f.caption for f in figures)
    if len(figures) == 1:
        figures = [replace(figures[0], caption="")]
    return Card(
        "picture",
        title,
        finding.strip(),
        how_to_read="One chart for each choice, one bar for each position from input to output. Filled bars are the "
        f"candidate, outlines are the {name}; hatched columns are left out of the candidate."
        if backbone
        else "What the candidate is: its drawing, and its choices of the whole model.",
        status=Status.PASS if reference or backbone is None else Status.WARN,
        reason="drawn as recorded; this search has no backbone to draw beside it"
        if backbone is None
        else f"drawn from the recorded choices of the candidate and the {name}"
        if reference
        else "the summary and the trials do not hold the backbone's choices, so bars stand alone",
        tables=tables,
        figures=tuple(figures),
    )
