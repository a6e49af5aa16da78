"""What it costs to hand a trial to a worker and to have its result back: trials that measure nothing, in each runner.

Searches of the tests' toy space, 1,100 trials and 100: the difference is 1,000 trials without imports, the start of
workers and the end. Less the same in the study's own process, that is what the runner adds to a trial. Needs the extra
`ray`.

    python benchmarks/handing.py --rounds 3
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, arguments, table

RUNNERS = {
    "the study's own process": ("runner.workers=1",),
    "two local processes": ("runner.workers=2",),
    "Ray, started locally, two processors": ("runner=ray", "runner.workers=2"),
}
SEARCH = (
    "--config-dir", str(ROOT / "tests" / "study" / "configs"), "space=grid", "task=none", "controller=freely",
    "evaluator=quadratic", "allowed_packages=[rankitect,tests]", "space.size=100000", "evaluator.final.seconds=0",
    "runner.ahead=3", "runner.threads=1", "report.page=false", "report.tensorboard=false",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=3, trials=1000)
    few, many = (5, 25) if options.quick else (100, 100 + options.trials)
    each: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(options.rounds):
            for runner, keys in RUNNERS.items():
                taken = [searched(Path(place) / f"{turn}-{runner[:3]}-{n}", n, keys) for n in (few, many)]
                each[runner].append((taken[1] - taken[0]) / (many - few) * 1e3)
    alone = next(iter(each.values()))
    rows = []
    for runner, found in each.items():
        added = [one - own for one, own in zip(found, alone, strict=True)]
        shown = f"{statistics.median(added):.1f} ({min(added):.1f} to {max(added):.1f})" if found is not alone else ""
        rows.append((runner, f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})", shown))
    note = f"Medians of {options.rounds} rounds (range). The trial's own work is nothing; the study's is in every row."
    table("A trial that measures nothing", ("runner", "ms a trial", "added, ms"), rows, note)


def searched(path: Path, trials: int, keys: tuple[str, ...]) -> float:
    """Seconds of a search."""
    command = [
        sys.executable,
        "-m",
        "rankitect.search",
        *SEARCH,
        *keys,
        f"controller.total={trials}",
        f"output_dir={path}",
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
