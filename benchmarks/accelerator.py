"""One command for a machine with an accelerator: does it give what the CPU gives, how fast is it, what does it take?

    python benchmarks/accelerator.py                  # the best device that is there
    python benchmarks/accelerator.py --device cuda:1 --batch 32 --context 1024

The first table compares every reading with the CPU in float32, in each precision that the device has. The second trains
a model of the sizes of SmolLM2-135M: time and memory of a step, and the share of the device's own speed at a large
matrix product that it reaches (MFU: model FLOPs of three forward passes). Ends with 1 where a reading is beyond its
tolerance.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from _accelerator_readings import Language, Ranker, compare
from common import arguments, in_turns, random_backbone, seconds, table, verdict

TOLERANCE = {"float32": 2e-3, "tf32": 3e-2, "bf16": 1e-1}
"""Largest relative distance from the CPU in float32, by precision: rounding of 24, 11 and 8 bits through the layers and
ten steps of training."""
TRAINING_FLOPS = 3
"""Forward passes' worth of a step: one forward, two backward."""


def main() -> int:
    """Print the tables."""
    options = arguments(__doc__ or "", rounds=5, device="auto", batch=8, context=512)
    from rankitect.config.schema import PlacementConfig
    from rankitect.errors import ConfigError
    from rankitect.training.placement import choose, placement

    device = choose(PlacementConfig(device=options.device), print).device
    precisions = []
    for precision in TOLERANCE:
        try:
            choose(PlacementConfig(device=str(device), precision=precision), print)  # type: ignore[arg-type]
            precisions.append(precision)
        except ConfigError as error:
            print(f"Left out: {error}")
    failed = equality(options, str(device), precisions)
    speed(options, str(device), precisions)
    if device.type != "cuda":
        print("\nNot run on CUDA: this machine has no such device, or another was asked for.")
    assert placement().device == device
    return int(failed)


def equality(options: Any, device: str, precisions: list[str]) -> bool:
    """Compare each reading in each precision; whether one in float32 or tf32 is beyond its tolerance."""
    from rankitect.config.schema import PlacementConfig
    from rankitect.training.placement import choose

    language = Language(random_backbone(True), 32 if options.quick else 128)
    ranker = Ranker(100 if options.quick else 20_000, 64 if options.quick else 2048)
    rows, failed = [], False
    for precision in precisions:
        there = choose(PlacementConfig(device=device, precision=precision), lambda text: None)  # type: ignore[arg-type]
        for name, distance in compare({**language.readings(), **ranker.readings()}, there).items():
            rows.append((name, precision, f"{distance:.1e}", verdict(distance, at_most=TOLERANCE[precision])))
            # Told, but no failure, in bf16: small gradients of random models are rounding for the most part.
            failed = failed or (precision != "bf16" and not distance <= TOLERANCE[precision])
    table(
        f"{device} against the CPU in float32",
        ("reading", "precision", "relative distance", "within"),
        rows,
        "Norm of the difference over the norm, of the worst tensor of a reading.",
        timed=False,
    )
    return failed


def speed(options: Any, device: str, precisions: list[str]) -> None:
    """Time training steps in each precision, and with what is traded for memory."""
    from rankitect.config.schema import PlacementConfig
    from rankitect.models.backbone import largest
    from rankitect.search_spaces.mobile_llm import from_backbone
    from rankitect.training.footprint import training_memory
    from rankitect.training.placement import choose

    checkpoint = random_backbone(options.quick)
    space = from_backbone(checkpoint.config)
    architecture = largest(space)
    batch, context = (2, 32) if options.quick else (options.batch, options.context)
    flops = TRAINING_FLOPS * space.cost(architecture, "flops", B=batch, T=context, P=0)
    settings: list[tuple[str, dict[str, Any]]] = [(precision, {"precision": precision}) for precision in precisions]
    fastest = precisions[-1]
    settings.append((f"{fastest}, checkpointing", {"precision": fastest, "checkpointing": True}))
    settings.append((f"{fastest}, 2 parts", {"precision": fastest, "accumulate": 2}))
    if device != "cpu":
        settings.append((f"{fastest}, compiled", {"precision": fastest, "compile": True}))
    rows = []
    for name, given in settings:
        place = choose(PlacementConfig(device=device, **given), lambda text: None)
        text = torch.randint(0, checkpoint.config.vocab, (batch, context + 1))
        step = training_step(space, architecture, text, place)
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place.device)
        times = in_turns({"step": step}, options.rounds)["step"]
        taken = sorted(times)[len(times) // 2]
        held = f"{torch.cuda.max_memory_allocated(place.device) / 2**30:.2f}" if place.device.type == "cuda" else "-"
        rows_at_a_time = -(-batch // place.accumulate)
        needed = training_memory(space, architecture, [(rows_at_a_time, context)], recompute=place.checkpointing)
        best = matrix_speed(place, 256 if options.quick else 2048 if device == "cpu" else 8192)
        done, foretold = flops / taken, sum(needed.values()) / 2**30
        speeds = (f"{done / 1e12:.3g}", f"{best / 1e12:.3g}", f"{done / best:.0%}")
        rows.append((name, seconds(times), f"{batch * context / taken:,.0f}", held, f"{foretold:.2f}", *speeds))
    table(
        f"Training on {device}: {space.cost(architecture, 'params') / 1e6:.0f}M parameters, {batch} x {context} tokens",
        ("setting", "step", "tokens/s", "GiB", "GiB foretold", "TFLOP/s", "of a matrix product", "MFU"),
        rows,
        "Forward, backward and AdamW. Foretold in float32 (`rankitect.training.footprint`); measured on CUDA only. The "
        "product is one of large square matrices in the same precision on the same device.",
    )


def training_step(space: Any, architecture: Any, text: torch.Tensor, place: Any) -> Any:
    """A function that trains for one step; the model is the one that `train` would train."""
    from rankitect.metrics.losses import cross_entropy
    from rankitect.models.supernet import build
    from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig
    from rankitect.training.parallel import peers

    model = place.place(build(space, architecture, 0)).train()
    optimizer = GuardedOptimizer(model.named_parameters(), OptimizerConfig(lr=1e-4), 10**6)
    if place.compile:
        model.compile(dynamic=False)
    numbers: Iterator[int] = iter(range(10**6))

    def compute() -> tuple[torch.Tensor, float]:
        ids = place.move(text[peers().shard(len(text))])
        with place.computing():
            return cross_entropy(model(ids[:, :-1]), ids[:, 1:]), float(len(ids))

    def step() -> None:
        optimizer.learn(compute, next(numbers))
        if place.device.type == "cuda":
            torch.cuda.synchronize(place.device)

    return step


def matrix_speed(place: Any, size: int) -> float:
    """FLOP/s of a product of square matrices in the precision of the placement, the best of a few."""
    x = place.move(torch.randn(size, size))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        with place.computing():
            total = (x @ x)[0, 0]
        total.item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    sys.exit(main())
