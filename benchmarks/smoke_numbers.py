"""The numbers of a smoke run of every controller on every space, to compare two versions of the code to the digit.

    python benchmarks/smoke_numbers.py out=before.json
    python benchmarks/smoke_numbers.py out=after.json against=before.json

Every run is one process with one thread. What a version adds to summary.json is no difference; times are left out. The
digits are those of one machine: compare files that were made on the same one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SPACES = ("mobile_llm", "ranking_blocks", "ranking_engineered")
CONTROLLERS = ("random", "evolution", "bayesian", "reinforce", "one_shot", "sigeo", "dnas", "staged", "sampled")
LEFT_OUT = (
    "seconds",
    "minutes",
    "versions",
    "reproduce",
    "hash",
    "checksum",
    "trials.csv",
    "_ms",
    "created",
    "date",
    "time",
    "host",
    "machine",
)
"""Parts of the names of keys whose values are of a run and not of what it found."""


def run(space: str, controller: str) -> dict[str, Any]:
    """One smoke run: the numbers of its summary and of all its trials."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        keys = [f"space={space}", f"controller={controller}", "preset=smoke", f"output_dir={folder}"]
        if controller == "staged":
            keys.append("device=analytic")  # no time is measured
            if space != "mobile_llm":
                keys += ["evaluator=ranking"]
        command = [sys.executable, "-m", "rankitect.search", *keys, "runner.threads=1", "report.page=false"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            return {"exit code": done.returncode, "said": done.stderr.strip().splitlines()[-1:]}
        summary = json.loads((folder / "summary.json").read_text())
        return {"summary": _kept(summary), "trials": (folder / "trials.csv").read_text().splitlines()}


def _in_examples(result: dict[str, Any]) -> dict[str, Any]:
    """A result of a version that counted the examples of rankers as tokens, with the names of now.

    That version also left a file with each candidate, paired.json, that nothing read.
    """
    ledger = result.get("summary", {}).get("ledger", {})
    for candidate in result.get("summary", {}).get("pareto", []):
        candidate["artifacts"].pop("paired", None)
    if ledger.pop("coin", "tokens") == "rows":
        for amounts in (ledger, *ledger["stages"].values()):
            amounts |= {
                name.replace("tokens", "examples"): amounts.pop(name) for name in ("train_tokens", "eval_tokens")
            }
        header, *rows = result["trials"]
        result["trials"] = [header.replace("_tokens", "_examples"), *rows]
    return result


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _kept(v) for k, v in value.items() if not any(part in k for part in LEFT_OUT)}
    return [_kept(item) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Where two results differ; what only the later one has is none."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{at}.{key} is gone"
            else:
                yield from differences(value, after[key], f"{at}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and at.endswith(".trials"):
        yield from _trials(before, after, at)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{at}[{i}]")
    elif before != after:
        yield f"{at}: {before!r} is now {after!r}"


def _trials(before: list[str], after: list[str], at: str) -> Iterator[str]:
    import csv

    old, new = list(csv.DictReader(before)), list(csv.DictReader(after))
    if len(old) != len(new):
        yield f"{at}: {len(old)} trials are now {len(new)}"
    for one, other in zip(old, new, strict=False):
        kept = [k for k in one if k not in ("started", "ended") and not any(part in k for part in LEFT_OUT)]
        changed = [f"{k}: {one[k]!r} is now {other.get(k)!r}" for k in kept if one[k] != other.get(k)]
        if changed:
            yield f"{at}[{one.get('number')}] {'; '.join(changed)}"


def main() -> None:
    """Measure and, where asked, compare; ends with 1 where a number differs."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    out = Path(options.get("out", "smoke-numbers.json"))
    spaces = options.get("spaces", ",".join(SPACES)).split(",")
    controllers = options.get("controllers", ",".join(CONTROLLERS)).split(",")
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    pairs = [(s, c) for c in controllers for s in spaces if f"{s} {c}" not in results]
    with ThreadPoolExecutor(int(options.get("workers", 2))) as pool:
        for (space, controller), result in zip(pairs, pool.map(lambda pair: run(*pair), pairs), strict=True):
            results[f"{space} {controller}"] = result
            out.write_text(json.dumps(results, indent=1))
            print(space, controller, "failed" if "exit code" in result else f"{len(result['trials']) - 1} trials")
    if "against" in options:
        before = json.loads(Path(options["against"]).read_text())
        results = {key: value for key, value in results.items() if key in before}
        lines = list(differences({k: _in_examples(before[k]) for k in results}, results))
        print("\n".join(lines) if lines else f"{len(results)} smoke runs: every number is the same")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
