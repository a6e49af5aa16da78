"""What is written beside a classifier on the front: its drawing and, for some devices, the program."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.contracts import ExportsClassifiers, offers

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Exporter, Trial
    from rankitect.data.images.batches import ImageBatches

__all__ = ["classifier_exporter", "program_exporter"]

_IMAGES, _FEWEST, _BYTES = 1024, 64, 1 << 28
"""Test images on which a program's quality is compared with its model's: so many, unless they would take more bytes."""


def classifier_exporter(parts: Parts, data: ImageBatches) -> Exporter:
    """A function of a trial and its candidate's folder that writes into it; gives files by name.

    Args:
        parts: The study's.
        data: The images, of which some show the program's quality.
    """
    from rankitect.tasks.exporting import drawn

    def export(trial: Trial, folder: Path) -> dict[str, str]:
        return {**drawn(parts.graph_space, trial.architecture, folder), **_program(parts, data, trial, folder)}

    return export


def program_exporter(parts: Parts, data: ImageBatches) -> Exporter:
    """The same without the drawing, for baselines. Arguments are those of `classifier_exporter`."""
    return partial(_program, parts, data)


def _program(parts: Parts, data: ImageBatches, trial: Trial, folder: Path) -> dict[str, str]:
    """A candidate as a program, where the device runs programs."""
    import torch

    from rankitect.models.candidate import load_candidate
    from rankitect.study.files import inside
    from rankitect.tasks.exporting import programmed

    device = parts.device
    saved = trial.measurement.artifacts.get("weights") if trial.measurement is not None else None
    if saved is None or not offers(device, ExportsClassifiers):
        return {}
    model = load_candidate(inside(parts.folder, saved).parent, allowed_packages=parts.config.allowed_packages).model
    count = max(_FEWEST, min(_IMAGES, _BYTES // (4 * prod(data.data.shape))))
    images, labels = next(data.images_at(data.sampled("test", count), count))
    write = partial(device.export_classifier, folder, model, images, torch.from_numpy(labels))
    return programmed(parts, trial.architecture, folder, write)
