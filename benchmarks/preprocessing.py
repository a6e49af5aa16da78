"""How fast a Criteo log is preprocessed, and in how much memory, at growing sizes of the file.

The text is generated (`rankitect.data.ranking.synthetic`) with Criteo's columns: 13 numbers, 26 values of eight
hexadecimal digits. Everything counts: hashing the file, reading, counting, encoding, writing. `--rows 20000000` makes
5 GB of text and takes about three times as much disk on the way.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from common import arguments, table, verdict

LEAST = 300_000
"""Rows a second that are asked for, on two cores."""

SHARES = (0.05, 0.2, 0.5, 1.0)
"""The sizes tried, of the largest."""


def generate(path: Path, rows: int, ids: int) -> None:
    """Write the largest file; a later run with the same sizes finds it."""
    from rankitect.data.ranking.schema import SyntheticSettings
    from rankitect.data.ranking.synthetic import write_criteo

    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            write_criteo(SyntheticSettings(rows=rows, ids=ids, signal=1.0), file)
        part.rename(path)


def head(source: Path, target: Path, share: float) -> None:
    """Copy the first rows, whole ones, of about this share of the bytes."""
    left = int(source.stat().st_size * share)
    with source.open("rb") as reader, target.open("wb") as writer:
        while left > 0 and (block := reader.read(min(left, 16 << 20))):
            writer.write(block)
            left -= len(block)
        writer.write(reader.readline())


def peak_memory() -> float:
    """The most memory that this process has had, MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would also tell of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def preprocess(path: str, cache: str, workers: int | None, answer: Connection) -> None:
    """In a process of its own: rows, seconds, seconds of cores, memory before and at its peak in MB, rows of tables."""
    import pyarrow.compute  # noqa: F401  - loading it is not what is measured

    from rankitect.data.ranking import DataSettings, open_ranking

    before = peak_memory()
    begun, worked = time.perf_counter(), time.process_time()
    data = open_ranking(DataSettings(format="criteo", path=path, workers=workers), cache=Path(cache), progress=print)
    taken, worked = time.perf_counter() - begun, time.process_time() - worked
    rows = sum(split.rows for split in data.splits.values())
    answer.send((rows, taken, worked, before, peak_memory(), sum(data.features.rows)))


def measure(path: Path, cache: Path, workers: int | None) -> tuple[int, float, float, float, float, int]:
    """`preprocess` in a new process, with an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=preprocess, args=(str(path), str(cache), workers, there))
    child.start()
    there.close()
    try:
        found: tuple[int, float, float, float, float, int] = here.recv()
    finally:
        child.join()
        shutil.rmtree(cache, ignore_errors=True)
    return found


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__.splitlines()[0], 3, rows=2_000_000, ids=100_000, folder="")
    rows, ids = (20_000, 1000) if options.quick else (options.rows, options.ids)
    given = Path(options.folder) if options.folder else None
    with tempfile.TemporaryDirectory(dir=given) as name:
        work = Path(name)
        whole = (given or work) / f"criteo-{rows}-{ids}.tsv"
        generate(whole, rows, ids)
        lines = []
        for share in SHARES:
            file = whole if share == 1 else work / "head.tsv"
            if share < 1:
                head(whole, file, share)
            runs = sorted(
                (measure(file, work / "cache", options.threads) for _ in range(options.rounds)), key=lambda run: run[1]
            )
            count, taken, worked, before, _, table_rows = runs[len(runs) // 2]
            rate, peak = count / taken, max(run[4] for run in runs)
            lines.append(
                [
                    f"{count:,}",
                    f"{file.stat().st_size / 1e6:,.0f}",
                    f"{rate:,.0f} ({count / runs[-1][1]:,.0f}–{count / runs[0][1]:,.0f})",
                    f"{worked / count * 1e6:.1f}",
                    f"{peak:,.0f}",
                    f"{peak - before:,.0f}",
                    f"{table_rows:,}",
                    verdict(rate, at_least=LEAST) if share == 1 else "",
                ]
            )
        table(
            "Preprocessing of Criteo's text",
            ["rows", "MB", "rows/s", "core µs/row", "peak MB", "of it data", "table rows", "wanted rows/s"],
            lines,
            f"From the text to memory-mapped rows, hashing and the cache's checksums with it; {options.rounds} runs "
            f"each, median (slowest–fastest), {options.threads or os.cpu_count()} threads.",
            timed=False,
        )


if __name__ == "__main__":
    main()
