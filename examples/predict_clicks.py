"""Search rankers on a click log, and predict clicks for new rows with a copy of the best candidate and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import rankitect

TABLE = {"label": "click", "numeric": ["price"], "categorical": ["user", "device"], "missing": ["", "unknown"]}


def write_log(path: Path) -> None:
    """A log in which phones click more, and cheap things are clicked more."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"price": rng.gamma(2.0, 20.0, 4000).round(2), "user": rng.integers(0, 200, 4000)})
    rows["device"] = rng.choice(["phone", "tablet", "unknown"], 4000)
    odds = np.where(rows.device == "phone", 1.0, -1.0) - rows.price / 40
    rows["click"] = (rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False)


def main() -> None:
    """A short search, then predictions for rows that no training has seen."""
    log = Path("runs/examples/clicks.csv")
    write_log(log)
    result = rankitect.search(
        ["space=ranking_engineered", "controller=random", "task=ranking", "preset=smoke"],
        task={"data": {"format": "csv", "path": str(log), "table": TABLE}},
        output_dir="runs/examples/clicks",
        quiet=True,
    )
    folder = sorted((result.folder / "candidates").iterdir())[0]
    shutil.copytree(folder, "runs/examples/ranker", dirs_exist_ok=True)  # as it would go to another machine

    candidate = rankitect.load_candidate("runs/examples/ranker")
    new = [{"user": 17, "device": "phone", "price": 9.5}, {"user": "nobody", "device": None, "price": None}]
    print("predicted", candidate.score(new))

    compiled = torch.compile(candidate.model, backend="eager")  # without `backend`, into machine code
    with torch.inference_mode():
        print("compiled", compiled(*candidate.encode(new))[:, 0].sigmoid().tolist())
    candidate.model.to(torch.bfloat16)
    print("bfloat16", candidate.score(new))


if __name__ == "__main__":
    main()
