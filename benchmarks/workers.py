"""How much faster trials side by side are: the same search with one worker and with two, in turns, one thread each.

Rankers on MovieLens-100K trained briefly, so that each trial is a second or two of computing; baselines left out.

    python benchmarks/workers.py --rounds 3 --trials 100
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, table, verdict

SEARCH = (
    "space=ranking_blocks", "controller=sampled", "task=movielens", "confirm.seeds=1", "runner.threads=1", "seed=1",
    "runner.ahead=3", "runner.baselines=false", "report.page=false", "report.tensorboard=false", "report.registry=null",
    "evaluator.final.save=false",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=3, trials=100)
    trials = 4 if options.quick else options.trials
    seconds: dict[int, list[float]] = {1: [], 2: []}
    found = []
    with tempfile.TemporaryDirectory() as place:
        for turn in range(options.rounds):
            for workers in seconds:
                path = Path(place) / f"{turn}-{workers}"
                taken, fronts = searched(path, workers, trials, options.quick)
                seconds[workers].append(taken)
                found.append(fronts)
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    ratio = statistics.median(ratios)
    rows = [
        ("one worker, s", f"{statistics.median(seconds[1]):.1f} ({min(seconds[1]):.1f} to {max(seconds[1]):.1f})", ""),
        ("two workers, s", f"{statistics.median(seconds[2]):.1f} ({min(seconds[2]):.1f} to {max(seconds[2]):.1f})", ""),
        ("times faster", f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", verdict(ratio, at_least=1.8)),
        ("the same result", "yes" if all(f == found[0] for f in found) else "NO", ""),
    ]
    note = "Wall clock of the whole command, imports and the start of workers among it; on two processors."
    table(f"{trials} trials", ("what", "median (range)", "target"), rows, note, timed=False)


def searched(path: Path, workers: int, trials: int, quick: bool) -> tuple[float, object]:
    """Seconds of a search, and its front."""
    more = ["preset=smoke"] if quick else ["task.epochs=2", "task.refit=false"]
    command = [sys.executable, "-m", "rankitect.search", *SEARCH, *more, f"runner.workers={workers}",
               f"controller.samples={trials}", f"output_dir={path}"]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    taken = time.perf_counter() - started
    summary = json.loads((path / "summary.json").read_text())
    return taken, [(p["fingerprint"], p["metrics"]) for p in summary["pareto"]]


if __name__ == "__main__":
    main()
