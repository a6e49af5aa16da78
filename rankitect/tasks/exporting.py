"""What is written beside a model on the front: its drawing, and the program that a device loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import ExportsPrograms, TimesPrograms, offers
from rankitect.data.files import write_whole
from rankitect.documents import read_json
from rankitect.errors import RankitectError
from rankitect.study.files import copy_or_link, disk_trouble, inside

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.config.parts import Parts
    from rankitect.contracts import Exporter, Latencies, Trial
    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["Programs", "drawn", "exporter", "program_exporter", "programmed"]

_PROGRAM = ("program", "program_card", "program_tokenizer")
"""Artifacts of a program."""


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
    parts: Parts,
    architecture: Architecture,
    folder: Path,
    write: Callable[[], dict[str, str]],
    doing: str = "Exporting",
) -> dict[str, str]:
    """What `write` exports for a candidate into its folder; a failure is said and costs what it would have written.

    Args:
        parts: The study's.
        architecture: The candidate's.
        folder: The candidate's.
        write: Gives files by name.
        doing: What it does, in a word for the user.

    Raises:
        RankitectError: The disk is full or cannot be written.
    """
    from rankitect.deploy.quality import ProgramQuality

    name = architecture.fingerprint[:8]
    device = parts.device.name if parts.device is not None else "no device"
    parts.say(f"{doing} {name} for {device}, a few minutes")
    try:
        written = write()
    except RankitectError as error:
        if disk_trouble(error, folder):
            raise
        parts.say(f"{doing} {name} has failed: {error}")
        return {}
    if "program_card" in written:  # a device of somebody's own may write another kind of program
        card = read_json(folder / written["program_card"], dict[str, Any])
        if card["quality"] is not None:
            parts.say(f"{name} in {card['precision']}: {ProgramQuality.from_json(card['quality'])}")
    return written


@dataclass(frozen=True)
class Programs:
    """How the programs of a study's language models are written and timed.

    Attributes:
        parts: The study's.
        latency: Gives the predicted latencies of a space; None where there is no device, and no program is wanted.
        text: Gives windows of held-out text, on which a program's quality is compared with its model's.
        judge: Compares them otherwise, where the task has its own way.
    """

    parts: Parts
    latency: Callable[[SearchSpace], Latencies | None]
    text: Callable[[], Tensor]
    judge: ProgramJudge | None = None

    def written(self, trial: Trial, folder: Path) -> dict[str, str]:
        """The program of a trial's model in its candidate's folder, and how long it takes: files by name.

        A program that the recipe has left is that of the model already, judged as its stage does: it is timed only.
        """
        from rankitect.models.candidate import load_language_model

        parts, device = self.parts, self.parts.device
        artifacts = trial.measurement.artifacts if trial.measurement is not None else {}
        if "card" not in artifacts or not offers(device, ExportsPrograms):
            return {}
        place = inside(parts.folder, artifacts["card"]).parent
        candidate = load_language_model(place, allowed_packages=parts.config.allowed_packages)
        latency = self.latency(candidate.space)
        if latency is None:
            return {}
        predicted = {workload: latency.predict(candidate.closed, workload) for workload in latency.workloads}
        left = _left_by_recipe(parts.folder, artifacts, folder)
        if left and offers(device, TimesPrograms):
            return left | programmed(
                parts, trial.architecture, folder, partial(device.time_program, folder, predicted), "Timing"
            )
        if left:
            return left
        write = partial(device.export, folder, candidate.model, candidate.tokenizer, predicted, self.text())
        return programmed(parts, trial.architecture, folder, partial(write, **self._known(candidate.model)))

    def _known(self, model: Standalone) -> dict[str, Any]:
        """What is known of a model beside its text: how it is judged, and what it was before it was rounded. That is
        what it inherits, where nothing has trained it in few bits."""
        known: dict[str, Any] = {} if self.judge is None else {"judge": self.judge}
        untrained = not self.parts.stages and not self.parts.trains_weights
        return known | ({"floats": model.in_floats()} if untrained and not model.plan.is_float else {})


def exporter(programs: Programs) -> Exporter:
    """A function of a language model's trial and its candidate's folder that writes into it; gives files by name."""

    def export(trial: Trial, folder: Path) -> dict[str, str]:
        return {**drawn(programs.parts.graph_space, trial.architecture, folder), **programs.written(trial, folder)}

    return export


def program_exporter(programs: Programs, wanted: Callable[[Architecture], bool]) -> Exporter:
    """The same without the drawing, for baselines that are `wanted`."""
    return lambda trial, folder: programs.written(trial, folder) if wanted(trial.architecture) else {}


def _left_by_recipe(run: Path, artifacts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The program that the recipe has left of a trial's model, brought into a folder; empty where there is none."""
    if not all(name in artifacts for name in _PROGRAM):
        return {}
    places = {name: inside(run, artifacts[name]) for name in _PROGRAM}
    if not all(place.is_file() for place in places.values()):
        return {}
    for place in places.values():
        if not (folder / place.name).exists():  # a candidate's folder has what its trial left
            copy_or_link(place, folder / place.name)
    return {name: place.name for name, place in places.items()}
