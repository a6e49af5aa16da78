"""Search methods against each other: their progress over what they spent, and where their models stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.reports.method_comparison import MethodRun, corner, progress

if TYPE_CHECKING:
    from rankitect.contracts import MetricSpec

__all__ = ["draw_progress", "draw_trade_off"]


def draw_progress(runs: Sequence[MethodRun], objectives: Sequence[MetricSpec], path: Path) -> None:
    """Hypervolume (or the best quality) over what was spent: the mean of seeds, and their range."""
    figure, axes = _axes()
    two = len(objectives) == 2
    reference = corner(runs) if two else (0.0, 0.0)
    most = max(float(run.spent[-1]) for run in runs if len(run.spent))
    grid = np.linspace(0, most, 200)
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method and len(run.points)]
        curves = []
        for run in mine:
            at = np.searchsorted(run.spent, grid, side="right") - 1
            curve = progress(run, reference)
            nothing = 0.0 if two else np.nan
            curves.append(np.where(at >= 0, curve[np.maximum(at, 0)], nothing))
        if curves:
            (line,) = axes.step(grid, np.mean(curves, axis=0), where="post", label=method)
            axes.fill_between(
                grid, np.min(curves, 0), np.max(curves, 0), step="post", alpha=0.15, color=line.get_color()
            )
    axes.set_xlabel("tokens or examples trained and evaluated")
    axes.set_ylabel("hypervolume" if two else _label(objectives[0]))
    _save(figure, axes, path)


def draw_trade_off(runs: Sequence[MethodRun], objectives: Sequence[MetricSpec], path: Path) -> None:
    """Every final measurement and the baselines: quality against cost."""
    figure, axes = _axes()
    signs = [1.0 if o.direction == "min" else -1.0 for o in objectives]
    for method in dict.fromkeys(run.method for run in runs):
        points = np.concatenate([run.points for run in runs if run.method == method]) * signs
        axes.scatter(points[:, 1], points[:, 0], s=14, alpha=0.7, label=method)
    for name, at in runs[0].baselines.items():
        axes.scatter(at[1] * signs[1], at[0] * signs[0], marker="x", color="black")
        axes.annotate(name, (at[1] * signs[1], at[0] * signs[0]), fontsize=7)
    axes.set_xlabel(_label(objectives[1]))
    axes.set_ylabel(_label(objectives[0]))
    _save(figure, axes, path)


def _label(objective: MetricSpec) -> str:
    """A name without underscores, and the unit where it says more than the name."""
    name = objective.name.replace("_", " ")
    return name if not objective.unit or objective.unit.lower() in name else f"{name} [{objective.unit}]"


def _axes() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path)
