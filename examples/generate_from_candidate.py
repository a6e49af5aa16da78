"""Open a candidate that a search left behind, and generate text with it. Nothing but its folder is needed."""

import torch

import rankitect
from rankitect.models.candidate import load_candidate


@torch.no_grad()
def generate(candidate, prompt: str, tokens: int = 12) -> str:
    """The prompt and the most probable next tokens."""
    ids = torch.tensor(candidate.tokenizer.encode(prompt), dtype=torch.int64)[None]
    for _ in range(tokens):
        logits = candidate.model(ids)  # [1, T, V]
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return candidate.tokenizer.decode(ids[0].numpy())


def main() -> None:
    """Search (or resume the search of the other example, which costs nothing), then load and generate."""
    result = rankitect.search(
        ["space=mobile_llm", "controller=dnas", "preset=smoke"], output_dir="runs/examples/dnas", quiet=True
    )
    folder = sorted((result.folder / "candidates").iterdir())[0]
    candidate = load_candidate(folder)  # checks every file against its SHA-256
    print(candidate.card["costs"]["params"], candidate.architecture.fingerprint[:8])
    print(generate(candidate, "The statement"))  # the backbone of the preset is random, and so is its text


if __name__ == "__main__":
    main()
