"""Compare search methods on one space and task: the same budget, several seeds, one table."""

import rankitect


def main() -> None:
    """Random search against evolution on a small generated log, two seeds each."""
    rankitect.compare(  # prints the table, and writes it with two plots beside the run folders
        controllers=["random", "evolution"],
        seeds=[0, 1],
        overrides=["space=ranking_engineered", "task=ranking", "preset=smoke"],
        output_dir="runs/examples/methods",
    )


if __name__ == "__main__":
    main()
