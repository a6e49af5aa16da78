"""Shared weights at equal cost: the schedules of once-for-all training against those of one-shot search.

Every method trains the same supernet for as many FLOPs as the first does in the task's own number of steps, at learning
rates that fall alike; then the same networks are measured with the weights that they inherit, on the data that a search
chooses by. Finished trainings are kept in a file, and one that was stopped goes on.

    python benchmarks/once_for_all.py --space ranking_engineered --seeds 5
    python benchmarks/once_for_all.py --space mobile_llm --seeds 3 --methods "sandwich,deps"
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Results, arguments, table

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture

METHODS: dict[str, list[str]] = {
    "one_shot, sandwich": ["controller=one_shot", "controller.sampling=sandwich"],
    "one_shot, any path": ["controller=one_shot"],
    "sandwich": ["controller.schedule=sandwich"],
    "deps": [],
    "late": ["controller.schedule=late"],
    "progressive": ["controller.schedule=progressive"],
    "deps, delay 25%": ["controller.delay=0.25"],
    "deps, delay 75%": ["controller.delay=0.75"],
    "deps, no ramp": ["controller.ramp=0"],
    "deps, labels beside the teacher": ["controller.distil=0.5"],
    "deps, own rates": [],
}
"""Overrides by name; without a controller: once_for_all. The first is what the others are compared with."""
OWN_RATES = ("deps, own rates",)
"""Methods whose learning rate falls as once_for_all's does; that of all others as one_shot's."""


class Session:
    """What `prepare` uses of a study; remembers what was charged."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder
        self.logger = logging.getLogger("rankitect")
        self.flops = 0
        self.trials: list[Any] = []
        self.first: dict[int, float] = {}

    def charge(self, key: str, spent: Any) -> None:
        """Remember the total."""
        self.flops = spent.train_flops

    def scalar(self, name: str, value: float, step: int) -> None:
        """Remember the loss of the largest network, where that is what the method gives."""
        if name == "supernet/loss":
            self.first[step] = value

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""

    def should_stop(self) -> bool:
        """Never."""
        return False

    def remaining(self) -> float:
        """No budget."""
        return 1.0


def main() -> None:
    """Train what is not trained yet, and print the table."""
    options = arguments(
        __doc__ or "", rounds=1, space="ranking_engineered", task="", seeds=5, networks=20, steps=0,
        methods=",".join(METHODS).replace(", ", "; "), folder="runs/once_for_all", more="",
    )  # fmt: skip
    names = [name.strip().replace("; ", ", ") for name in options.methods.split(",")]
    if unknown := [name for name in names if name not in METHODS]:
        raise SystemExit(f"no method {unknown[0]!r}: {'; '.join(METHODS)} (write a comma inside of a name as ;)")
    common = [f"space={options.space}", *([f"task={options.task}"] if options.task else []), *options.more.split()]
    if options.quick:
        common, options.seeds, options.networks, options.steps = [*common, "preset=smoke"], 2, 3, 12
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if options.quick else Path(options.folder)
        folder.mkdir(parents=True, exist_ok=True)
        results = Results(folder / f"{options.space}.jsonl")
        for seed in range(options.seeds):
            for name in names:
                if results.find(method=name, seed=seed) is None:
                    results.add(trained(name, names[0], seed, common, options, folder))
        report(results, names, options)


def trained(name: str, first: str, seed: int, common: list[str], options: Any, folder: Path) -> dict[str, Any]:
    """Train a supernet by a method, and measure the networks on it."""
    from rankitect.contracts import TrialContext

    reference = made(first, seed, common, options.steps or None, folder)
    steps = reference.controller._steps  # type: ignore[union-attr]
    target = cost(reference, steps)
    parts = made(name, seed, common, steps, folder)
    for _ in range(3):  # costs are nearly proportional to steps
        steps = max(4, round(steps * target / cost(parts, steps)))
        parts = made(name, seed, common, steps, folder)
    state = folder / f"{options.space}-{name}-{seed}".replace(" ", "_").replace(",", "").replace("%", "")
    state.mkdir(parents=True, exist_ok=True)
    session = Session(state)
    parts.controller.prepare(session)  # type: ignore[union-attr, arg-type]
    evaluator, values = parts.evaluators["screen"], []
    for network in networks(parts, options.networks):
        measured = evaluator.measure(network, TrialContext(folder, state, seed))
        values.append(measured.metrics[evaluator.metrics[0].name].value)
    return {
        "method": name, "seed": seed, "steps": steps, "flops": session.flops, "values": values,
        "metric": evaluator.metrics[0].name, "better": evaluator.metrics[0].direction,
    }  # fmt: skip


def made(name: str, seed: int, common: list[str], steps: int | None, folder: Path) -> Parts:
    """The parts of a search by a method."""
    from rankitect.config import resolve
    from rankitect.config.parts import build
    from rankitect.methods.shared_weights import USUAL_FALL

    own, controller = METHODS[name], []
    if not any(key.startswith("controller=") for key in own):
        rates = (
            [] if name in OWN_RATES else [f"controller.optimizer.{key}={value}" for key, value in USUAL_FALL.items()]
        )
        controller = ["controller=once_for_all", *rates]
    length = [] if steps is None else [f"controller.steps={steps}"]
    return build(resolve([*common, *controller, *own, *length, f"seed={seed}"]), folder, lambda text: None)


def cost(parts: Parts, steps: int) -> float:
    """FLOPs of so many steps, in forward passes of one example."""
    controller: Any = parts.controller
    drawn = drawing(controller, parts, steps)
    space = controller.bounded.space
    known: dict[str, float] = {}
    total = 0.0
    for step in range(steps):
        for architecture in drawn(step):
            key = architecture.fingerprint
            if key not in known:
                known[key] = float(space.cost(architecture, "flops"))
            total += known[key]
    return total


def drawing(controller: Any, parts: Parts, steps: int) -> Callable[[int], Sequence[Architecture]]:
    """Which architectures each step of a method trains."""
    from rankitect.methods.once_for_all.settings import OnceForAllConfig
    from rankitect.methods.once_for_all.training import OnceForAllTraining
    from rankitect.methods.supernet_search import Paths

    config, seed = controller._training, parts.config.seed
    if not isinstance(config, OnceForAllConfig):
        return Paths(controller.bounded, config, seed, steps).at
    with tempfile.TemporaryDirectory() as empty:
        supernet = parts.task.supernet(controller.bounded.graph_space)  # type: ignore[attr-defined]
        plan = OnceForAllTraining(config, controller.bounded, parts.task, supernet, seed, Path(empty))  # type: ignore[arg-type]
    plan.weights.close()
    return lambda step: plan.lesson(step).architectures


def networks(parts: Parts, count: int) -> list[Architecture]:
    """The same networks for every method and seed: the largest, the smallest, and uniform draws."""
    from rankitect.methods.supernet_search import Draws

    bounded = parts.controller.bounded  # type: ignore[union-attr]
    ends = Draws(bounded, 0)
    drawn = bounded.space.sample_many(count, np.random.default_rng(17), **bounded.limits)
    return [bounded.lift(each) for each in (ends.largest, ends.smallest, *drawn)]


def report(results: Results, names: Sequence[str], options: Any) -> None:
    """The table: means over seeds, and changes from the first method, paired over seeds, with 95% intervals."""
    rows = []
    base = values(results, names[0], options.seeds)
    for name in names:
        own = values(results, name, options.seeds)
        known = [r for r in results.rows if r["method"] == name]
        cells = [own[:, 0], own[:, 1], own[:, 2:].mean(1)]
        against = [base[:, 0], base[:, 1], base[:, 2:].mean(1)]
        shown = [interval(each) for each in cells]
        changes = ["" if name == names[0] else interval(a - b) for a, b in zip(cells, against, strict=True)]
        tera = np.mean([r["flops"] for r in known]) / 1e12
        rows.append((name, f"{np.mean([r['steps'] for r in known]):,.0f}", f"{tera:.3g}", *shown, *changes))
    metric, better = results.rows[0]["metric"], "lower" if results.rows[0]["better"] == "min" else "higher"
    table(
        f"Shared weights of {options.space} at equal cost: {metric.replace('_', ' ')} ({better} is better)",
        ("method", "steps", "training TFLOP", "largest", "smallest", f"mean of {options.networks}",
         "largest, change", "smallest, change", "mean, change"),
        rows,
        f"Means over {options.seeds} seeds with 95% intervals of Student's t; changes are from {names[0]}, paired over "
        "seeds. Networks are measured with inherited weights on the data that a search chooses by.",
        timed=False,
    )  # fmt: skip


def values(results: Results, name: str, seeds: int) -> np.ndarray:
    """Values of the networks, [seeds, networks]."""
    rows = [results.find(method=name, seed=seed) for seed in range(seeds)]
    return np.asarray([row["values"] for row in rows if row is not None])


def interval(each: np.ndarray) -> str:
    """The mean, and the half width of its 95% interval."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(each) - 1)) * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else np.nan
    return f"{each.mean():.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
