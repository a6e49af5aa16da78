"""What the benchmarks share: fair timing, a description of the machine, tables.

Times on a shared machine drift, so what is compared is run in turns, and a ratio is taken within each turn.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # for the hand-written Llama in tests/models/reference.py
    sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig

__all__ = [
    "Results",
    "arguments",
    "in_turns",
    "machine",
    "random_backbone",
    "ratio",
    "seconds",
    "smollm2",
    "table",
    "verdict",
]


class Results:
    """Finished measurements, one JSON line each: a benchmark that is repeated goes on where it stopped.

    Args:
        path: The file; what a killed process half wrote at its end does not count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def find(self, **keys: Any) -> dict[str, Any] | None:
        """The row with these values."""
        return next((r for r in self.rows if all(r.get(k) == v for k, v in keys.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)


def arguments(description: str, rounds: int, **more: Any) -> argparse.Namespace:
    """Parse the options that every benchmark has, and set the threads.

    Args:
        description: One line.
        rounds: How often each thing is run.
        more: Further options, `name=default`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it; its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=None, help=f"runs of each thing (default {rounds})")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")
    for name, default in more.items():
        kind = type(default) if default is not None else str
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=f"default {default}")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else rounds)
    import torch

    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def machine() -> str:
    """The machine in one line: processor, cores, memory, versions, threads and load."""
    import torch

    name, memory = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    return (
        f"{name}, {os.cpu_count()} cores{memory}; {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads; load {load}"
    )


def in_turns(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    least: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each job, run in turns: one run of each a round, the order turned round every time.

    Args:
        jobs: By name. What they return is dropped.
        rounds: How many times of each are returned.
        warm_up: Rounds that do not count.
        least: A time is the mean over as many calls as take about this many seconds.
        clock: Gives seconds. On one thread `time.process_time` leaves out what other processes take.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    calls = dict.fromkeys(jobs, 1)
    names = list(jobs)
    gc.collect()
    for turn in range(-warm_up, rounds):
        for name in names if turn % 2 else reversed(names):
            start = clock()
            for _ in range(calls[name]):
                jobs[name]()
            taken = (clock() - start) / calls[name]
            if turn < 0:
                calls[name] = max(1, int(least / max(taken, 1e-9)))
            else:
                times[name].append(taken)
    return times


def seconds(times: Sequence[float]) -> str:
    """The median and the quartiles of some times, in the unit that suits them."""
    middle = statistics.median(times)
    unit, factor = ("s", 1.0) if middle >= 1 else ("ms", 1e3) if middle >= 1e-3 else ("µs", 1e6)
    low, high = _quartiles(times)
    return f"{middle * factor:.3g} {unit} ({low * factor:.3g}–{high * factor:.3g})"


def ratio(times: Mapping[str, Sequence[float]], of: str, to: str) -> tuple[float, str]:
    """The median over turns of one job's time divided by another's, and that with its quartiles as text."""
    each = [a / b for a, b in zip(times[of], times[to], strict=True)]
    low, high = _quartiles(each)
    middle = statistics.median(each)
    return middle, f"{middle:.3f} ({low:.3f}–{high:.3f})"


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def verdict(value: float, at_most: float | None = None, at_least: float | None = None) -> str:
    """The limit, and whether a value keeps to it."""
    if at_most is not None:
        return f"≤ {at_most:g}: {'yes' if value <= at_most else 'NO'}"
    return f"≥ {at_least:,g}: {'yes' if value >= (at_least or 0) else 'NO'}"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *notes: str, timed: bool = True) -> None:
    """Print a Markdown table with notes and the machine under it."""
    cells = [[str(c) for c in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n### {title}\n")
    for number, row in enumerate(cells):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    for note in (*notes, f"{'Median (quartiles). ' if timed else ''}{machine()}."):
        print(f"\n{note}")
    sys.stdout.flush()


def smollm2(quick: bool) -> DecoderConfig:
    """The sizes of SmolLM2-135M; tiny ones where only the script is to be tried."""
    from rankitect.models.checkpoints import DecoderConfig

    if quick:
        return DecoderConfig(vocab=512, d_model=48, n_layers=3, n_heads=6, n_kv_heads=3, head_dim=8, ffn=256)
    return DecoderConfig(
        vocab=49152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, ffn=1536, rope_base=100_000.0
    )


def random_backbone(quick: bool) -> DecoderCheckpoint:
    """A model of these sizes with random weights: times do not depend on them."""
    from rankitect.models.checkpoints import random_checkpoint

    return random_checkpoint(smollm2(quick), 0)


if __name__ == "__main__":
    print(machine())
