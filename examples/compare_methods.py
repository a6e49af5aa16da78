"""Compare search methods on one space and task: the same budget, several seeds, one table."""

from pathlib import Path

from rankitect.compare import compare_methods


def main() -> None:
    """Random search against evolution on a small generated log, two seeds each."""
    compare_methods(  # prints the table, and writes it with two plots beside the run folders
        Path("runs/examples/methods"),
        controllers=["random", "evolution"],
        seeds=[0, 1],
        overrides=["space=ranking_engineered", "task=ranking", "preset=smoke"],
    )


if __name__ == "__main__":
    main()
