"""How far a measured latency can be trusted, and what it costs: one decoder layer of SmolLM2-135M's sizes.

The same layer is exported once and measured again and again, each time in a new process; layers that were never seen
are exported and measured. For one and two threads, in float32 and in 8da4w.

    python benchmarks/latency_measurement.py --rounds 10 --threads 1
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from attention_patterns import part
from common import arguments, table, verdict

VARIANTS = (("float32", 1), ("float32", 2), ("8da4w", 1))
WIDTHS = (1408, 1280, 1152)
"""Feed-forward widths of the layers that were never seen."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=10)
    rows: list[tuple[object, ...]] = []
    for precision, threads in VARIANTS[:1] if options.quick else VARIANTS:
        for mode, tokens in (("prefill", 128), ("decode", 256)):
            rows.append((precision, threads, f"{mode} {tokens}", *measured(precision, threads, mode, tokens, options)))
    header = (
        "precision",
        "threads",
        "layer",
        "median, ms",
        "coefficient of variation",
        "limit, percent",
        "new layer, s",
    )
    table(
        f"Measuring one layer, {options.rounds} times",
        header,
        rows,
        "New layer: seconds to export and measure one that was never seen, median (largest). Not settled: how many.",
        timed=False,
    )


def measured(precision: str, threads: int, mode: str, tokens: int, options: Any) -> tuple[object, ...]:
    """The cells of one row."""
    from rankitect.deploy.host import Host
    from rankitect.deploy.lowering import lower
    from rankitect.deploy.parts import Workload
    from rankitect.deploy.timing import TimingSettings

    settings = TimingSettings(threads=threads, seconds=0.5 if options.quick else 12.0)
    workload = Workload(mode, 16 if options.quick else tokens)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        host = Host(settings, cache=Path(folder) / "cache")
        program = Path(folder) / "layer.pte"
        layer = part("full", workload, options.quick, precision=precision)
        program.write_bytes(lower({"forward": layer.program()}, check=False).buffer)
        reference, copies = host.reference(workload), settings.copies(program.stat().st_size)
        medians, unsettled = [], 0
        for _ in range(options.rounds):
            timing = host._meter.time(program, reference, copies=copies)
            host.close()  # a new process for each
            medians.append(timing.p50)
            unsettled += not timing.trusted
        taken = []
        for width in WIDTHS:
            start = time.perf_counter()
            host.part(part("full", workload, options.quick, width, precision))
            taken.append(time.perf_counter() - start)
        host.close()
    spread = 100 * statistics.stdev(medians) / statistics.mean(medians)
    note = f" ({unsettled} not settled)" if unsettled else ""
    return (
        f"{statistics.median(medians):.3g}{note}",
        f"{spread:.1f}%",
        verdict(spread, at_most=3),
        f"{statistics.median(taken):.1f} ({max(taken):.1f})",
    )


if __name__ == "__main__":
    main()
