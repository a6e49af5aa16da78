"""How many held-out latencies the 95% intervals of the latency model hold: on tables, and on data of a known law.

`python benchmarks/latency_intervals.py --tables FOLDER` reads the open tables that are in the folder: HAT's of a
Raspberry Pi and a Titan Xp (arXiv 2005.14187), NAS-Bench-201 and FBNet on servers (from HELP, arXiv 2106.08630), and
NAS-Bench-Graph (arXiv 2206.09166). From each, and from data of a known law (noise that is constant, in proportion to
the latency, or with 5% of outliers), training rows are drawn, and the held-out rows inside of their intervals are
counted.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankitect.deploy.latency_model import LatencyModel

Array = NDArray[np.float64]
ROWS = (12, 24, 48, 100, 300)
HELD_OUT = 400
OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def simulated(kind: str) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """A law of three features, with noise of a kind."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.integers(1, 9, (HELD_OUT + max(ROWS), 3)).astype(float)
        y = 2.0 + x[:, 0] * (0.5 + 0.2 * x[:, 1]) + 0.3 * x[:, 2]
        noise = 0.03 * rng.standard_normal(len(x))
        if kind == "outliers":
            noise = np.where(rng.random(len(x)) < 0.05, np.abs(rng.normal(0, 0.5, len(x))), noise)
        scale = y if kind != "constant" else np.full(len(x), y.mean())
        return x, np.maximum(y + scale * noise, 0.01)

    return draw


def _one_hot(codes: list[list[int]]) -> Array:
    table = np.asarray(codes)
    return np.concatenate([(table[:, [i]] == np.unique(table[:, i])) for i in range(table.shape[1])], axis=1) * 1.0


def hat(path: Path) -> tuple[Array, Array]:
    """Encoder and decoder together, by their ten sizes."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    outputs = [k for k in rows[0] if k.startswith("latency_mean")]
    inputs = [k for k in rows[0] if not k.startswith("latency")]
    x = np.asarray([[float(r[k]) for k in inputs] for r in rows])
    return x, np.asarray([sum(float(r[k]) for k in outputs) for r in rows])


def coded(path: Path, column: str, codes: Callable[[dict[str, str]], list[int]]) -> tuple[Array, Array]:
    """A table of architectures by operators."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return _one_hot([codes(r) for r in rows]), np.asarray([float(r[column]) for r in rows])


def operators(text: str) -> list[int]:
    """The operators of a NAS-Bench-201 cell by edge."""
    names = [edge.split("~")[0] for node in text.split("+") for edge in node.strip("|").split("|")]
    return [OPERATORS.index(name) for name in names]


def nas_bench_201(folder: Path, device: str) -> tuple[Array, Array]:
    """Cells by operator; the strings are in another file, in the same order."""
    with gzip.open(folder / "nb201_accuracy_c10_c100.csv.gz", "rt") as file:
        cells = {row["index"]: row["arch_str"] for row in csv.DictReader(file)}
    return coded(folder / "nb201_latency_servers.csv.gz", device, lambda r: operators(cells[r["index"]]))


def fbnet(folder: Path, device: str) -> tuple[Array, Array]:
    """Stacks of 22 layers by operator."""
    path = folder / "fbnet_latency_servers.csv.gz"
    return coded(path, device, lambda r: [int(op) for op in r["op_idx_list"].split()])


def graphs(path: Path) -> tuple[Array, Array]:
    """Graph networks by link and operator."""
    names: dict[str, int] = {}

    def codes(row: dict[str, str]) -> list[int]:
        ops = [names.setdefault(op, len(names)) for op in row["ops"].split("|")]
        return [*(int(link) for link in row["link"]), *ops]

    return coded(path, "latency", codes)


def sources(folder: Path | None) -> Iterator[tuple[str, Callable[[np.random.Generator], tuple[Array, Array]]]]:
    """Names, and what draws rows of each."""
    for kind in ("constant", "proportional", "outliers"):
        yield f"known law, {kind} noise", simulated(kind)
    if folder is None:
        return
    readers: dict[str, Callable[[], tuple[Array, Array]]] = {
        "HAT, Raspberry Pi": lambda: hat(folder / "hat_wmt14ende_cpu_raspberrypi.csv"),
        "HAT, Raspberry Pi (en-fr)": lambda: hat(folder / "hat_wmt14enfr_cpu_raspberrypi.csv"),
        "HAT, Titan Xp": lambda: hat(folder / "hat_wmt14ende_gpu_titanxp.csv"),
        "NAS-Bench-201, 1080 Ti": lambda: nas_bench_201(folder, "1080ti_1"),
        "NAS-Bench-201, Xeon Gold 6240": lambda: nas_bench_201(folder, "gold_6240"),
        "FBNet, 1080 Ti": lambda: fbnet(folder, "1080ti_1"),
        "FBNet, Xeon Gold 6226": lambda: fbnet(folder, "gold_6226"),
        "NAS-Bench-Graph, Cora": lambda: graphs(folder / "nas-bench-graph_cora.csv.gz"),
    }
    for name, read in readers.items():
        x, y = read()
        yield name, lambda rng, x=x, y=y: (x[p := rng.permutation(len(x))], y[p])  # type: ignore[misc]


def covered(x: Array, y: Array, rows: int) -> tuple[float, float]:
    """Share of held-out rows in their intervals, and the intervals' median width relative to the latency."""
    predicted = LatencyModel().fit(x[:rows], y[:rows]).predict(x[rows:][:HELD_OUT])
    held = y[rows:][:HELD_OUT]
    inside = (predicted.low <= held) & (held <= predicted.high)
    return float(np.mean(inside)), float(np.median((predicted.high - predicted.low) / held))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="the folder with the open tables")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--splits", type=int, default=10)
    given = parser.parse_args()
    print("| data | " + " | ".join(f"{n} rows" for n in given.rows) + " |")
    print("|---" * (1 + len(given.rows)) + "|")
    for name, draw in sources(given.tables):
        cells = []
        for rows in given.rows:
            results = [covered(*draw(np.random.default_rng(split)), rows) for split in range(given.splits)]
            inside, width = np.mean(results, axis=0)
            cells.append(f"{100 * inside:.1f}% (width {100 * width:.0f}%)")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
