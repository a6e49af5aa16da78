"""The plain baseline of verdicts: character n-grams weighed by TF-IDF, and logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.metrics.verdicts import VerdictQuality, best_threshold
from rankitect.tasks.moderation.quality import scored_as

if TYPE_CHECKING:
    from rankitect.data.moderation.data import GuardData

__all__ = ["plain_quality"]

_GRAMS = (1, 4)
"""Characters of an n-gram, within words."""
_INVERSE_PENALTY = 10.0


def plain_quality(data: GuardData, split: str = "test", most: int | None = None) -> VerdictQuality:
    """What a guard must be better than: trained on the same exchanges, with the threshold of the same validation split.

    Args:
        data: The exchanges.
        split: The one that is judged.
        most: How many of its exchanges; None for all.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=_GRAMS, sublinear_tf=True)
    regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000)

    def texts(name: str) -> list[str]:
        return [one.text for one in data.splits[name]]

    regression.fit(grams.fit_transform(texts("train")), data.unsafe("train"))

    def scores(name: str) -> Any:
        return np.asarray(regression.decision_function(grams.transform(texts(name))), np.float64)

    places = data.sampled(split, most)
    threshold = best_threshold(scores("search"), data.unsafe("search"))
    return VerdictQuality(scored_as(data, split, places, scores(split)[places]), threshold, 0)
