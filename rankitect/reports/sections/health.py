"""Health of a search: choices at their limits, duplicates, models that broke the constraints, failures by cause."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankitect.reports.cards import JSON, Card, Cell, Status, Table
from rankitect.reports.comparison import Roles
from rankitect.reports.numbers import as_percent, plural
from rankitect.reports.reading import Run, choices_of

__all__ = ["Boundary", "boundaries_of", "health_card"]

_TITLE = "Health of the search"
_INDEX = re.compile(r"\.\d+\.")
_AT_LIMIT, _FAILED, _DUPLICATE, _INFEASIBLE = 0.5, 0.1, 0.5, 0.5


@dataclass(frozen=True)
class Boundary:
    """How often a numeric choice of the candidates sits at its smallest or largest value.

    Attributes:
        name: The choice, with `*` for the index of a repeated block.
        low: Smallest value.
        high: Largest value.
        at_low: Share of the live choices at the smallest.
        at_high: Share of the live choices at the largest.
        native: Whether the largest is the backbone's own, which no pruned model can exceed.
        offered: Whether the limits are those of the space; otherwise they are those of all trials.
    """

    name: str
    low: float
    high: float
    at_low: float
    at_high: float
    native: bool
    offered: bool

    @property
    def suspicious(self) -> bool:
        """Whether half of the candidates' choices or more are at a limit that the space could widen."""
        return self.at_low >= _AT_LIMIT or (self.at_high >= _AT_LIMIT and not self.native)


def health_card(run: Run, roles: Roles | None) -> Card:
    """Check what usually goes wrong in a search.

    Args:
        run: The run.
        roles: What is quality and what is cost; used for the backbone.

    Returns:
        The card: WARN for each check beyond its limit, FAIL where most trials failed, NA without trials and candidates.
    """
    reference = run.architecture_of(roles.backbone) if roles and roles.backbone else {}
    boundaries = boundaries_of(run, reference)
    if not run.trials and not boundaries:
        return Card("health", _TITLE, "The health of the search cannot be told.", reason=f"{run.trials_note}.")
    rows, worst = _trial_checks(run)
    hits = [b for b in boundaries if b.suspicious]
    rows.append(
        _check(
            "Choices at a limit that could be widened",
            str(len(hits)),
            len(hits),
            bool(hits),
            ", ".join(b.name for b in hits) if hits else "none" if boundaries else "no numeric choices to look at",
        )
    )
    status = Status.FAIL if worst else (Status.WARN if any(row[2].text == "look" for row in rows) else Status.PASS)
    bad = [row[0].text.lower() for row in rows if row[2].text == "look"]
    causes = Counter(t.cause or "no cause recorded" for t in run.searched() if t.state == "failed")
    tables = [Table(("Check", "Found", "Verdict", "What it means"), tuple(rows), sortable=False)]
    if causes:
        tables.append(
            Table(
                ("Cause of failure", "Trials"),
                tuple((Cell(cause), Cell(str(count), count)) for cause, count in causes.most_common()),
                caption="Failures by cause",
            )
        )
    if boundaries:
        tables.append(_boundary_table(boundaries))
    return Card(
        "health",
        _TITLE,
        "Nothing unusual was found." if not bad else f"To look at: {'; '.join(bad)}.",
        how_to_read=(
            "Each check has a limit beyond which a search usually deserves a second look. A choice whose candidates "
            "sit at the smallest or largest value suggests that a wider space would give better models; at the "
            "backbone's own size there is nothing to widen."
        ),
        status=status,
        reason="most trials failed"
        if worst
        else (plural(len(bad), "check") + " beyond its limit" if bad else "every check is within its limit"),
        tables=tuple(tables),
    )


def _check(name: str, found: str, value: JSON, look: bool, meaning: str) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(found, value),
        Cell("look" if look else "ok", tone="bad" if look else "good"),
        Cell(meaning),
    )


def _trial_checks(run: Run) -> tuple[list[tuple[Cell, ...]], bool]:
    trials = run.searched()
    total = len(trials)
    if not total:
        return [_check("Trials", "0", 0, True, f"{run.trials_note}; only the candidates could be checked")], False
    counts = Counter(t.state for t in trials)
    failed, infeasible = counts["failed"], counts["infeasible"]
    open_ = total - counts["done"] - failed - infeasible
    duplicates = sum(t.duplicate for t in trials)

    def share(count: int) -> str:
        return f"{count} ({as_percent(count / total, 0)})" if count else "0"

    rows = [
        _check("Trials", str(total), total, False, f"{counts['done']} finished"),
        _check(
            "Failed",
            share(failed),
            failed,
            failed > _FAILED * total,
            f"the limit is {as_percent(_FAILED, 0)}; causes below" if failed else "no trial failed",
        ),
        _check(
            "Not finished",
            share(open_),
            open_,
            bool(open_),
            "interrupted; repeating the command measures them again" if open_ else "every trial has an end",
        ),
        _check(
            "Duplicates",
            share(duplicates),
            duplicates,
            duplicates > _DUPLICATE * total,
            "proposals already measured; their results were reused" if duplicates else "no model was proposed twice",
        ),
        _check(
            "Infeasible",
            share(infeasible),
            infeasible,
            infeasible > _INFEASIBLE * total,
            "proposals beyond the constraints" if infeasible else "no proposal was recorded as beyond the constraints",
        ),
    ]
    return rows, failed > 0.5 * total


def boundaries_of(run: Run, reference: Mapping[str, JSON]) -> list[Boundary]:
    """How often the candidates' numeric choices are at their limits, by choice over all positions of repeated blocks.

    Limits are the space's where the summary has `choices`, otherwise the smallest and largest value in any trial.

    Args:
        run: The run.
        reference: The backbone's choices by path; may be empty.

    Returns:
        One entry a choice with more than one value, the most at a limit first.
    """
    candidates = [choices for c in run.summary.pareto if (choices := choices_of(c.architecture))]
    offered = {path: [v for v in values if _is_number(v)] for path, values in run.summary.choices.items()}
    seen: dict[str, list[float]] = {}
    everything: list[Mapping[str, JSON]] = [*candidates, *(t.choices for t in run.trials), reference]
    for known in everything:
        for path, value in known.items():
            if _is_number(value):
                seen.setdefault(path, []).append(float(value))  # type: ignore[arg-type]
    grouped: dict[str, list[tuple[float, float, float, bool]]] = {}
    for choices in candidates:
        for path, value in choices.items():
            limits = offered.get(path) or seen.get(path, [])
            if _is_number(value) and limits and min(limits) < max(limits):
                low, high = float(min(limits)), float(max(limits))
                own = reference.get(path)
                native = _is_number(own) and float(own) >= high  # type: ignore[arg-type]
                row = (float(value), low, high, native)  # type: ignore[arg-type]
                grouped.setdefault(_INDEX.sub(".*.", path), []).append(row)
    result = [
        Boundary(
            name,
            min(low for _, low, _, _ in rows),
            max(high for _, _, high, _ in rows),
            sum(value <= low for value, low, _, _ in rows) / len(rows),
            sum(value >= high for value, _, high, _ in rows) / len(rows),
            all(native for *_, native in rows),
            any(_INDEX.sub(".*.", path) == name for path in offered),
        )
        for name, rows in grouped.items()
        # "Runs or not" and the like have nothing between their limits.
        if not (rows[0][1] == 0 and rows[0][2] <= 2)
    ]
    return sorted(result, key=lambda b: (not b.suspicious, -max(b.at_low, b.at_high)))


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boundary_table(boundaries: Sequence[Boundary]) -> Table:
    rows = tuple(
        (
            Cell(b.name),
            Cell(f"{b.low:g} to {b.high:g}", note="offered" if b.offered else "seen in trials"),
            Cell(as_percent(b.at_low, 0), b.at_low, bar=b.at_low, tone="bad" if b.at_low >= _AT_LIMIT else ""),
            Cell(
                as_percent(b.at_high, 0),
                b.at_high,
                bar=b.at_high,
                note="the backbone's own size" if b.native else "",
                tone="bad" if b.at_high >= _AT_LIMIT and not b.native else "",
            ),
        )
        for b in boundaries
    )
    return Table(
        ("Choice", "Range", "Candidates at the smallest", "Candidates at the largest"),
        rows,
        caption="Candidates at the limits of numeric choices",
    )
