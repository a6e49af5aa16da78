"""What became of a guard at each stage of its recipe: verdicts, bytes and speed, as data and as a page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankitect.data.files import write_whole

__all__ = ["CARD", "PAGE", "stages_page", "write_stages"]

CARD, PAGE = "stages.json", "stages.md"
SCHEMA = 1
_BEGIN = "as it begins"
_COLUMNS = ("Model", "AUC", "F1", "False positives", "Threshold", "Weights", "Parameters")


def write_stages(
    folder: Path,
    stages: Sequence[tuple[str, Mapping[str, Any] | None]],
    plain: Mapping[str, Any],
    program: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Write the card of a guard.

    Args:
        folder: Of the candidate.
        stages: For each stage its name and what was measured after it (`Moderation.stage_measure`); "" for the
            beginning. None where nothing was measured.
        plain: The figures of the plain baseline.
        program: What was measured of the program; None where there is none.

    Returns:
        Paths relative to the folder, by artifact.
    """
    measured = [{"stage": name, **dict(value)} for name, value in stages if value is not None]
    card = {"schema": SCHEMA, "kind": "stages of a guard", "stages": measured, "plain": plain, "program": program}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD, json.dumps(card, indent=1) + "\n")
    write_whole(folder / PAGE, stages_page(card))
    return {"stages": CARD, "stages_page": PAGE}


def stages_page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = ["# The guard, stage by stage", "", "| " + " | ".join(_COLUMNS) + " |", "| --- " * len(_COLUMNS) + "|"]
    for stage in card["stages"]:
        size = [f"{stage['weight_bytes'] / 1e6:.2f} MB", f"{stage['params'] / 1e6:.2f} M"]
        lines.append(_row([stage["stage"] or _BEGIN, *_figures(stage["quality"]), *size]))
    lines.append(_row(["TF-IDF and logistic regression", *_figures(card["plain"]), "–", "–"]))
    program = card["program"]
    if program is not None:
        quality = program["notes"].get("verdicts")
        size = [f"{program['bytes'] / 1e6:.2f} MB", "–"]
        lines.append(_row(["the program", *(_figures(quality) if quality else ["–"] * 4), *size]))
        lines += ["", *_program_lines(program)]
    lines += ["", "AUC by source:", ""]
    last = card["stages"][-1]["quality"] if card["stages"] else {"source": {}}
    lines += ["| Source | the last stage | TF-IDF |", "| --- | --- | --- |"]
    for source, figures in sorted(last["source"].items()):
        other = card["plain"]["source"].get(source)
        lines.append(_row([source, _value(figures["auc"]), _value(other["auc"]) if other else "–"]))
    lines += ["", "Each threshold is the one of the best F1 on the validation split, chosen anew for the model."]
    return "\n".join(lines) + "\n"


def _program_lines(program: Mapping[str, Any]) -> list[str]:
    said = []
    times, prompt = program["notes"].get("milliseconds"), program["layout"]["prompt"]
    if times:
        said.append(
            f"The program gives the verdict on an exchange of {prompt} tokens after {times['prefill'] / 1e3:.2f} s, "
            f"and reads {1e3 / times['decode']:.0f} more tokens a second, with one thread of this machine."
        )
    return said


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figures(quality: Mapping[str, Any]) -> list[str]:
    metrics = quality["metrics"]
    threshold = f"{metrics['threshold']['value']:+.2f}"
    return [*(_value(metrics[name]) for name in ("auc", "f1", "false_positive_rate")), threshold]


def _value(metric: Mapping[str, Any]) -> str:
    ends = metric.get("ci95")
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    return f"{metric['value']:.3f}{interval}"
