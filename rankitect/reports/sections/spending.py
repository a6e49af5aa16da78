"""The sections about the run itself: what it spent, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping

from rankitect.reports.cards import JSON, Card, Cell, Status, Table
from rankitect.reports.numbers import as_duration, as_percent, as_value, compact, plural, readable_name
from rankitect.reports.reading import Run

__all__ = ["data_of", "ledger_card", "reproduce_card", "stages_of", "totals_of"]

_DATA = ("train_examples", "eval_examples", "train_tokens", "eval_tokens")
_COUNTS = (*_DATA, "teacher_tokens", "generated_tokens", "train_flops")
_UNITS = {"seconds": "s", "minutes": "min", "hours": "h", **dict.fromkeys(_COUNTS, "count")}


def data_of(spent: Mapping[str, float]) -> float:
    """Examples and tokens that were trained on and evaluated."""
    return sum(spent.get(name, 0.0) for name in _DATA)


def stages_of(ledger: object) -> dict[str, dict[str, float]]:
    """What was spent by stage: a mapping `stages`, a list of entries with a `stage`, or a mapping of mappings.

    Args:
        ledger: The summary's ledger.

    Returns:
        Amounts by name, by stage; empty where the ledger has no stages.
    """
    if isinstance(ledger, list):
        found = {}
        for entry in ledger:
            if isinstance(entry, Mapping) and "stage" in entry:
                found[str(entry["stage"])] = _amounts(entry)
        return found
    if not isinstance(ledger, Mapping):
        return {}
    stages = ledger.get("stages")
    if isinstance(stages, list):
        return stages_of(stages)
    if isinstance(stages, Mapping):
        return {str(name): _amounts(spent) for name, spent in stages.items() if isinstance(spent, Mapping)}
    skipped = ("trials", "budget")
    return {str(k): _amounts(v) for k, v in ledger.items() if isinstance(v, Mapping) and k not in skipped}


def totals_of(ledger: object) -> dict[str, float]:
    """What was spent in all: the ledger's own totals, or the sum over its stages."""
    own = _amounts(ledger) if isinstance(ledger, Mapping) else {}
    if own:
        return own
    total: dict[str, float] = {}
    for spent in stages_of(ledger).values():
        for name, amount in spent.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _amounts(entry: Mapping[str, object]) -> dict[str, float]:
    return {str(k): v for k, v in entry.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def ledger_card(run: Run) -> Card:
    """What was spent, by stage."""
    title = "What it cost"
    ledger = run.summary.ledger
    totals, stages = totals_of(ledger), stages_of(ledger)
    if not totals:
        return Card("ledger", title, "The spending is not known.", reason="the summary's ledger is empty.")
    spending = [totals, *stages.values()]
    names = [name for name in totals if name != "minutes" or "seconds" not in totals]
    names = [name for name in names if name not in _COUNTS or any(spent.get(name) for spent in spending)]
    rows = []
    for stage, spent in stages.items():
        whole = {name: sum(other.get(name, 0.0) for other in stages.values()) for name in names}
        rows.append(
            (
                Cell(stage, stage),
                *(_spent_cell(spent[name], name, whole[name]) if name in spent else Cell("–") for name in names),
            )
        )
    rows.append((Cell("total of the search"), *(Cell(_amount(totals[name], name), totals[name]) for name in names)))
    titles = [readable_name(name) for name in names]
    tables = [Table(("Stage", *titles), tuple(rows), sortable=False)]
    details = ledger if isinstance(ledger, Mapping) else {}
    if isinstance(details.get("trials"), Mapping):
        counted = tuple((Cell(str(k)), Cell(str(v), v)) for k, v in details["trials"].items())
        tables.append(Table(("Trials", "Count"), counted, sortable=False))
    data = data_of(totals)
    parts = [f"{compact(data)} {run.unit} trained and evaluated"] if data else []
    if "seconds" in totals:
        parts.append(f"{as_duration(totals['seconds'])} of work")
    if isinstance(details.get("minutes"), int | float):
        parts.append(f"{as_duration(60 * details['minutes'])} on the clock")
    dearest = _dearest(stages)
    ended = f" The run ended: {details['ended']}." if details.get("ended") else ""
    return Card(
        "ledger",
        title,
        ("The search spent " + ", ".join(parts or ["what the table says"]) + f".{dearest}{ended}"),
        how_to_read=f"Train {run.unit} had a gradient computed on them, eval {run.unit} only went forward. Bars are "
        "shares of the column. Baselines, and the confirmation of what was found with more seeds, are not charged to "
        "the search: its total is preparation and trials. "
        "Two methods compare fairly only at equal spending.",
        status=Status.PASS,
        reason=f"recorded for {plural(len(stages), 'stage')}" if stages else "only totals were recorded",
        tables=tuple(tables),
    )


def _spent_cell(amount: float, name: str, whole: float) -> Cell:
    return Cell(_amount(amount, name), amount, bar=amount / whole if whole else None)


def _dearest(stages: Mapping[str, Mapping[str, float]]) -> str:
    seconds = {stage: spent.get("seconds", 0.0) for stage, spent in stages.items()}
    whole = sum(seconds.values())
    if len(seconds) < 2 or not whole:
        return ""
    name = max(seconds, key=lambda stage: seconds[stage])
    return f" Most time went to {name} ({as_percent(seconds[name] / whole, 0)})."


def _amount(value: float, name: str) -> str:
    unit = _UNITS.get(name, "")
    return compact(value) if unit == "count" else as_value(value, unit)


def reproduce_card(run: Run, made: Mapping[str, JSON]) -> Card:
    """How to repeat the run, and with what it was made; `made` is what `reproduction_of` gives."""
    summary = run.summary
    facts = [
        ("Space", summary.space),
        ("Task", summary.task),
        ("Controller", summary.controller),
        ("Seed", str(summary.seed)),
    ]
    facts.append(("Hash of architecture, code, configuration, data, seeds, versions, files", str(made["hash"])))
    versions = tuple((Cell(str(k)), Cell(str(v))) for k, v in sorted(summary.versions.items()))
    code = [("Command", summary.reproduce)] if summary.reproduce else []
    if run.config:
        facts.append(("config.yaml (SHA-256)", str(made["config"])[:16]))
        code.append(("config.yaml", run.config))
    tables = [Table(("What", "Value"), tuple((Cell(k), Cell(v)) for k, v in facts), sortable=False)]
    if versions:
        tables.append(Table(("Package", "Version"), versions, caption="Versions", sortable=False))
    wanted = {"the command": summary.reproduce, "versions": versions, "config.yaml": run.config}
    missing = [name for name, there in wanted.items() if not there]
    return Card(
        "reproduce",
        "How to repeat it",
        "The command below repeats this run." if summary.reproduce else "The summary does not say how to repeat it.",
        how_to_read="With the same versions, seed and number of threads the result should be the same; on another "
        "machine floating-point sums may differ in the last digits. `python -m rankitect.verify` with this run folder "
        "recomputes the hash and every number of this page.",
        status=Status.WARN if missing else Status.PASS,
        reason=f"not recorded: {', '.join(missing)}"
        if missing
        else "command, configuration, seed and versions are recorded",
        tables=tuple(tables),
        code=tuple(code),
    )
