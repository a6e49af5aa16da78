"""The sections about the run itself: what it spent, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping

from rankitect.reports.cards import JSON, Card, Cell, Status, Table
from rankitect.reports.numbers import as_duration, as_percent, as_value, compact, plural, readable_name
from rankitect.reports.reading import Run

__all__ = ["ledger_card", "reproduce_card", "stages_of", "totals_of"]

_UNITS = {"seconds": "s", "minutes": "min", "hours": "h", "train_tokens": "tokens", "eval_tokens": "tokens"}


def stages_of(ledger: object) -> dict[str, dict[str, float]]:
    """What was spent by stage: a mapping `stages`, a list of entries with a `stage`, or a mapping of mappings.

    Args:
        ledger: The summary's ledger.

    Returns:
        Amounts by coin, by stage; empty where the ledger has no stages.
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
        for coin, amount in spent.items():
            total[coin] = total.get(coin, 0.0) + amount
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
    coins = [coin for coin in totals if coin != "minutes" or "seconds" not in totals]
    rows = []
    for stage, spent in stages.items():
        whole = {coin: sum(other.get(coin, 0.0) for other in stages.values()) for coin in coins}
        rows.append(
            (
                Cell(stage, stage),
                *(_spent_cell(spent[coin], coin, whole[coin]) if coin in spent else Cell("–") for coin in coins),
            )
        )
    rows.append((Cell("total of the search"), *(Cell(_amount(totals[coin], coin), totals[coin]) for coin in coins)))
    titles = [readable_name(coin.replace("tokens", run.coin)) for coin in coins]
    tables = [Table(("Stage", *titles), tuple(rows), sortable=False)]
    details = ledger if isinstance(ledger, Mapping) else {}
    if isinstance(details.get("trials"), Mapping):
        counted = tuple((Cell(str(k)), Cell(str(v), v)) for k, v in details["trials"].items())
        tables.append(Table(("Trials", "Count"), counted, sortable=False))
    tokens = totals.get("train_tokens", 0.0) + totals.get("eval_tokens", 0.0)
    parts = [f"{compact(tokens)} {run.coin} trained and evaluated"] if tokens else []
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
        how_to_read=f"Train {run.coin} had a gradient computed on them, eval {run.coin} only went forward. Bars are "
        "shares of the column. Baselines, and the confirmation of what was found with more seeds, are not charged to "
        "the search: its total is preparation and trials. "
        "Two methods compare fairly only at equal spending.",
        status=Status.PASS,
        reason=f"recorded for {plural(len(stages), 'stage')}" if stages else "only totals were recorded",
        tables=tuple(tables),
    )


def _spent_cell(amount: float, coin: str, whole: float) -> Cell:
    return Cell(_amount(amount, coin), amount, bar=amount / whole if whole else None)


def _dearest(stages: Mapping[str, Mapping[str, float]]) -> str:
    seconds = {stage: spent.get("seconds", 0.0) for stage, spent in stages.items()}
    whole = sum(seconds.values())
    if len(seconds) < 2 or not whole:
        return ""
    name = max(seconds, key=lambda stage: seconds[stage])
    return f" Most time went to {name} ({as_percent(seconds[name] / whole, 0)})."


def _amount(value: float, coin: str) -> str:
    unit = _UNITS.get(coin, "")
    return compact(value) if unit == "tokens" else as_value(value, unit)


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
