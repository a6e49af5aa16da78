"""Open a candidate that a search left behind, score and generate text with it. Nothing but its folder is needed."""

import shutil

import torch

import rankitect


def main() -> None:
    """Search (or resume the search of the other example, which costs nothing), then copy, load, score and generate."""
    result = rankitect.search(
        ["space=mobile_llm", "controller=dnas", "preset=smoke"], output_dir="runs/examples/dnas", quiet=True
    )
    folder = sorted((result.folder / "candidates").iterdir())[0]
    shutil.copytree(folder, "runs/examples/model", dirs_exist_ok=True)  # as it would go to another machine

    candidate = rankitect.load_candidate("runs/examples/model")  # checks every file against its SHA-256
    print(candidate.card["costs"]["params"], "stop tokens:", candidate.usage.stop_ids)
    (score,) = candidate.score(["The statement returns a value."])
    print(f"perplexity {score.perplexity:.1f} on {score.tokens} tokens")
    # the backbone of the preset is random, and so is its text
    print("The statement" + candidate.generate("The statement", tokens=12))

    candidate.model.to(torch.bfloat16)
    print(f"in bfloat16 {candidate.score('The statement returns a value.')[0].perplexity:.1f}")


if __name__ == "__main__":
    main()
