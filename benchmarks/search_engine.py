"""How much of a known front the Bayesian search finds: language models of HW-GPT-Bench, perplexity against FLOPs.

The perplexity of a GPT-S is that of the surrogate network released with HW-GPT-Bench (arXiv 2405.10299). Both values
are minimised; FLOPs count as a measurement like any other, or as a cost that is known beforehand. The folder holds
`perplexity_s.npz`, the network's weights (fc1 to fc5), and `ref_hwgpt_s.npz`, the best known front with its scale.

    python benchmarks/search_engine.py --data FOLDER --seeds 5 --evaluations 300
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import arguments, table, verdict

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

AT = {100: 0.97, 300: 0.985}
"""Evaluations after which the hypervolume is read, with the target of its mean."""
SECONDS = 2.0
"""Target: CPU seconds a suggestion, at most."""
EMBED, LAYERS, MLP, HEADS = (192, 384, 768), (10, 11, 12), (2, 3, 4), (4, 8, 12)
TOKENS, VOCABULARY = 1024, 50304


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=1, data="", seeds=5, evaluations=300)
    if not options.data:
        raise SystemExit("--data: the folder with perplexity_s.npz and ref_hwgpt_s.npz")
    import torch

    torch.set_num_threads(options.threads or 1)
    problem, space = Problem(Path(options.data)), gpt()
    seeds, evaluations = (1, 20) if options.quick else (options.seeds, options.evaluations)
    at = [n for n in AT if n <= evaluations] or [evaluations]
    methods: dict[str, Callable[[int], tuple[np.ndarray, float]]] = {
        "bayesian, both evaluated": lambda seed: search(space, problem, seed, evaluations, known=False),
        "bayesian, FLOPs known": lambda seed: search(space, problem, seed, evaluations, known=True),
        "random": lambda seed: (problem.points(drawn(space, evaluations, seed)), 0.0),
    }
    rows = []
    for name, method in methods.items():
        found, taken = [], []
        for seed in range(seeds):
            points, cpu = method(seed)
            found.append([problem.hypervolume(points[:n]) for n in at])
            taken.append(cpu)
            print(f"{name}, seed {seed}: {', '.join(f'{v:.4f}' for v in found[-1])}; {cpu:.2f} s", flush=True)
        cells = [f"{np.mean(v):.4f} ({min(v):.4f}–{max(v):.4f})" for v in zip(*found, strict=True)]
        goals = [
            verdict(float(np.mean(v)), at_least=AT.get(n, 0)) for n, v in zip(at, zip(*found, strict=True), strict=True)
        ]
        goals.append(verdict(float(np.mean(taken)), at_most=SECONDS))
        rows.append((name, *cells, f"{np.mean(taken):.2f}", "" if name == "random" else "; ".join(goals)))
    table(
        f"Normalised hypervolume, {seeds} seeds",
        ("method", *(f"after {n} evaluations" for n in at), "CPU s a suggestion", "targets"),
        rows,
        "Mean (range) over seeds. Evaluations count from the first random draw; CPU seconds are of the process.",
        timed=False,
    )


class Problem:
    """The surrogate of HW-GPT-Bench, and how good a set of points is.

    Args:
        folder: Where the arrays are.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "perplexity_s.npz") as saved:
            self._layers = [
                (saved[f"fc{i}.weight"].astype(np.float64), saved[f"fc{i}.bias"].astype(np.float64))
                for i in range(1, 6)
            ]
        with np.load(folder / "ref_hwgpt_s.npz") as saved:
            self._low, self._high, front = saved["lo"], saved["hi"], saved["front"]
        self._best = 1.0
        self._best = self.hypervolume(front)

    def points(self, architectures: Iterable[Architecture]) -> np.ndarray:
        """Perplexity and the logarithm of FLOPs to base 10, float64 [n, 2]."""
        return np.asarray([(self._perplexity(a), np.log10(flops(a))) for a in architectures])

    def _perplexity(self, architecture: Architecture) -> float:
        """Of one-hot columns of all choices; those of layers that are not there are 0."""
        values = [(architecture["embed"], EMBED), (architecture["depth"], LAYERS)]
        values += [(architecture.get(f"layers.{i}.mlp"), MLP) for i in range(12)]
        values += [(architecture.get(f"layers.{i}.heads"), HEADS) for i in range(12)]
        hidden = np.asarray(
            [float(value == v) for value, all_ in values for v in all_]
            + [float(architecture["bias"] == v) for v in ("yes", "no")]
        )
        for i, (weight, bias) in enumerate(self._layers):
            hidden = weight @ (np.maximum(hidden, 0.0) if i else hidden) + bias
        return float(hidden[0])

    def hypervolume(self, points: np.ndarray) -> float:
        """The area that points dominate, after scaling to the known front's range, as a share of that front's."""
        scaled = (points - self._low) / (self._high - self._low)
        area, height = 0.0, 1.0
        for x, y in sorted(map(tuple, scaled)):
            if x < 1 and y < height:
                area += (1 - x) * (height - y)
                height = y
        return area / self._best


def flops(architecture: Architecture) -> float:
    """FLOPs of a forward pass over 1,024 tokens, as HW-GPT-Bench counts them: two a parameter, and attention."""
    width, depth, bias = int(architecture["embed"]), int(architecture["depth"]), architecture["bias"] == "yes"  # type: ignore[arg-type]
    ratios = sum(int(architecture[f"layers.{i}.mlp"]) for i in range(depth))  # type: ignore[arg-type]
    layers = depth * (4 * width**2 + (4 * bias + 2) * width) + 2 * width**2 * ratios
    params = (VOCABULARY + 1024 + 1) * width + layers
    return 2.0 * params * TOKENS + depth * 4.0 * width * TOKENS**2


def gpt() -> SearchSpace:
    """The 27 choices of GPT-S. Of its graph only the choices count, and which of them have an effect when."""
    from rankitect.blocks import Linear
    from rankitect.graph import B, Graph, SearchSpace, Wire, Zero

    g = Graph("gpt_s")
    width, depth = g.choice("embed", EMBED), g.choice("depth", LAYERS)

    def layer(i: int, x: Wire) -> Wire:
        for name, values in (("mlp", MLP), ("heads", HEADS)):
            size = g.choice(name, values)
            x = x + Linear(8)(Linear(size)(x, name=f"{name}_in"), name=f"{name}_out")
        return x

    x = Linear(8)(Linear(width)(g.input("x", B, 8), name="in"), name="embedding")
    x = g.repeat("layers", depth, layer, x)
    g.out = Linear(1)(x + g.oneof("bias", {"yes": Linear(8), "no": Zero()}, x), name="out")
    return SearchSpace(g)


def drawn(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Random architectures, each choice drawn alike.

    They find more here than draws that are uniform over different models, of which 9 in 10 have the largest depth.
    """
    rng = np.random.default_rng(seed)
    columns = {path: rng.integers(0, len(c.values), count) for path, c in space.choices.items()}
    return space.decode(space.canonical(columns))


class Task:
    """What the search may ask beforehand."""

    def costs(self, architecture: Architecture) -> dict[str, Any]:
        """FLOPs, known without an evaluation."""
        from rankitect.contracts import Metric

        return {"flops": Metric(float(np.log10(flops(architecture))), "log10 FLOP")}


def search(space: SearchSpace, problem: Problem, seed: int, evaluations: int, known: bool) -> tuple[np.ndarray, float]:
    """The points that the controller has evaluated, in order, and its CPU seconds for each suggestion of a model."""
    from rankitect.contracts import Measurement, Metric, MetricSpec, Trial
    from rankitect.controllers.bayesian import Bayesian
    from rankitect.methods.bounded_space import BoundedSpace
    from rankitect.methods.objectives import Objectives

    specs = (MetricSpec("perplexity", "", "min", "quality"), MetricSpec("flops", "log10 FLOP", "min", "cost"))
    config = Bayesian.Config(samples=evaluations, by="final")
    task = Task() if known else None
    names = [spec.name for spec in specs]
    controller = Bayesian(
        config, "final", BoundedSpace(space, {}), Objectives(specs, specs[0]), task, seed, metrics=names
    )
    points, suggested, cpu = [], 0, 0.0
    while True:
        start = time.process_time()
        proposals = controller.ask(1)
        if not proposals:
            return np.asarray(points), cpu / max(suggested, 1)
        if len(points) >= config.initial:
            suggested, cpu = suggested + 1, cpu + time.process_time() - start
        made = proposals[0].architecture
        points.append(problem.points([made])[0])
        values = {s.name: Metric(float(v), s.unit) for s, v in zip(specs, points[-1], strict=True)}
        number = len(points)
        controller.tell([Trial(number, number, 1, made, "final", 0, {}, "DONE", Measurement(values))])


if __name__ == "__main__":
    main()
