"""What is written beside a model on the front: its drawing, and the program that a device loads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import ExportsPrograms, offers
from rankitect.data.files import write_whole
from rankitect.documents import read_json
from rankitect.errors import RankitectError
from rankitect.study.files import disk_trouble

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.config.parts import Parts
    from rankitect.contracts import Exporter, Latencies, Trial
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["drawn", "exporter", "program_exporter", "programmed"]


def drawn(space: SearchSpace, architecture: Architecture, folder: Path) -> dict[str, str]:
    """Draw a candidate's graph into its folder.

    Returns:
        The artifact by name.
    """
    from rankitect.graph.picture import picture
    from rankitect.reports.figures.graph_picture import draw_graph

    nodes, edges = picture(space, architecture, dropped=False)
    write_whole(folder / "graph.svg", draw_graph(nodes, edges, title=architecture.fingerprint[:8]))
    return {"graph": "graph.svg"}


def programmed(
    parts: Parts, architecture: Architecture, folder: Path, write: Callable[[], dict[str, str]]
) -> dict[str, str]:
    """What `write` exports for a candidate into its folder; a failure is said and costs the program only.

    Raises:
        RankitectError: The disk is full or cannot be written.
    """
    from rankitect.deploy.quality import ProgramQuality

    name = architecture.fingerprint[:8]
    device = parts.device.name if parts.device is not None else "no device"
    parts.say(f"Exporting {name} for {device}, a few minutes")
    try:
        written = write()
    except RankitectError as error:
        if disk_trouble(error, folder):
            raise
        parts.say(f"{name} has no program: {error}")
        return {}
    if "program_card" in written:  # a device of somebody's own may write another kind of program
        card = read_json(folder / written["program_card"], dict[str, Any])
        parts.say(f"{name} in {card['precision']}: {ProgramQuality.from_json(card['quality'])}")
    return written


def exporter(parts: Parts, latency: Latencies | None, text: Callable[[], Tensor]) -> Exporter:
    """A function of a language model's trial and its candidate's folder that writes into it; gives files by name.

    Args:
        parts: The study's.
        latency: Predicted latencies; None where there is no device, and no program is wanted.
        text: Gives windows of held-out text, on which a program's quality is compared with its model's.
    """

    def export(trial: Trial, folder: Path) -> dict[str, str]:
        return {**drawn(parts.graph_space, trial.architecture, folder), **_program(parts, latency, text, trial, folder)}

    return export


def program_exporter(
    parts: Parts, latency: Latencies | None, text: Callable[[], Tensor], wanted: Callable[[Architecture], bool]
) -> Exporter:
    """The same without the drawing, for baselines that are `wanted`. Other arguments are those of `exporter`."""
    program = partial(_program, parts, latency, text)
    return lambda trial, folder: program(trial, folder) if wanted(trial.architecture) else {}


def _program(
    parts: Parts, latency: Latencies | None, text: Callable[[], Tensor], trial: Trial, folder: Path
) -> dict[str, str]:
    from rankitect.models.candidate import load_language_model
    from rankitect.study.files import inside

    device, architecture = parts.device, trial.architecture
    card = trial.measurement.artifacts.get("card") if trial.measurement is not None else None
    if latency is None or card is None or not offers(device, ExportsPrograms):
        return {}
    allowed = parts.config.allowed_packages
    candidate = load_language_model(inside(parts.folder, card).parent, allowed_packages=allowed)
    predicted = {workload: latency.predict(architecture, workload) for workload in latency.workloads}
    write = partial(device.export, folder, candidate.model, candidate.tokenizer, predicted, text())
    return programmed(parts, architecture, folder, write)
