"""Embedding tables of two processes that train together: whole in each (torch), or divided by rows (torchrec).

One table of 26 features as a ranker has it, ids as skewed as a click log's, half of every batch in each process; beside
it one process with the whole batch. Time of lookup, backward and update, and the memory of the process that takes most,
above what the imports take: while training, and at its peak, when tables are taken over or given back.

    python benchmarks/divided_tables.py --rounds 3
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import arguments, table
from embedding_backends import one_table, zipf

STEPS = 10
HELD = {
    "one process, torchrec": (1, "torchrec"),
    "two, whole, torch": (2, "torch"),
    "two, divided, torchrec": (2, "torchrec"),
}


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=3, batch=4096, rows=5_200_000, width=16)
    batch, rows = (128, 52_000) if options.quick else (options.batch, options.rows)
    found: dict[str, list[dict[str, float]]] = {how: [] for how in HELD}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(options.rounds):
            for how, (world, backend) in HELD.items():
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    port = free.getsockname()[1]
                given = (world, port, place, backend, batch, rows, options.width)
                torch.multiprocessing.spawn(process, given, nprocs=world)  # type: ignore[no-untyped-call]
                every = [json.loads((Path(place) / f"{rank}.json").read_text()) for rank in range(world)]
                found[how].append({key: max(one[key] for one in every) for key in every[0]})
    rows_ = []
    for how, rounds in found.items():
        ms = [one["ms"] for one in rounds]
        training, peak = (statistics.median(one[key] for one in rounds) for key in ("training", "peak"))
        shown = f"{statistics.median(ms):.0f} ({min(ms):.0f} to {max(ms):.0f})"
        rows_.append((how, shown, f"{training:.2f}", f"{peak:.2f}"))
    size = rows * options.width * 4 / 2**30
    note = f"The table is {size:.2f} GiB, and so are Adagrad's accumulators. One thread each, gloo."
    header = ("tables", "ms a step (range)", "GiB in training", "GiB at the peak")
    table(f"{rows:,} rows of {options.width}, {batch} examples of 26 features", header, rows_, note, timed=False)


def process(rank: int, world: int, port: int, place: str, backend: str, batch: int, rows: int, width: int) -> None:
    """One of the processes."""
    import torch.distributed as dist

    from rankitect.models.supernet import build
    from rankitect.training.embeddings import TableConfig, TableStorage
    from rankitect.training.parallel import join, peers

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    join()
    warmed = build(small := one_table(26 * 2000, width), small.architecture({}))
    first = TableStorage(warmed, TableConfig(backend, "adagrad", lr=1e-3))  # type: ignore[arg-type]
    ids = zipf(batch, 26, rows // 26, 1.1)[peers().shard(batch)]
    warmed(ids % 2000).sum().backward()
    first.release()
    before = resident()
    model = build(space := one_table(rows, width), space.architecture({}))
    storage = TableStorage(model, TableConfig(backend, "adagrad", lr=1e-3))  # type: ignore[arg-type]
    taken = []
    for _ in range(STEPS + 2):
        started = time.perf_counter()
        model(ids).sum().backward()
        taken.append(time.perf_counter() - started)
    training = resident() - before
    storage.release()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    said = {"ms": 1e3 * statistics.median(taken[2:]), "training": training, "peak": peak}
    (Path(place) / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


def resident() -> float:
    """Memory of this process, GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


if __name__ == "__main__":
    main()
