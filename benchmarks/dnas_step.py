"""What a step of the differentiable search costs, against a plain training step of the backbone on the same tokens.

A step of the search draws weights of all choices at a cost target, runs the relaxed backbone, goes back to the choices'
weights alone, and moves the scores. A plain step goes back to all weights of the backbone and updates them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import arguments, in_turns, random_backbone, ratio, seconds, table, verdict
from extraction import some_moments
from supernet_overhead import adam_step, step

TARGET = 1.5
"""The largest ratio allowed."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=10, batch=4, context=128)
    from rankitect.models.backbone import Backbone
    from rankitect.search_spaces.mobile_llm import from_backbone
    from tests.models.reference import ReferenceLlama

    checkpoint = random_backbone(options.quick)
    space = from_backbone(checkpoint.config)
    plain = Backbone(checkpoint, space)
    fitted = Backbone(checkpoint, space, gram=some_moments(plain))
    ids = torch.randint(0, checkpoint.config.vocab, (options.batch, options.context + 1))
    reference = ReferenceLlama.load(checkpoint)
    jobs: dict[str, Callable[[], object]] = {
        "plain step, no update": step(reference, ids),
        "plain step with AdamW": adam_step(reference, ids),
        "search, one-hot weights": search_step(plain, ids, one_hot=True),
        "search, soft weights": search_step(plain, ids, one_hot=False),
        "search, one-hot weights, refits": search_step(fitted, ids, one_hot=True),
        "search, soft weights, refits": search_step(fitted, ids, one_hot=False),
    }
    times = in_turns(jobs, options.rounds)
    rows = []
    for name in jobs:
        bare = ratio(times, name, "plain step, no update")[1]
        value, text = ratio(times, name, "plain step with AdamW")
        goal = verdict(value, at_most=TARGET) if name.startswith("search") else ""
        rows.append((name, seconds(times[name]), bare, text, goal))
    table(
        f"A step of the differentiable search, {options.batch} x {options.context} tokens",
        ("step", "time", "to a plain step without update", "to a plain step with AdamW", "target (AdamW)"),
        rows,
        "The plain step is that of the hand-written Llama, cross-entropy, float32.",
    )


def search_step(backbone: Any, ids: torch.Tensor, one_hot: bool) -> Callable[[], object]:
    """One step of `controllers.dnas` on given tokens, its scores free (no prior)."""
    from rankitect.controllers.dnas_scores import Scores
    from rankitect.metrics.losses import cross_entropy
    from rankitect.models.relaxed import RelaxedSupernet

    relaxed = RelaxedSupernet(backbone.supernet)
    scores = Scores(backbone.space, "layers:flops", backbone.largest)
    rng = np.random.default_rng(0)

    def job() -> object:
        weights = scores.draw(float(rng.uniform(0.5, 0.9)), 0.003, 0.5, rng)
        if one_hot:  # straight through: the value is one-hot, the gradient that of the soft weights
            weights = {p: torch.eye(len(w))[w.detach().argmax()].requires_grad_() for p, w in weights.items()}
        backbone.supernet.requires_grad_(False)
        try:
            loss = cross_entropy(relaxed(weights, ids[:, :-1]), ids[:, 1:])
            loss.backward()
        finally:
            backbone.supernet.requires_grad_(True)
        scores.move(weights, 0.01)
        return loss

    return job


if __name__ == "__main__":
    main()
