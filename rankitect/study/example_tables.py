"""What a study keeps of each example, for paired comparisons in a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankitect.contracts import Trial
from rankitect.data.files import file_sha256, write_whole

__all__ = ["hashes_of_tables", "write_tables"]

_EXAMPLES, _ANSWERS, _CONTRASTS = "examples.json", "answers.json", "contrasts.json"


def write_tables(folder: Path, trials: Sequence[Trial], final: str) -> None:
    """Write examples.json, answers.json and contrasts.json, each where there is something to write.

    Args:
        folder: The run folder.
        trials: Of the study.
        final: Key of the final evaluator.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    if models := _examples(trials, final):
        write_whole(folder / _EXAMPLES, json.dumps(models) + "\n")
    if answers := _answers(trials, final):
        write_whole(folder / _ANSWERS, json.dumps(answers) + "\n")
    if sides := _contrasts(trials):
        write_whole(folder / _CONTRASTS, json.dumps(sides) + "\n")


def hashes_of_tables(folder: Path) -> dict[str, str]:
    """SHA-256 of the tables that are there, by name."""
    paths = [folder / name for name in (_EXAMPLES, _ANSWERS, _CONTRASTS)]
    return {path.name: file_sha256(path) for path in paths if path.is_file()}


def _examples(trials: Sequence[Trial], final: str) -> dict[str, Any]:
    """What the final evaluator saw of each example (`notes["examples"]`); empty where it saw none."""
    models: dict[str, Any] = {}
    more: dict[str, list[Any]] = {}
    about: dict[str, Any] = {}
    for trial in trials:
        notes = trial.measurement.notes if trial.measurement is not None and trial.evaluator == final else {}
        given = notes.get("examples")
        if not isinstance(given, dict):
            continue
        same = {"metric": given["metric"], "clusters": given["clusters"]}
        about = about or same
        fingerprint = trial.architecture.fingerprint
        if same == about and fingerprint in models and trial.duplicate_of is None:
            more.setdefault(fingerprint, []).append(given["values"])
        elif same == about:
            models.setdefault(fingerprint, given["values"])
    return {**about, "models": models, "more_seeds": more} if models else {}


def _answers(trials: Sequence[Trial], final: str) -> dict[str, Any]:
    """What each question gave the measures of the final evaluator (`notes["answers"]`), by metric; the values of a
    model's seeds one after the other. Answers to other questions than the first model's are left out."""
    tables: dict[str, Any] = {}
    for trial in trials:
        notes = trial.measurement.notes if trial.measurement is not None and trial.evaluator == final else {}
        given = notes.get("answers")
        for metric, answers in given.items() if isinstance(given, dict) else ():
            values, clusters = answers["values"], answers.get("clusters")
            of = answers.get("of", "question")  # which earlier versions did not say
            about = {
                "direction": answers["direction"], "of": of, "clusters": clusters, "count": len(values), "models": {},
            }  # fmt: skip
            table = tables.setdefault(metric, about)
            if (table["clusters"], table["count"]) != (clusters, len(values)):
                continue
            seeds = table["models"].setdefault(trial.architecture.fingerprint, [])
            if not seeds or trial.duplicate_of is None:
                seeds.append(values)
    return {name: {key: t[key] for key in ("direction", "of", "clusters", "models")} for name, t in tables.items()}


def _contrasts(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials that answer a question of design (tag `contrasts`), and what each example gave."""
    sides = []
    for trial in trials:
        for question, side in trial.tags.get("contrasts", []) if trial.ok else []:
            measurement = trial.measurement
            metrics = {} if measurement is None else {name: m.value for name, m in measurement.metrics.items()}
            examples = None if measurement is None else measurement.notes.get("examples")
            about = {"question": question, "side": side, "fingerprint": trial.architecture.fingerprint}
            sides.append({**about, "metrics": metrics, "examples": examples})
    return sides
