"""What is written beside a ranker on the front: its drawing and, for some devices, its dense part as a program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.contracts import ExportsRankers, offers

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Exporter, Trial
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["program_exporter", "ranking_exporter"]

_ROWS = 4096
"""Test rows on which a program's quality is compared with its model's."""


def ranking_exporter(
    parts: Parts, data: RankingBatches, model_of: Callable[[Architecture], tuple[SearchSpace, Architecture]]
) -> Exporter:
    """A function of a trial and its candidate's folder that writes into it; gives files by name.

    Args:
        parts: The study's.
        data: The rows, of which some show the program's quality.
        model_of: Gives the graph of an architecture, and what closes it.
    """
    from rankitect.tasks.exporting import drawn

    def export(trial: Trial, folder: Path) -> dict[str, str]:
        written = drawn(*model_of(trial.architecture), folder)
        return {**written, **_program(parts, data, trial, folder)}

    return export


def program_exporter(parts: Parts, data: RankingBatches) -> Exporter:
    """The same without the drawing, for baselines. Arguments are those of `ranking_exporter`."""
    return partial(_program, parts, data)


def _program(parts: Parts, data: RankingBatches, trial: Trial, folder: Path) -> dict[str, str]:
    """A candidate's dense part as a program, where the device runs programs."""
    from rankitect.models.candidate import load_ranker
    from rankitect.study.files import inside
    from rankitect.tasks.exporting import programmed

    device = parts.device
    saved = trial.measurement.artifacts.get("weights") if trial.measurement is not None else None
    if saved is None or not offers(device, ExportsRankers):
        return {}
    model = load_ranker(inside(parts.folder, saved).parent, allowed_packages=parts.config.allowed_packages).model
    rows = data.batch_at("test", 0, batch=_ROWS)
    write = partial(device.export_ranker, folder, model, (rows.numeric, rows.ids), rows.label)
    return programmed(parts, trial.architecture, folder, write)
