"""What is written beside a language model on the front: its drawing, and the program that a phone loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.errors import RankitectError

if TYPE_CHECKING:
    from rankitect.deploy.latency import Latency
    from rankitect.study.join import Parts

__all__ = ["exporter"]


def exporter(parts: Parts, latency: Latency | None) -> Callable[[Any, Path], dict[str, str]]:
    """A function of a trial and its candidate's folder that writes into it, and gives names and files.

    Args:
        parts: The study's.
        latency: Predicted latencies; None where there is no device, and no program is wanted.
    """

    def export(trial: Any, folder: Path) -> dict[str, str]:
        from rankitect.graph.picture import picture
        from rankitect.reports.graph_picture import draw_graph

        nodes, edges = picture(parts.space, trial.architecture, dropped=False)
        (folder / "graph.svg").write_text(draw_graph(nodes, edges, title=trial.architecture.fingerprint[:8]))
        return {"graph": "graph.svg", **_program(parts, latency, trial, folder)}

    return export


def _program(parts: Parts, latency: Latency | None, trial: Any, folder: Path) -> dict[str, str]:
    """A candidate's program; a failure is said and costs the program only."""
    from rankitect.models.candidate import load_candidate

    device, name = parts.device, trial.architecture.fingerprint[:8]
    card = trial.measurement.artifacts.get("card") if trial.measurement is not None else None
    if latency is None or card is None or not hasattr(device, "export"):
        return {}
    parts.say(f"Exporting {name} for {device.name}, a few minutes")
    candidate = load_candidate((parts.folder / card).parent)
    predicted = {workload: latency.predict(trial.architecture, workload) for workload in latency.workloads}
    try:
        found: dict[str, str] = device.export(folder, candidate.model, candidate.tokenizer, predicted)
    except RankitectError as error:
        parts.say(f"{name} has no program: {error}")
        return {}
    return found
