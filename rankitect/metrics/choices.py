"""Accuracy on questions: which choice is likeliest, is the answer the right one, and how sure is a difference of two.

`acc`, `acc_norm` and `acc_bytes` are those of EleutherAI's lm-eval: the choice of the largest log-likelihood, of the
largest for each of its characters, and of the largest for each of its bytes in UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankitect.contracts import Metric
from rankitect.errors import DataError
from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate

__all__ = ["accuracy", "paired_difference", "right_choices", "wilson_interval"]


def right_choices(
    nats: Sequence[ArrayLike], choices: Sequence[Sequence[str]], gold: Sequence[int]
) -> dict[str, NDArray[np.bool_]]:
    """For each question, whether its right choice is chosen.

    Args:
        nats: Log-likelihoods of each question's choices.
        choices: Their texts.
        gold: Numbers of the right ones.

    Returns:
        By metric, [Q]. Where two choices are equally likely, the first one counts as chosen.

    Raises:
        DataError: A log-likelihood is no finite number: no choice of that question is the likeliest.

    >>> right_choices([[-2.0, -3.0]], [["no", "perhaps"]], [1])["acc_norm"]
    array([ True])
    """
    lengths = {
        "acc": lambda text: 1,
        "acc_norm": len,
        "acc_bytes": lambda text: len(text.encode()),
    }
    chosen: dict[str, list[bool]] = {name: [] for name in lengths}
    for number, (scores, texts, right) in enumerate(zip(nats, choices, gold, strict=True)):
        values = np.asarray(scores, np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"The log-likelihoods of question {number}'s choices are no finite numbers.")
        for name, length in lengths.items():
            best = int(np.argmax(values / np.asarray([length(text) for text in texts], np.float64)))
            chosen[name].append(best == right)
    return {name: np.asarray(values, np.bool_) for name, values in chosen.items()}


def accuracy(right: ArrayLike) -> Metric:
    """The share of questions that are answered right, with its interval (Wilson's)."""
    values = np.asarray(right, np.bool_)
    count, total = int(values.sum()), len(values)
    return Metric(count / total, "share", total, wilson_interval(count, total))


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson, J. Am. Stat. Assoc. 1927), which is right for few and for extreme ones.

    Args:
        count: Of what is counted.
        total: Of all, at least 1.
        confidence: Coverage.

    >>> low, high = wilson_interval(0, 10)
    >>> round(low, 2), round(high, 2)
    (0.0, 0.28)
    """
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share, weight = count / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return min(low, share), max(high, share)  # rounding may leave an extreme share just outside


def paired_difference(one: ArrayLike, other: ArrayLike, clusters: ArrayLike | None = None) -> Estimate:
    """How much more often one model is right than another, on the same questions.

    The difference of two shares has no error where both models agree on every question of a few. As Bonett and Price
    (J. Educ. Behav. Stat. 2012) do, a question is added for each model that it alone answers right.

    Args:
        one: Of each training seed and question, 0 to 1, [S, Q] or [Q].
        other: The other model's, [S', Q] or [Q].
        clusters: Number of the cluster of each question, where some are alike, [Q].

    Returns:
        The difference of the shares, with the error over questions and training seeds.

    >>> low, high = paired_difference([1, 1, 0, 1], [1, 1, 0, 1]).interval()
    >>> low < 0 < high
    True
    """
    ours, theirs = (np.atleast_2d(np.asarray(values, np.float64)) for values in (one, other))
    difference = ours.mean(0) - theirs.mean(0)
    groups = None
    if clusters is not None:
        known = np.asarray(clusters, np.int64)
        groups = np.append(known, [known.max() + 1, known.max() + 2])
    over = mean_estimate(np.append(difference, [1.0, -1.0]), clusters=groups, value=float(difference.mean()))
    return seeded_estimate(over, ours.mean(1).tolist(), theirs.mean(1).tolist())
