"""A guard of under 50 MB: what each stage of `recipe=llama_guard_int4` does to its verdicts, and its program.

The recipe runs once for every seed, on the embedded exchanges or on a mix of files (`--openai`, `--advbench`,
`--toxicity`, `--instructions`). The last program is exported again with a prefill of 512 tokens, and timed with one
thread. Targets: the INT4 student within .02 AUC of its teacher and not below TF-IDF on any source; at most 50 MB, at
least 7 times smaller than the teacher; at least 30 tokens a second, and a verdict on 512 tokens within 2.5 s.

    python benchmarks/compression_guard.py --seeds 0 1 2
    python benchmarks/compression_guard.py --openai samples-1680.jsonl.gz --advbench harmful_behaviors.csv
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import Results, table

PROMPT = 512
SECOND = 1e3


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--openai", type=Path, help="samples-1680.jsonl.gz of OpenAI's moderation set")
    parser.add_argument("--advbench", type=Path, help="harmful_behaviors.csv of AdvBench")
    parser.add_argument("--toxicity", type=Path, help="toxicity_en.csv of Surge AI")
    parser.add_argument("--instructions", type=Path, help="instruction-data.json, harmless")
    parser.add_argument("--set", nargs="*", default=[], help="more keys, such as recipe.qat.tokens=10000")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-guard"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = mixed(options)
    results = Results(options.folder / "results.jsonl")
    for seed in options.seeds:
        key = {"data": "mix" if data else "pyrit", "seed": seed, "set": sorted(options.set)}
        if results.find(**key) is None:
            results.add({**key, **one(options, data, seed)})
    told(results)


def mixed(options: argparse.Namespace) -> Path | None:
    """The files that were given, as one of JSON lines; None where there are none."""
    readers = {"openai": openai, "advbench": advbench, "toxicity": toxicity, "instructions": instructions}
    rows = [
        {**row, "source": name}
        for name, read in readers.items()
        if (path := getattr(options, name)) is not None
        for row in read(path)
    ]
    if not rows:
        return None
    target = options.folder / "mix.jsonl"
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Path(target)


def openai(path: Path) -> Iterator[dict[str, Any]]:
    """OpenAI's moderation set: unsafe where any category is."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            kinds = [name for name, value in row.items() if name != "prompt" and value == 1]
            yield {"prompt": row["prompt"], "label": int(bool(kinds)), "category": kinds[0] if kinds else ""}


def advbench(path: Path) -> Iterator[dict[str, Any]]:
    """AdvBench: all are unsafe."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {"prompt": row["goal"], "label": 1}


def toxicity(path: Path) -> Iterator[dict[str, Any]]:
    """Surge AI's comments."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {"prompt": row["text"], "label": int(row["is_toxic"] == "Toxic")}


def instructions(path: Path) -> Iterator[dict[str, Any]]:
    """Instructions with answers: all are safe."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        prompt = " ".join(part for part in (row.get("instruction", ""), row.get("input", "")) if part)
        yield {"prompt": prompt, "response": row.get("output", ""), "label": 0}


def one(options: argparse.Namespace, data: Path | None, seed: int) -> dict[str, Any]:
    """One run of the recipe, with the speed of its program at a long prefill."""
    import rankitect

    name = f"{'mix' if data else 'pyrit'}-{seed}"
    keys = ["space=mobile_llm", "recipe=llama_guard_int4", f"seed={seed}", *options.set]
    keys += [f"output_dir={options.folder / name}"]
    if data is not None:
        keys.append(f"task.data={data}")
    trained = rankitect.train(keys)
    assert trained.summary is not None
    model = trained.folder / "model"
    card = json.loads((model / "stages.json").read_text(encoding="utf-8"))
    return {"card": card, "seconds": trained.summary.computed.seconds, "long": long_program(model, options.folder)}


def long_program(model: Path, folder: Path) -> dict[str, float]:
    """Milliseconds of a program that reads 512 tokens at once, with one thread."""
    import torch

    from rankitect.deploy.artifact import PROGRAM, export
    from rankitect.models.candidate import load_language_model
    from rankitect.tasks.moderation.programs import milliseconds

    candidate = load_language_model(model)
    text = torch.arange(2 * (PROMPT + 8)).view(2, -1) % 1000
    target = folder / "long"
    export(
        target, candidate.model, candidate.tokenizer, prompt=PROMPT, capacity=PROMPT + 16, text=text,
        judge=lambda path, generator, model, floats: (_none(), {}),
    )  # fmt: skip
    return {**milliseconds(target / PROGRAM), "bytes": float((target / PROGRAM).stat().st_size)}


def _none() -> Any:
    from rankitect.deploy.quality import ProgramQuality

    return ProgramQuality("logit", 0.0, 0.0, 0, "exchanges", 1.0, 0.0)


def told(results: Results) -> None:
    """The tables, and whether each target is met."""
    for row in results.rows:
        card, long = row["card"], row["long"]
        rows = [[one["stage"] or "as it begins", *figures(one["quality"])] for one in card["stages"]]
        rows.append(["TF-IDF", *figures(card["plain"])])
        if card["program"] and card["program"]["notes"].get("verdicts"):
            rows.append(["program", *figures(card["program"]["notes"]["verdicts"])])
        title = f"{row['data']}, seed {row['seed']}: {row['seconds'] / 60:.0f} minutes"
        table(title, ["model", "AUC", "F1", "FPR"], rows, timed=False)
        by_stage = {one["stage"]: one for one in card["stages"]}
        teacher, student = by_stage["verdicts"], card["stages"][-1]
        lost = value(teacher, "auc") - value(student, "auc")
        below = [
            source
            for source, own in student["quality"]["source"].items()
            if own["auc"]["value"] < card["plain"]["source"][source]["auc"]["value"]
        ]
        size, ratio = long["bytes"], teacher["weight_bytes"] / student["weight_bytes"]
        verdicts = {
            f"student within .02 AUC of its teacher: {lost:+.3f}": lost <= 0.02,
            f"not below TF-IDF on any source: {', '.join(below) or 'none below'}": not below,
            f"at most 50 MB: {size / 1e6:.1f}": size <= 50e6,
            f"7 times smaller than the teacher: {ratio:.1f}": ratio >= 7,
            f"at least 30 tokens a second: {SECOND / long['decode']:.0f}": SECOND / long["decode"] >= 30,
            f"verdict on 512 tokens within 2.5 s: {long['prefill'] / SECOND:.2f}": long["prefill"] <= 2.5 * SECOND,
        }
        for claim, holds in verdicts.items():
            print(f"- {claim}: {'holds' if holds else 'does not hold'}")


def figures(quality: dict[str, Any]) -> list[str]:
    """AUC, F1 and false positive rate with their intervals."""
    return [shown(quality["metrics"][name]) for name in ("auc", "f1", "false_positive_rate")]


def shown(metric: dict[str, Any]) -> str:
    """A value with its interval."""
    ends = metric.get("ci95")
    return f"{metric['value']:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def value(stage: dict[str, Any], name: str) -> float:
    """A figure of a stage."""
    return float(stage["quality"]["metrics"][name]["value"])


if __name__ == "__main__":
    main()
