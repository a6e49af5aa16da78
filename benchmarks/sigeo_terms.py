"""What SiGeo's score is made of: Kendall's τ of each term with training in full, and how much each term varies.

Reads the folder that `python -m rankitect.compare --correlation N` wrote; trains nothing.

    python -m rankitect.compare --correlation 40 --output-dir runs/correlation space=ranking_blocks
    python benchmarks/sigeo_terms.py --folder runs/correlation
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from common import arguments, table
from numpy.typing import NDArray

METRIC = "validation_normalized_entropy"
BATCHES = 4
COEFFICIENTS = (1.0, 50.0, 1.0)
"""Of the ZiCo term, the Fisher-Rao term and the loss (arXiv 2311.13169)."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=1, folder="runs/correlation", space="ranking_blocks", learns=0.85)
    from rankitect.compare import WARM
    from rankitect.reports.method_comparison import values

    folder = Path(options.folder)
    truth = values(folder / "truth", "final", METRIC)
    rows = []
    for warmup in WARM[:2] if options.quick else WARM:
        found = terms(folder, f"{warmup:.0%}".replace("%", ""), options.space, list(truth))
        rows += [(f"{warmup:.0%}", name, *judged(value, truth, options.learns)) for name, value in found.items()]
    table(
        f"SiGeo's terms on {options.space}, {len(truth)} architectures",
        ("warm-up", "term", "τ", f"τ of those below NE {options.learns}", "standard deviation"),
        rows,
        "Each with the sign and the coefficient that it has in the score.",
    )


def judged(score: NDArray[np.float64], truth: dict[str, float], learns: float) -> tuple[str, str, str]:
    """τ with training in full, over all and over those that can learn, and the spread."""
    from scipy.stats import kendalltau

    entropy = np.asarray(list(truth.values()))
    good = entropy < learns
    taus = (kendalltau(-entropy[chosen], score[chosen]).statistic for chosen in (good | ~good, good))
    return (*(f"{tau:.2f}" for tau in taus), f"{score.std():.3g}")  # type: ignore[return-value]


def terms(folder: Path, warmup: str, space: str, wanted: list[str]) -> dict[str, NDArray[np.float64]]:
    """The terms of all architectures on the weights that a warm-up left, in the order of their fingerprints."""
    from rankitect.config import resolve
    from rankitect.config.parts import build
    from rankitect.evaluators import proxy_scores as scores
    from rankitect.graph import Architecture
    from rankitect.methods.bounded_space import BoundedSpace
    from rankitect.methods.supernet_search import STATE
    from rankitect.study.store import Store
    from rankitect.training.checkpoint import load_state

    with tempfile.TemporaryDirectory() as scratch:
        parts = build(resolve([f"space={space}", "controller=sampled"]), Path(scratch), lambda text: None)
        bounded = BoundedSpace.of(parts, shared=True)
        supernet = parts.task.supernet(bounded.space)
        saved = folder / f"sigeo-{warmup}" / "state" / STATE
        if saved.exists():  # none: no step was taken
            weights = load_state(saved)[0]
            supernet.weights.load_state_dict(
                {k.removeprefix("weight/"): v for k, v in weights.items() if k.startswith("weight/")}, strict=False
            )
        with Store(folder / "truth" / "study.db", Architecture.from_json, readonly=True) as store:
            known = {t.architecture.fingerprint: t.architecture for t in store.trials}
        batches = [partial(lambda model, step: parts.task.search_loss(model, step)[0], step=i) for i in range(BATCHES)]
        found = []
        for fingerprint in wanted:
            model = supernet.extract(bounded.lower(parts.space.validate(known[fingerprint])))
            grads = scores.gather_gradients(model, batches)
            found.append((scores.zico(grads), scores.fisher_rao(grads), -float(grads.losses.mean())))
    columns = np.asarray(found).T * np.asarray(COEFFICIENTS)[:, None]
    return {**dict(zip(("ZiCo", "Fisher-Rao", "loss"), columns, strict=True)), "all": columns.sum(0)}


if __name__ == "__main__":
    main()
