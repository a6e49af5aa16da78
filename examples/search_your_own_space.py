"""Search a space of your own on a click log: a function that takes the data's features, and one configuration file."""

from pathlib import Path

import rankitect
from rankitect.blocks import Concat, Flatten, Linear, Tables
from rankitect.contracts.task import HasFeatures
from rankitect.graph import B, Graph, SearchSpace


def two_paths(features) -> SearchSpace:
    """Embeddings and numbers into an MLP of open depth, beside a linear path that may be left out."""
    g = Graph("two_paths")
    numeric = g.input("numeric", B, len(features.numeric))
    ids = g.input("ids", B, sum(features.slots), dtype="int")
    fields = Tables(features.rows, features.slots, g.choice("embedding", [8, 4]))(ids, name="tables")
    x = Concat()(numeric, Flatten("width")(fields, name="flat"), name="joined")
    width, depth = g.choice("width", [64, 32, 16]), g.choice("depth", [2, 1, 0])
    deep = Linear(width, "relu")(x, name="first")
    deep = g.repeat("mlp", depth, lambda i, h: Linear(width, "relu")(h, name="linear"), deep)
    g.out = Linear(1)(*g.pick("paths", [deep, x]), name="logit")
    return SearchSpace(g)


class TwoPaths:
    """What the configuration names: the space for the features of whatever log is searched."""

    @classmethod
    def from_config(cls, config, parts):
        """The space for the task's features."""
        return two_paths(parts.require(HasFeatures, "space").features)


def main() -> None:
    """Evolution over the space, on a small generated log."""
    result = rankitect.search(
        ["space=two_paths", "controller=evolution", "task=ranking", "evaluator=ranking", "report=ranking"],
        preset="smoke",
        config_dir=Path(__file__).parent / "configs",
        allowed_packages=["rankitect", "search_your_own_space"],
        output_dir="runs/examples/two_paths",
        quiet=True,
    )
    for candidate in result.summary.pareto:
        entropy = candidate.metrics["normalized_entropy"].value
        print(
            f"normalized entropy {entropy:.4f}, {candidate.metrics['flops'].value:.0f} FLOPs, {candidate.architecture}"
        )


if __name__ == "__main__":
    main()
