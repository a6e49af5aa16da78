"""Are the report's intervals and its A/B plan right? Coverage and power by simulation, where the truth is known.

Each simulation draws users, rows, clicks and training seeds anew, makes the interval that the report would show, and
looks whether it holds the true value, which is that of one very large draw. For the A/B plan, tests of the planned size
are drawn with the planned effect; the share of them that finds it is the power.

    python benchmarks/intervals.py --simulations 1000
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from common import arguments, table, verdict

OURS, THEIRS = "candidate", "production"
ROWS, USERS, SEEDS = 3000, 300, 3
LARGE = 400
"""Times the rows of a simulation that the truth is found from."""


def main() -> None:
    """Print both tables."""

    options = arguments(__doc__ or "", rounds=1, simulations=1000)
    count = 40 if options.quick else options.simulations
    rows = []
    for name, simulate in CASES.items():
        held = [low <= truth <= high for truth, low, high in simulate(count)]
        share = 100 * float(np.mean(held))
        error = 100 * math.sqrt(np.mean(held) * (1 - np.mean(held)) / len(held))
        rows.append(
            (name, len(held), f"{share:.1f}% ± {error:.1f}", "93% to 97%", "yes" if 93 <= share <= 97 else "no")
        )
    table(
        "Coverage of 95% intervals",
        ("interval", "simulations", "holds the truth", "target", "met"),
        rows,
        "",
        timed=False,
    )
    rows = []
    for power in (0.8, 0.9):
        for cuped in (False, True):
            found, tests, units = powered(power, cuped, 5 * count)  # an error of half a point
            share, error = 100 * found, 100 * math.sqrt(found * (1 - found) / tests)
            gap = abs(share - 100 * power)
            name = "with CUPED" if cuped else "plain"
            rows.append(
                (name, f"{100 * power:.0f}%", units, tests, f"{share:.1f}% ± {error:.1f}", verdict(gap, at_most=2))
            )
    header = ("test", "nominal power", "users planned", "tests", "found the effect", "points off")
    table(
        "Power of the planned A/B test",
        header,
        rows,
        "Users of very different activity; a relative effect of 5%.",
        timed=False,
    )


# --- coverage -------------------------------------------------------------------------------------------------------
def clicks(rng: np.random.Generator, rows: int, users: int, seeds: int, spread: float) -> tuple[Any, ...]:
    """Losses of both models [S, N] each, labels and users; users differ, and so do a model's training seeds."""
    from rankitect.metrics.ranking_metrics import log_losses, sigmoid

    user = rng.integers(users, size=rows)
    taste, hard = rng.normal(size=users), rng.normal(size=users)
    truth = -1.2 + 0.8 * taste[user] + rng.normal(size=rows)
    labels = (rng.random(rows) < sigmoid(truth)).astype(np.float32)
    error = 0.7 * rng.normal(size=rows) + 0.5 * hard[user]
    models = []
    for scale in (0.8, 1.0):
        # A seed shifts and stretches all of a model's logits: its loss is another one on every row.
        drawn = [(rng.normal(0, spread), 1 + rng.normal(0, spread)) for _ in range(seeds)]
        models.append(np.stack([log_losses(b + c * (truth + scale * error), labels) for b, c in drawn]))
    return models[0], models[1], labels, user


def of_change(seeds: int, spread: float, users: int = USERS) -> Callable[[int], Iterator[tuple[float, float, float]]]:
    """Simulations of the relative change of normalized entropy."""

    def simulate(count: int) -> Iterator[tuple[float, float, float]]:
        from rankitect.production.change import change
        from rankitect.production.evidence import Evidence

        ours, theirs, _, _ = clicks(
            np.random.default_rng(1), ROWS * LARGE, users * LARGE, 1 if not spread else 40, spread
        )
        truth = ours.mean() / theirs.mean() - 1
        for i in range(count):
            a, b, labels, user = clicks(np.random.default_rng([2, i]), ROWS, users, seeds, spread)
            losses = {OURS: a.astype(np.float32), THEIRS: b.astype(np.float32)}
            found = change(Evidence("normalized_entropy", losses, labels, clusters=user), OURS, THEIRS)
            yield truth, found.low, found.high

    return simulate


def of_perplexity(count: int) -> Iterator[tuple[float, float, float]]:
    """Simulations of the relative change of perplexity over 48 windows of 24 documents."""
    from rankitect.production.change import change
    from rankitect.production.evidence import Evidence

    gain = 0.08
    for i in range(count):
        rng = np.random.default_rng([3, i])
        document = np.repeat(np.arange(24), 2)
        base = 3 + 0.4 * rng.normal(size=24)[document] + 0.2 * rng.normal(size=48)
        gap = gain + 0.05 * rng.normal(size=24)[document] + 0.03 * rng.normal(size=48)
        losses = {OURS: (base - gap)[None].astype(np.float32), THEIRS: base[None].astype(np.float32)}
        found = change(Evidence("perplexity", losses, clusters=document), OURS, THEIRS)
        yield math.expm1(-gain), found.low, found.high


def of_calibration(rows: int, users: int) -> Callable[[int], Iterator[tuple[float, float, float]]]:
    """Simulations of predicted over observed clicks."""

    def simulate(count: int) -> Iterator[tuple[float, float, float]]:
        from rankitect.production.calibration import calibration_ratio
        from rankitect.production.evidence import Evidence

        def ratio(rng: np.random.Generator, rows: int, users: int) -> tuple[Any, Any]:
            losses, _, labels, user = clicks(rng, rows, users, 1, 0.0)
            return Evidence("normalized_entropy", {OURS: losses.astype(np.float32)}, labels, clusters=user), labels

        whole, labels = ratio(np.random.default_rng(4), ROWS * LARGE, USERS * LARGE)
        truth = float(whole.predictions(OURS).mean() / labels.mean())
        for i in range(count):
            evidence, _ = ratio(np.random.default_rng([5, i]), rows, users)
            low, high = calibration_ratio(evidence, OURS).interval()
            yield truth, low, high

    return simulate


CASES: dict[str, Callable[[int], Iterator[tuple[float, float, float]]]] = {
    "change of normalized entropy, 300 users, one seed": of_change(1, 0.0),
    "… 60 users": of_change(1, 0.0, 60),
    "… three seeds that differ a little": of_change(SEEDS, 0.03),
    "… three seeds that differ much": of_change(SEEDS, 0.15),
    "change of perplexity, 48 windows of 24 documents": of_perplexity,
    "predicted over observed clicks": of_calibration(ROWS, USERS),
    "… of 40 rows of 20 users, as in a tenth of few rows": of_calibration(40, 20),
}


# --- power ----------------------------------------------------------------------------------------------------------
EFFECT = 0.05


def behaviour(rng: np.random.Generator, users: int, lift: float) -> tuple[Any, Any, Any, Any]:
    """Rows and clicks of each user in the test, and before it."""
    active = rng.lognormal(1.5, 0.8, users)
    rate = np.clip(rng.beta(2, 14, users), 0, 1)
    rows, before = 1 + rng.poisson(active), 1 + rng.poisson(active)
    return rows, rng.binomial(rows, np.clip(rate * (1 + lift), 0, 1)), before, rng.binomial(before, rate)


def powered(power: float, cuped: bool, count: int) -> tuple[float, int, int]:
    """Share of tests of the planned size that find the effect, how many tests, and the planned users."""
    from scipy import stats

    from rankitect.production.evidence import Evidence
    from rankitect.production.experiment import design, variance_of
    from rankitect.production.settings import ExperimentConfig

    rng = np.random.default_rng(6)
    rows, done, earlier_rows, earlier = behaviour(rng, 60_000, 0.0)
    labels = np.concatenate([np.repeat([1, 0], [c, n - c]) for n, c in zip(rows, done, strict=True)]).astype(np.float32)
    before = np.stack([earlier_rows, earlier], 1).astype(np.int64)
    log = Evidence("normalized_entropy", {}, labels, clusters=np.repeat(np.arange(len(rows)), rows), before=before)
    config = ExperimentConfig(power=power, effects=(EFFECT,))
    variance = variance_of(log, config)
    assert variance is not None
    _, plain, reduced = design(variance, config).needed[0]
    units = reduced if cuped else plain
    assert units is not None
    hits = 0
    for i in range(count):
        rng = np.random.default_rng([7, i, int(cuped), int(100 * power)])
        hits += rejects([behaviour(rng, units // 2, lift) for lift in (0.0, EFFECT)], cuped, stats.norm.ppf(0.975))
    return hits / count, count, units


def rejects(arms: list[tuple[Any, Any, Any, Any]], cuped: bool, quantile: float) -> bool:
    """The test: the difference of two ratios by the delta method, adjusted by the time before where asked."""
    rates, errors, linear = [], [], []
    for rows, done, earlier_rows, earlier in arms:
        rate = done.sum() / rows.sum()
        part = (done - rate * rows) / rows.mean()
        past = (earlier - earlier.sum() / earlier_rows.sum() * earlier_rows) / earlier_rows.mean()
        linear.append((part, past))
        rates.append((rate, earlier.sum() / earlier_rows.sum()))
    slope = 0.0
    if cuped:
        part, past = (np.concatenate([arm[k] for arm in linear]) for k in (0, 1))
        slope = float(np.cov(part, past)[0, 1] / past.var(ddof=1))
    for part, past in linear:
        errors.append((part - slope * past).var(ddof=1) / len(part))
    gap = (rates[1][0] - rates[0][0]) - slope * (rates[1][1] - rates[0][1])
    return bool(abs(gap) > quantile * math.sqrt(sum(errors)))


if __name__ == "__main__":
    main()
