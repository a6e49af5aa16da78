"""Rows of clicks with known models, for tests of the statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankitect.metrics.ranking_metrics import log_losses, sigmoid
from rankitect.production.evidence import Evidence, Slicing

OURS, THEIRS = "a" * 64, "b" * 64


def evidence(
    rows: int = 4000,
    *,
    users: int | None = 200,
    better: float = 0.3,
    seeds: int = 3,
    noise: float = 0.05,
    days: int | None = None,
    slicings: tuple[Slicing, ...] = (),
    seed: int = 0,
) -> Evidence:
    """Two models of known clicks: production with a noisy logit, the candidate with less noise by `better`."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.0, 1.0, rows)
    clusters = None if users is None else rng.integers(users, size=rows)
    if clusters is not None:
        truth = truth + 0.5 * rng.normal(size=users or 1)[clusters]
    labels = (rng.random(rows) < sigmoid(truth)).astype(np.float32)
    error = rng.normal(size=rows)
    losses: dict[str, NDArray[np.float32]] = {}
    for name, scale in ((OURS, 1.0 - better), (THEIRS, 1.0)):
        logits = [truth + scale * error + noise * rng.normal(size=rows) for _ in range(seeds)]
        losses[name] = np.stack([log_losses(z, labels) for z in logits]).astype(np.float32)
    when = None if days is None else rng.integers(days, size=rows).astype(np.int64) + 20_000
    return Evidence("normalized_entropy", losses, labels, None, clusters, when, slicings)
