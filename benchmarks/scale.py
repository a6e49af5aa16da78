"""What a study of many trials costs beside its measurements: ask and tell, the study's own work, files, report.

Architectures of `ranking_blocks` are measured by a formula, so that all time is the platform's. Ask and tell are of the
controller alone; the study adds the store (flushed to the disk twice a trial), the ledger and the front.

    python benchmarks/scale.py --trials 10000
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, table, verdict

# What each is asked for; DNAS is left out: once its gradients have decided, it asks for a handful of architectures.
CONTROLLERS = {
    "random": ("controller.samples={}", "controller.bands=1", "constraints.flops=[0.01,100]"),
    "evolution": ("controller.samples={}",),
    "sampled": ("controller.samples={}",),
    "one_shot": ("controller.samples={}", "controller.steps=4", "controller.by=screen"),
    "sigeo": ("controller.samples={}", "controller.by=proxy", "controller.warmup=0"),
    "reinforce": ("controller.samples={}", "controller.episodes={}", "controller.co_training=false"),
}
CHUNK = 500


class Formula:
    """A quality that depends on the cost and the fingerprint."""

    name = "formula"

    def __init__(self, space: Any) -> None:
        from rankitect.contracts import MetricSpec

        self._space = space
        self.metrics = [
            MetricSpec("validation_normalized_entropy", "NE", "min", "quality"),
            MetricSpec("flops", "FLOP", "min", "cost"),
        ]

    def measure(self, architecture: Any, context: Any) -> Any:
        """A measurement at once."""
        from rankitect.contracts import Measurement, Metric

        flops = float(self._space.cost(architecture, "flops", B=1))
        noise = int(architecture.fingerprint[:8], 16) / 2**32
        quality = 0.8 + 1.0 / np.log(10 + flops) + 0.02 * noise
        return Measurement({self.metrics[0].name: Metric(quality, "NE"), "flops": Metric(flops, "FLOP")})


class Timed:
    """A controller whose asks and tells are timed."""

    def __init__(self, controller: Any, formula: Formula) -> None:
        self._controller, self._formula = controller, formula
        self.seconds: list[float] = []
        self.ends: list[float] = []

    def prepare(self, session: Any) -> None:
        """The controller's own."""
        self._controller.prepare(session)

    def recover(self, trials: list[Any]) -> None:
        """The controller's own."""
        self._controller.recover(trials)

    def ask(self, n: int) -> list[Any]:
        """Timed."""
        started = time.perf_counter()
        made = self._controller.ask(n)
        self.seconds.append(time.perf_counter() - started)
        return made

    def tell(self, trials: list[Any]) -> None:
        """Timed with the ask before."""
        started = time.perf_counter()
        self._controller.tell(trials)
        self.seconds[-1] += time.perf_counter() - started
        self.ends.append(time.perf_counter())


def main() -> None:
    """Print the tables."""
    options = arguments(__doc__ or "", rounds=1, trials=10000)
    trials = 300 if options.quick else options.trials
    rows, files = [], []
    for name in CONTROLLERS:
        place = Path(tempfile.mkdtemp(prefix="rankitect-scale-"))
        try:
            timed, folder = run(name, trials, place)
            last = slice(-min(CHUNK, trials // 3), None)
            own = np.diff(timed.ends)[last] - np.asarray(timed.seconds[1:])[: len(timed.ends) - 1][last]
            median = float(np.median(timed.seconds[last])) * 1e3
            worst = np.quantile(timed.seconds[last], 0.99) * 1e3
            rows.append((name, f"{len(timed.ends):,}", f"{median:.2f}", f"{worst:.2f}",
                         verdict(median, at_most=5), f"{np.median(own) * 1e3:.1f}"))  # fmt: skip
            if name == "random":
                files = outputs(folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    header = ("controller", "asked", "ask + tell, ms (median)", "99%", "target, ms", "the study's own work a trial, ms")
    table(f"The last trials of {trials:,}", header, rows, "Bayesian search states its own bound (search_engine.py).")
    table(f"After {trials:,} trials", ("what", "found", "target"), files, "")


def run(name: str, trials: int, place: Path) -> tuple[Timed, Path]:
    """A whole study with a formula for an evaluator."""
    from rankitect.config import resolve
    from rankitect.config.parts import build
    from rankitect.study.folder import RunFolder
    from rankitect.study.outputs import Labels, OutputOptions
    from rankitect.study.plan import StudyPlan, Subject
    from rankitect.study.study import Study

    given = ["space=ranking_blocks", f"controller={name}", "task=movielens", "preset=smoke"]
    given += [key.format(trials) for key in CONTROLLERS[name]]
    resolved = resolve(given)
    parts = build(resolved, place / "parts", lambda text: None)
    formula = Formula(parts.space)
    timed = Timed(parts.controller, formula)
    with RunFolder(place / "run", resolved.data) as folder:
        subject = Subject(dict.fromkeys(("final", "screen", "proxy"), formula), parts.decode, parts.space, parts.task)
        plan = StudyPlan(["validation_normalized_entropy", "flops"])
        outputs = OutputOptions(Labels("ranking_blocks", "movielens", name, ""), tensorboard=False)
        Study(folder, subject, plan, outputs).run(timed)
    return timed, place / "run"


def outputs(folder: Path) -> list[tuple[object, ...]]:
    """Size of the study's file, time of the report, time to open the study again."""
    from rankitect.graph import Architecture
    from rankitect.reports import write_report
    from rankitect.study.store import Store

    size = (folder / "study.db").stat().st_size / 2**20
    started = time.perf_counter()
    Store(folder / "study.db", Architecture.from_json, readonly=True).close()
    opened = time.perf_counter() - started
    started = time.perf_counter()
    write_report(folder)
    report = time.perf_counter() - started
    page = (folder / "report" / "index.html").stat().st_size / 2**20
    count = len(json.loads((folder / "summary.json").read_text())["pareto"])
    return [
        ("study.db, MiB", f"{size:.1f}", verdict(size, at_most=50)),
        ("opening the study, s", f"{opened:.1f}", ""),
        ("report, s", f"{report:.1f}", verdict(report, at_most=20)),
        ("report page, MiB", f"{page:.1f}", ""),
        ("models on the front", count, ""),
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
