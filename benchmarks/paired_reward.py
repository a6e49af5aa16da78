"""Variance of REINFORCE's reward with and without the co-trained baseline, on a log that drifts.

The reward of an architecture is its loss on a batch before the step on it. What the batch itself and the day do to the
loss is noise for the policy; a baseline trained beside it on the same batches has the same noise. Every step of the
search has both, so they are compared on the same steps: `-loss`, the plain difference `baseline's loss - loss`, and the
reward that the search uses, in which the batch's share of the baseline's loss counts as much as architectures feel it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import arguments, table


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=3, rows=200_000, folder="runs/bench-paired")
    rows, found = (4000 if options.quick else options.rows), []
    for name, drift in (("no drift", 0.0), ("drift of 0.1 rad a day", 0.1), ("drift of 0.3 rad a day", 0.3)):
        ratios = np.asarray([measure(Path(options.folder), rows, drift, seed) for seed in range(options.rounds)])
        found.append((name, options.rounds, *(f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})" for x in ratios.T)))
    table(
        f"Variance of the reward without a baseline, divided by that with one; {rows:,} generated rows in one pass",
        ("data", "seeds", "plain difference, mean (range)", "as used, mean (range)"),
        found,
        "Over the second half of the steps, space ranking_engineered; above 1 the baseline makes the reward steadier. "
        "All rewards hold the differences between architectures, which are no noise.",
        timed=False,
    )


def measure(folder: Path, rows: int, drift: float, seed: int) -> list[float]:
    """Variance of `-loss` divided by that of both paired rewards, over the second half of a search's steps."""
    import rankitect
    from rankitect.controllers.reinforce import STATE
    from rankitect.training.checkpoint import load_state

    run = folder / f"{rows}-{drift}-{seed}"
    data = {"rows": rows, "drift": drift, "days": 30, "categorical": 12, "numeric": 6, "ids": 20_000}
    rankitect.search(
        ["space=ranking_engineered", "controller=reinforce", "controller.samples=2", "controller.finalists=1"],
        quiet=True,
        seed=seed,
        output_dir=run,
        confirm={"seeds": 1},
        runner={"baselines": False},
        report={"page": False},
        task={
            "data": {"format": "synthetic", "synthetic": data, "split": "file"},
            "one_pass": True,
            "shared_epochs": 1,
            "epochs": 0.1,
        },
    )
    history = np.asarray(load_state(run / "state" / STATE)[1]["history"])
    late = history[len(history) // 2 :]
    return [float(late[:, 1].var() / reward.var()) for reward in (late[:, 2] - late[:, 1], late[:, 3])]


if __name__ == "__main__":
    main()
