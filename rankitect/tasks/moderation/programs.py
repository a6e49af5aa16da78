"""Programs of guards: their verdicts beside those of the model, as the runtime gives them, and their speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rankitect.deploy.quality import ProgramQuality
from rankitect.errors import ConfigError
from rankitect.metrics.verdicts import VerdictQuality
from rankitect.models.packed import next_logits
from rankitect.tasks.moderation.quality import scored_as, verdict_quality

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from rankitect.contracts import JSON
    from rankitect.data.moderation.data import GuardData
    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.deploy.generate import Generator
    from rankitect.models.supernet import Standalone

__all__ = ["check_capacity", "judge_of", "judged", "milliseconds"]

SPLITS = ("search", "test")
"""What is judged, and by which threshold."""
MOST = 200
"""Exchanges of the test split that a program judges: a call takes as long for a short exchange as for a long one."""
_TOGETHER = 8
"""Exchanges that the model judges at once."""


def check_capacity(data: GuardData, capacity: int, key: str = "capacity") -> None:
    """Refuse a program that cannot hold the longest exchange and a verdict.

    Args:
        data: The exchanges.
        capacity: Tokens that the program holds.
        key: What decides that, for the message.

    Raises:
        ConfigError: It cannot.
    """
    longest = max(len(one) for name in SPLITS for one in data.sequences[name])
    if capacity <= longest:
        raise ConfigError(
            f"{key} is {capacity}, and an exchange has up to {longest} tokens: at least {longest + 1}, or a smaller "
            "task.context."
        )


def judge_of(data: GuardData, validation: int | None) -> ProgramJudge:
    """Judges programs by their verdicts on exchanges, and times their calls.

    Args:
        data: The exchanges.
        validation: How many of the validation split choose the threshold; None for all.
    """

    def judge(
        path: Path, generator: Generator, model: Standalone, floats: nn.Module | None
    ) -> tuple[ProgramQuality, Mapping[str, JSON]]:
        return judged(data, generator, model, floats, milliseconds(path), validation)

    return judge


def judged(
    data: GuardData,
    generator: Generator,
    model: Standalone,
    floats: nn.Module | None,
    timed: Mapping[str, float],
    validation: int | None = None,
) -> tuple[ProgramQuality, dict[str, JSON]]:
    """The verdicts of a program and of its model on the same exchanges.

    Args:
        data: The exchanges.
        generator: Runs the program.
        model: What it was made from.
        floats: That in floats; None where it is so itself.
        timed: Milliseconds of the program's calls.
        validation: How many exchanges of the validation split choose the threshold; None for all. The model chooses
            it for both: it computes what the program does, and many more exchanges in the same time.

    Returns:
        The comparison of AUC, and for the program's card the verdicts of the program in full, and the template.
    """
    safe, unsafe = data.template.verdicts.ids
    places = data.sampled("test", MOST)
    sequences = [data.sequences["test"][place] for place in places.tolist()]
    logits = [generator.start(list(one)) for one in sequences]
    given = np.asarray([float(one[unsafe] - one[safe]) for one in logits])
    own = _model_scores(model, sequences, safe, unsafe)
    threshold = verdict_quality(model, data, "search", most=validation).threshold
    qualities = [VerdictQuality(scored_as(data, "test", places, each), threshold, 0) for each in (own, given)]
    same = float(np.mean((own >= threshold) == (given >= threshold)))
    apart = float(np.abs(own - given).max() / max(np.abs(own).max(), 1e-12))
    before, after = (one.metrics["auc"].value for one in qualities)
    quality = ProgramQuality("auc", before, after, len(own), "exchanges", same, apart)
    if floats is not None:
        judged_whole = scored_as(data, "test", places, _model_scores(floats, sequences, safe, unsafe))
        quality = replace(quality, floats=VerdictQuality(judged_whole, 0.0, 0).metrics["auc"].value)
    notes: dict[str, Any] = {"verdicts": qualities[1].to_json(), "template": data.template.to_json()}
    return quality, {**notes, "milliseconds": dict(timed)}


@torch.inference_mode()
def _model_scores(model: nn.Module, sequences: Sequence[tuple[int, ...]], safe: int, unsafe: int) -> np.ndarray:
    scores = []
    for start in range(0, len(sequences), _TOGETHER):
        logits = next_logits(model, sequences[start : start + _TOGETHER], torch.device("cpu")).double()
        scores.append((logits[:, unsafe] - logits[:, safe]).numpy())
    return np.concatenate(scores)


def milliseconds(path: Path) -> dict[str, float]:
    """The medians of a program's calls on this machine, with one thread: "prefill" of a whole prompt, and "decode"."""
    from rankitect.deploy.timing import Meter, TimingSettings

    with Meter(TimingSettings(threads=1, target=0.1, rounds=5, seconds=8.0)) as meter:
        return {method: meter.time(path, method=method).p50 for method in ("prefill", "decode")}
