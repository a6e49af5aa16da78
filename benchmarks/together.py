"""How much faster two processes train one model than one does, one thread each (`runner.together`).

A Llama of SmolLM2-135M's sizes on 8 x 128 tokens: the step of `rankitect.training` as a search takes it, gradients of
135 million weights summed with gloo over the loopback device. In turns, so that a machine that slows down slows both.

    python benchmarks/together.py --rounds 3
"""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import arguments, random_backbone, table

STEPS = 4


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=3, batch=8, context=128)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    losses: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(options.rounds):
            for world in seconds:
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    port = free.getsockname()[1]
                given = (world, port, place, options.batch, options.context, options.quick)
                torch.multiprocessing.spawn(process, given, nprocs=world)  # type: ignore[no-untyped-call]
                found = json.loads((Path(place) / "0.json").read_text())
                seconds[world] += found["seconds"]
                losses[world] = found["loss"]
    one, two = (statistics.median(seconds[world]) for world in (1, 2))
    rows = [
        ("one process, s a step", f"{one:.2f} ({min(seconds[1]):.2f} to {max(seconds[1]):.2f})"),
        ("two processes, s a step", f"{two:.2f} ({min(seconds[2]):.2f} to {max(seconds[2]):.2f})"),
        ("times faster", f"{one / two:.2f}"),
        ("loss of the last step", f"{losses[1]:.6f} and {losses[2]:.6f}"),
    ]
    table(f"A training step of {options.batch} x {options.context} tokens", ("what", "median (range)"), rows, "")


def process(rank: int, world: int, port: int, place: str, batch: int, context: int, quick: bool) -> None:
    """One of the processes."""
    import torch.distributed as dist

    from rankitect.models.backbone import Backbone
    from rankitect.search_spaces.mobile_llm import from_backbone
    from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig
    from rankitect.training.parallel import join, peers

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    join()
    checkpoint = random_backbone(quick)
    space = from_backbone(checkpoint.config)
    model = Backbone(checkpoint, space).supernet
    optimizer = GuardedOptimizer(dict(model.weights.named_parameters()), OptimizerConfig(lr=1e-4), STEPS + 1)
    whole = model.activate(space.sample(0))
    taken, loss = [], 0.0
    for step in range(STEPS + 1):
        ids = torch.randint(
            0, checkpoint.config.vocab, (batch, context + 1), generator=torch.Generator().manual_seed(step)
        )[peers().shard(batch)]
        started = time.perf_counter()
        logits = whole(ids[:, :-1])
        error = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss = optimizer.step(error, step, len(ids)).loss
        taken.append(time.perf_counter() - started)
    if rank == 0:
        (Path(place) / "0.json").write_text(json.dumps({"seconds": taken[1:], "loss": loss}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
