"""Several searches side by side: what each found, what it spent, how fast, and which cheap scores can be trusted.

Only final measurements count for quality, so that methods that screen differently can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.methods.objectives import hypervolume

if TYPE_CHECKING:
    import pandas as pd

    from rankitect.contracts import MetricSpec, Spent

__all__ = [
    "MethodRun",
    "corner",
    "correlation",
    "methods_table",
    "progress",
    "read_run",
    "values",
]


@dataclass(frozen=True)
class MethodRun:
    """One search.

    Attributes:
        method: The controller's name.
        seed: The study's seed.
        points: Objectives of each final measurement in order, to be minimised, [n, objectives].
        spent: Tokens (or examples) trained and evaluated by the end of each of them, preparation included, [n].
        total: What the whole search spent, without baselines.
        minutes: Wall-clock minutes.
        baselines: Objectives of the baselines by name, and what `held` is of, last.
        held: The first objective on data by which nothing was chosen (else itself), of each final measurement, [n].
    """

    method: str
    seed: int
    points: np.ndarray
    spent: np.ndarray
    total: Spent
    minutes: float
    baselines: Mapping[str, list[float]]
    held: np.ndarray


def read_run(folder: Path, method: str, seed: int, objectives: Sequence[MetricSpec]) -> MethodRun:
    """Read a run folder.

    Args:
        folder: The run folder.
        method: Name for tables.
        seed: Of the run.
        objectives: What counts.
    """
    from rankitect.contracts import Spent
    from rankitect.study.confirming import CONFIRM
    from rankitect.study.ledger import BASELINES, CONFIRMED, PREPARE
    from rankitect.study.store import Store

    def point(metrics: Mapping[str, Any]) -> list[float]:
        return [(1.0 if o.direction == "min" else -1.0) * metrics[o.name].value for o in objectives]

    with Store(folder / "study.db", None, readonly=True) as store:
        stages = store.charges.totals()
        running = stages.get(PREPARE, Spent()).data
        points, spent, held, baselines = [], [], [], {}
        shown = objectives[0].held_out or objectives[0].name
        for trial in store.trials:
            if trial.batch == CONFIRM:
                continue
            if trial.baseline is not None:
                if trial.measurement is not None:
                    metrics = trial.measurement.metrics
                    baselines[trial.baseline] = [*point(metrics), metrics[shown].value]
                continue
            running += trial.spent.data
            if trial.evaluator == "final" and trial.measurement is not None:
                points.append(point(trial.measurement.metrics))
                spent.append(running)
                held.append(trial.measurement.metrics[shown].value)
        minutes = store.charges.worked() / 60
    total = sum((s for stage, s in stages.items() if stage not in (BASELINES, CONFIRMED)), Spent())
    measured = np.asarray(points, dtype=float).reshape(len(points), len(objectives))
    return MethodRun(
        method, seed, measured, np.asarray(spent, dtype=float), total, minutes, baselines, np.asarray(held)
    )


def values(folder: Path, evaluator: str, metric: str) -> dict[str, float]:
    """A metric of all architectures that an evaluator measured in a run, by fingerprint."""
    from rankitect.study.store import Store

    with Store(folder / "study.db", None, readonly=True) as store:
        return {
            t.architecture.fingerprint: t.measurement.metrics[metric].value
            for t in store.trials
            if t.evaluator == evaluator and t.baseline is None and t.measurement is not None
        }


def corner(runs: Sequence[MethodRun]) -> tuple[float, float]:
    """The reference corner of hypervolumes: the worst of all runs in both objectives, and a tenth of the span more."""
    every = np.concatenate([run.points for run in runs])
    low, high = every.min(0), every.max(0)
    edge = high + 0.1 * np.maximum(high - low, 1e-12)
    return float(edge[0]), float(edge[1])


def progress(run: MethodRun, reference: tuple[float, float]) -> np.ndarray:
    """What the final measurements so far dominate, after each of them: hypervolume, or the best where there is one
    objective, [n]."""
    if run.points.shape[1] == 1:
        return np.minimum.accumulate(run.points[:, 0])
    return np.asarray(
        [hypervolume([(p[0], p[1]) for p in run.points[: i + 1]], reference) for i in range(len(run.points))]
    )


def _over_seeds(values_: Sequence[float]) -> str:
    """Mean and half the width of its 95% interval (Student's t over seeds)."""
    mean = float(np.mean(values_))
    if len(values_) < 2:
        return f"{mean:.5g}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values_) - 1)) * float(np.std(values_, ddof=1)) / math.sqrt(len(values_))
    return f"{mean:.5g} ± {half:.2g}"


def methods_table(runs: Sequence[MethodRun], objectives: Sequence[MetricSpec]) -> pd.DataFrame:
    """One line a method: best quality, hypervolume, and what was spent, as means over seeds with 95% intervals."""
    import pandas as pd

    two = len(objectives) == 2
    reference = corner(runs) if two else (0.0, 0.0)
    sign = 1.0 if objectives[0].direction == "min" else -1.0
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method and len(run.points)]
        if not mine:
            rows.append({"method": method, "seeds": 0})
            continue
        row: dict[str, Any] = {
            "method": method,
            "seeds": len(mine),
            f"best {objectives[0].name}": _over_seeds([sign * float(run.points[:, 0].min()) for run in mine]),
        }
        if objectives[0].held_out:
            row[f"its {objectives[0].held_out}"] = _over_seeds([float(r.held[r.points[:, 0].argmin()]) for r in mine])
        if two:
            row["hypervolume"] = _over_seeds([float(progress(run, reference)[-1]) for run in mine])
        row |= {
            "final trials": float(np.mean([len(run.points) for run in mine])),
            "trained": float(np.mean([run.total.trained for run in mine])),
            "evaluated": float(np.mean([run.total.evaluated for run in mine])),
            "minutes": round(float(np.mean([run.minutes for run in mine])), 2),
        }
        rows.append(row)
    return pd.DataFrame([*rows, *_baseline_rows(runs, objectives, sign)])


def _baseline_rows(runs: Sequence[MethodRun], objectives: Sequence[MetricSpec], sign: float) -> list[dict[str, Any]]:
    """The baselines, over the seeds with which they were measured, the best first."""
    known: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for name, values_ in run.baselines.items():
            known.setdefault(name, {})[run.seed] = values_
    rows = []
    measured = {name: list(by_seed.values()) for name, by_seed in known.items()}
    for name, each in sorted(measured.items(), key=lambda item: float(np.mean([v[0] for v in item[1]]))):
        row: dict[str, Any] = {"method": f"baseline {name}", "seeds": len(each)}
        row[f"best {objectives[0].name}"] = _over_seeds([sign * v[0] for v in each])
        if objectives[0].held_out:
            row[f"its {objectives[0].held_out}"] = _over_seeds([v[-1] for v in each])
        rows.append(row)
    return rows


def correlation(
    score: Mapping[str, float], truth: Mapping[str, float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float, int]:
    """Kendall's τ between a score and the truth, its 95% interval (bootstrap over architectures), and their number.

    Args:
        score: By fingerprint, better when it is larger in the same sense as `truth`.
        truth: By fingerprint.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """
    from scipy.stats import kendalltau

    both = [f for f in truth if f in score]
    if len(both) < 3:
        return math.nan, math.nan, math.nan, len(both)
    x, y = (np.asarray([of[f] for f in both]) for of in (score, truth))
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        pick = rng.integers(len(both), size=len(both))
        tau = float(kendalltau(x[pick], y[pick]).statistic)
        if math.isfinite(tau):
            drawn.append(tau)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (math.nan, math.nan)
    return float(kendalltau(x, y).statistic), float(low), float(high), len(both)
