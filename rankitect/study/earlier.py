"""What summaries of earlier versions lack, filled in where they are read, so that nobody else has to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankitect.contracts import Role
from rankitect.documents import read_json

__all__ = ["counted_rows", "up_to_date"]

_COST_WORDS = (
    "flops",
    "params",
    "parameters",
    "bytes",
    "latency",
    "memory",
    "seconds",
    "macs",
    "cost",
    "cache",
    "rows",
)
_QUALITY_WORDS = ("perplexity", "bits_per_byte", "entropy", "log_loss", "auc", "accuracy")
_ROWS = "rows"
_EXAMPLES = {"train_tokens": "train_examples", "eval_tokens": "eval_examples"}


def up_to_date(data: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with the roles of its metrics, with its reference model, and with examples counted as such.

    Summaries did not state roles at first: there they are inferred from names, and an objective whose name says nothing
    counts as quality. The reference model was known by its name alone, the backbone. What a ranker was trained on was
    counted as tokens, with `coin: rows` beside it.

    Args:
        data: summary.json of any version.
    """
    data = dict(data)
    objectives = data.get("objectives")
    names = _names(objectives)
    if isinstance(objectives, list):
        data["objectives"] = [
            _with_role(o, str(o.get("name")), names) if isinstance(o, dict) else o for o in objectives
        ]
    for holder in ("baselines", "pareto"):
        if isinstance(data.get(holder), list):
            data[holder] = [_with_roles(entry, names) for entry in data[holder]]
    if isinstance(data.get("baselines"), list):
        data["baselines"] = [_with_reference(entry) for entry in data["baselines"]]
    if isinstance(data.get("ledger"), dict):
        data["ledger"] = _ledger(data["ledger"])
    return data


def counted_rows(folder: Path) -> bool:
    """Whether the study of a run folder counted the examples of a ranker as tokens, as its summary says."""
    try:
        return bool(read_json(folder / "summary.json", dict[str, Any])["ledger"].get("coin") == _ROWS)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # none yet, or one that is damaged: it is written again


def _ledger(ledger: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger without `coin`; where that was rows, its amounts have the names of examples."""
    amounts = {name: value for name, value in ledger.items() if name != "coin"}
    if ledger.get("coin") != _ROWS:
        return amounts
    stages = amounts.get("stages")
    if isinstance(stages, dict):
        amounts["stages"] = {stage: _in_examples(v) if isinstance(v, dict) else v for stage, v in stages.items()}
    return _in_examples(amounts)


def _in_examples(amounts: Mapping[str, Any]) -> dict[str, Any]:
    """Amounts with the names of tokens replaced by those of examples."""
    return {_EXAMPLES.get(name, name): amount for name, amount in amounts.items()}


def _names(objectives: object) -> set[str]:
    given = [o for o in objectives if isinstance(o, dict)] if isinstance(objectives, list) else []
    return {str(o.get(key)) for o in given for key in ("name", "held_out") if o.get(key)}


def _with_roles(entry: Any, objectives: set[str]) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("metrics"), dict):
        return entry
    metrics = {name: _with_role(metric, name, objectives) for name, metric in entry["metrics"].items()}
    return {**entry, "metrics": metrics}


def _with_reference(entry: Any) -> Any:
    if not isinstance(entry, dict) or "reference" in entry:
        return entry
    return {**entry, "reference": "backbone" in str(entry.get("name")).lower()}


def _with_role(record: Any, name: str, objectives: set[str]) -> Any:
    if not isinstance(record, dict) or record.get("role") is not None:
        return record
    return {**record, "role": _inferred(name, name in objectives)}


def _inferred(name: str, objective: bool) -> Role:
    name = name.lower()
    if any(word in name for word in _QUALITY_WORDS):
        return "quality"
    if any(word in name for word in _COST_WORDS) or name.endswith("_ms"):
        return "cost"
    return "quality" if objective else "diagnostic"
