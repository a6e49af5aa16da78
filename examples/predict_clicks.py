"""Search rankers on a generated click log, open the best one, and predict clicks with it."""

import torch

import rankitect
from rankitect.data.ranking import DataSettings, open_ranking
from rankitect.tasks.ranking.models import load_ranker

LOG = {"format": "synthetic", "synthetic": {"rows": 4000, "numeric": 3, "categorical": 5, "ids": 200}}


def main() -> None:
    """A short search, then predictions for rows that no training has seen."""
    result = rankitect.search(
        ["space=ranking_engineered", "controller=random", "task=ranking", "preset=smoke"],
        task={"data": LOG},
        output_dir="runs/examples/clicks",
        quiet=True,
    )
    best = result.summary.pareto[0]
    print("candidate", best.rank, {name: round(metric.value, 4) for name, metric in best.metrics.items()})

    folder = sorted((result.folder / "candidates").iterdir())[0]
    model, features = load_ranker(folder)
    print(len(features.numeric), "numeric and", len(features.categorical), "categorical features")

    batch = next(iter(open_ranking(DataSettings.model_validate(LOG)).split("test").batches(8, seed=0)))
    with torch.no_grad():
        probabilities = model(batch.numeric, batch.ids)[:, 0].sigmoid()
    for probability, label in zip(probabilities.tolist(), batch.label.tolist(), strict=True):
        print(f"predicted {probability:.3f}, clicked {label:.0f}")


if __name__ == "__main__":
    main()
