"""Classifiers of images as programs: norms folded into convolutions, a method for each batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rankitect.deploy.precision import require_lowerable
from rankitect.deploy.quality import ProgramQuality, classifier_quality
from rankitect.deploy.ranker import BATCHES, Batched, dense_part, write_batches
from rankitect.models.folding import folded
from rankitect.models.supernet import Standalone

__all__ = ["CARD", "PROGRAM", "export_classifier"]

CARD, PROGRAM = "classifier.json", "classifier.pte"


def export_classifier(
    folder: Path,
    model: Standalone,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    batches: Sequence[int] = BATCHES,
) -> dict[str, str]:
    """Write a classifier as a program with a method for each batch size. The card comes last.

    Args:
        folder: Created if it does not exist.
        model: The classifier; it is left as it is, in evaluation.
        images: As it gets them, [n, C, H, W], on which the program's quality is compared with its own.
        labels: The class of each, [n].
        batches: Images of one call; the methods are called "batch_1" and so on.

    Returns:
        Paths relative to the folder, by artifact: "program", "program_card".

    Raises:
        DeployError: The model cannot be exported, or the program does not give what it gives.
        OSError: The disk is full or cannot be written.
    """
    plain = folded(model.eval())
    require_lowerable(plain.plan)
    part = dense_part(plain)
    methods = {f"batch_{n}": part.call(images[:1].expand(n, *images.shape[1:])) for n in batches}

    def judge(program: Path, method: str, batch: int) -> ProgramQuality:
        return classifier_quality(program, method, batch, part, model, images, labels)

    inputs = plain.plan.inputs
    return write_batches(folder, Batched("rankitect classifier", PROGRAM, CARD, part.plan, inputs, methods), judge)
