"""Run a search from Python and read its result: the baselines, the Pareto front, and what the search spent."""

import rankitect


def main() -> None:
    """A differentiable search over pruned versions of a tiny random backbone. Without `preset` it is the real job."""
    result = rankitect.search(
        ["space=mobile_llm", "controller=dnas", "preset=smoke"], output_dir="runs/examples/dnas", quiet=True
    )
    summary = result.summary
    names = [objective.name for objective in summary.objectives]
    for baseline in summary.baselines:
        print(f"{baseline.name:>20}", {name: round(baseline.metrics[name].value, 3) for name in names})
    for candidate in summary.pareto:
        print(f"         candidate {candidate.rank}", {name: round(candidate.metrics[name].value, 3) for name in names})
    print("ended:", result.ended)
    print("candidates:", *sorted(folder.name for folder in (result.folder / "candidates").iterdir()))
    print("report:", result.report)


if __name__ == "__main__":
    main()
