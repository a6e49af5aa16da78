"""A run folder as a search of `mobile_llm` leaves it, made up but of the usual size, and the same every time."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

from rankitect.reports import write_report

COMPARISON = ["launch", "quality", "calibration", "slices", "drift", "agreement", "cost", "experiment", "rollout"]
"""The cards of a comparison with production, in the page's order."""
LAYERS = 30
FFN = [512, 768, 1024, 1280, 1536]
BACKBONE = {
    "d_model": 576,
    **{
        f"layers.{i}.{name}": value
        for i in range(LAYERS)
        for name, value in (("runs", 1), ("attn", "full"), ("kv_heads", 3), ("group", 3), ("ffn", 1536))
    },
}
# Block FLOPs as a share of the backbone's, perplexity, half the width of its interval.
CANDIDATES = [
    (0.95, 19.4, 0.15),
    (0.86, 20.3, 0.2),
    (0.75, 21.9, 0.2),
    (0.68, 23.8, 0.25),
    (0.6, 26.4, 0.3),
    (0.52, 30.7, 0.4),
    (0.45, 38.2, 0.6),
]
BASELINES = [
    ("backbone", 1.0, 19.1),
    ("uniform width 90%", 0.9, 20.2),
    ("uniform width 75%", 0.75, 24.0),
    ("uniform width 60%", 0.6, 31.5),
    ("uniform width 50%", 0.5, 41.0),
    ("uniform depth 80%", 0.8, 25.5),
    ("uniform depth 60%", 0.6, 36.6),
    ("uniform depth 50%", 0.5, 47.9),
]
METRICS = ("perplexity", "block_flops", "parameters", "weight_bytes")


def pruned(share: float, seed: int) -> dict[str, Any]:
    """An architecture of about this share of the backbone's block FLOPs: the middle layers suffer most."""
    dice, choices = random.Random(seed), dict(BACKBONE)
    for i in range(LAYERS):
        want = share + 0.25 * abs(i - 14.5) / 15 - 0.12 + dice.uniform(-0.1, 0.1)
        if want < 0.42 and dice.random() < 0.7:
            for name in ("attn", "kv_heads", "group", "ffn"):
                del choices[f"layers.{i}.{name}"]
            choices[f"layers.{i}.runs"] = 0
            continue
        choices[f"layers.{i}.ffn"] = min(FFN, key=lambda width: abs(width / 1536 - want))
        choices[f"layers.{i}.kv_heads"] = 3 if want > 0.7 else 2
        choices[f"layers.{i}.group"] = 3 if want > 0.5 else 2
        choices[f"layers.{i}.attn"] = "full" if want > 0.62 else ("window" if want > 0.5 else "skip")
        if choices[f"layers.{i}.attn"] == "skip":
            del choices[f"layers.{i}.kv_heads"], choices[f"layers.{i}.group"]
    return choices


def architecture(choices: dict[str, Any]) -> dict[str, Any]:
    return {"space": "mobile_llm", "version": "1", "choices": choices}


def fingerprint(choices: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(architecture(choices), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def metrics(share: float, perplexity: float, half: float = 0.0) -> dict[str, Any]:
    spread = {"n": 3, "ci95": [round(perplexity - half, 3), round(perplexity + half, 3)]} if half else {}
    return {
        "perplexity": {"value": perplexity, "unit": "perplexity", "role": "quality", **spread},
        "block_flops": {"value": 5.6e10 * share, "unit": "FLOPs", "role": "cost"},
        "parameters": {"value": 28.3e6 + 106.2e6 * share, "unit": "parameters", "role": "cost"},
        "weight_bytes": {"value": 4 * (28.3e6 + 106.2e6 * share), "unit": "bytes", "role": "cost"},
    }


def summary() -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "schema": 1,
        "space": "mobile_llm",
        "task": "language",
        "controller": "dnas",
        "seed": 0,
        "objectives": [
            {"name": "perplexity", "unit": "perplexity", "direction": "min", "role": "quality"},
            {"name": "block_flops", "unit": "FLOPs", "direction": "min", "role": "cost"},
        ],
        "baselines": [
            {
                "name": name,
                "fingerprint": fingerprint(baseline(name, share)),
                "metrics": metrics(share, perplexity, 0.012 * perplexity),
                "reference": name == "backbone",
            }
            for name, share, perplexity in BASELINES
        ],
        "pareto": [
            {
                "rank": rank,
                "fingerprint": fingerprint(pruned(share, rank)),
                "architecture": architecture(pruned(share, rank)),
                "metrics": metrics(share, perplexity, half),
                "artifacts": {
                    name: f"candidates/{rank:02d}-{fingerprint(pruned(share, rank))[:8]}/{file}"
                    for name, file in (("architecture", "architecture.json"), ("weights", "w.safetensors"))
                },
            }
            for rank, (share, perplexity, half) in enumerate(CANDIDATES, 1)
        ],
        "ledger": {
            "train_tokens": 507904,
            "eval_tokens": 3112960,
            "latency_measurements": 0,
            "seconds": 1338.4,
            "stages": {
                "prepare": {"train_tokens": 163840, "eval_tokens": 344064, "latency_measurements": 0, "seconds": 462.0},
                "trials": {"train_tokens": 344064, "eval_tokens": 2768896, "latency_measurements": 0, "seconds": 876.4},
                "baselines": {
                    "train_tokens": 344064,
                    "eval_tokens": 393216,
                    "latency_measurements": 0,
                    "seconds": 548.1,
                },
            },
            "trials": {"done": 55, "failed": 2, "duplicates": 6, "waiting": 0},
            "minutes": 31.7,
            "ended": "the controller has no more proposals",
        },
        "versions": {"rankitect": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"},
        "reproduce": "python -m rankitect.search space=mobile_llm controller=dnas seed=0",
    }


def baseline(name: str, share: float) -> dict[str, Any]:
    if name == "backbone":
        return dict(BACKBONE)
    ffn = 64 * round(24 * share)
    return {path: ffn if path.endswith(".ffn") else value for path, value in BACKBONE.items()}


def trials() -> list[dict[str, Any]]:
    """The rows of trials.csv: baselines, 48 screened models, the candidates healed."""
    dice, rows = random.Random(7), []

    def add(evaluator: str, choices: dict[str, Any], found: dict[str, Any], **more: Any) -> None:
        spent = {"screen": (0, 49152, 6.1), "final": (49152, 32768, 71.3)}[evaluator]
        row = {
            "number": len(rows) + 1,
            "batch": 1,
            "state": "DONE",
            "evaluator": evaluator,
            "seed": 0,
            "fingerprint": fingerprint(choices),
            "baseline": "",
            "duplicate_of": "",
            "attempts": 1,
            "cause": "",
            "train_tokens": spent[0],
            "eval_tokens": spent[1],
            "latency_measurements": 0,
            "seconds": spent[2],
            "tags": "{}",
            "architecture": json.dumps(architecture(choices), sort_keys=True, separators=(",", ":")),
        }
        row |= {name: found[name]["value"] for name in METRICS if name in found}
        rows.append(row | more)

    for name, share, perplexity in BASELINES:
        add("final", baseline(name, share), metrics(share, perplexity), baseline=name)
    for i in range(48):
        share = round(dice.uniform(0.42, 0.97), 3)
        choices = pruned(share, 100 + i)
        skipped = sum(value == "skip" for value in choices.values())
        early = sum(choices.get(f"layers.{j}.ffn", 0) for j in range(8)) / (8 * 1536) - share
        worth = 18.5 * math.exp(2.6 * (1 - share) ** 1.2 * (1.25 - 0.007 * i))
        # The last layer's attention matters more than its cost says: one choice that the report should find.
        if choices["layers.29.attn"] != "skip":
            choices["layers.29.attn"] = "full" if i % 2 else "window"
            worth *= 1.0 if i % 2 else 1.25
        worth *= (1 - 0.5 * early) * (1 + 0.02 * skipped + dice.uniform(0, 0.08))
        if i in (11, 29):
            cause = "the loss is not a number at step 3" if i == 11 else "out of memory"
            add("screen", choices, {}, state="FAILED", cause=cause)
        else:
            add("screen", choices, metrics(share, round(worth, 3)))
    for i in range(6):
        first = rows[len(BASELINES) + i]
        rows.append(
            first
            | {
                "number": len(rows) + 1,
                "duplicate_of": first["number"],
                "train_tokens": 0,
                "eval_tokens": 0,
                "seconds": 0.0,
                "attempts": 0,
            }
        )
    for rank, (share, perplexity, _) in enumerate(CANDIDATES, 1):
        add("final", pruned(share, rank), metrics(share, perplexity))
    for i, (share, perplexity) in enumerate(((0.64, 27.5), (0.8, 22.0))):
        add("final", pruned(share, 50 + i), metrics(share, perplexity))
    return rows


def write_example(folder: Path) -> Path:
    """Write summary.json, trials.csv and config.yaml into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary(), indent=2), encoding="utf-8")
    (folder / "config.yaml").write_text(
        "space: {name: mobile_llm}\ncontroller: {name: dnas}\nseed: 0\n", encoding="utf-8"
    )
    write_trials(folder, trials())
    return folder


def write_trials(folder: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    import sys

    print(write_example(Path(sys.argv[1])))


def change(run: Path, **keys: Any) -> dict[str, Any]:
    """Write the example's summary with some keys replaced."""
    data = summary() | keys
    (run / "summary.json").write_text(json.dumps(data), encoding="utf-8")
    return data


def report(run: Path) -> dict[str, Any]:
    """What report.json holds."""
    return json.loads((write_report(run).parent / "report.json").read_text(encoding="utf-8"))


def card(run: Path, name: str) -> dict[str, Any]:
    """One of its cards."""
    return next(c for c in report(run)["cards"] if c["id"] == name)
