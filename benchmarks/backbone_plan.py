"""A search on a large backbone, planned on paper: FLOPs and memory by phase, and hours by device.

    python benchmarks/backbone_plan.py --heal 20000000 --mfu 0.4

FLOPs are the graph's own costs. Memory is that of `rankitect.training.footprint` (the model run on torch's `meta`
device) and of the statistics and refits that the space asks for. The speeds of devices are those of their data sheets;
which share of it is reached (`--mfu`) is an assumption until `accelerator.py` has measured it. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import arguments, table

LLAMA_1B = {
    "vocab": 128256, "d_model": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "head_dim": 64, "ffn": 8192,
    "context": 131072,
}  # fmt: skip
"""The sizes of Llama 3.2 1B, as its config.json has them."""
DEVICES = {
    "NVIDIA L4": (121e12, 24),
    "NVIDIA A100": (312e12, 80),
    "NVIDIA H100 SXM": (989e12, 80),
    "NVIDIA H200": (989e12, 141),
}
"""Dense bfloat16 FLOP/s and GB of memory, by the data sheets."""
GIB = 2**30


def main() -> None:
    """Print the tables."""
    options = arguments(
        __doc__ or "", rounds=1, batch=8, context=2048, calibration=1_000_000, search=20_000_000, heal=100_000_000,
        candidates=6, test=500_000, mfu=0.4, ffn_step=128,
    )  # fmt: skip
    from rankitect.models.backbone import largest
    from rankitect.models.checkpoints import DecoderConfig
    from rankitect.search_spaces.mobile_llm import from_backbone

    sizes = {**LLAMA_1B, "n_layers": 2, "vocab": 512, "d_model": 256, "ffn": 512} if options.quick else LLAMA_1B
    config = DecoderConfig(**sizes)  # type: ignore[arg-type]
    space = from_backbone(config, ffn_step=options.ffn_step)
    whole = largest(space)
    work = phases(space, whole, options)
    total = sum(work.values())
    rows = [(name, f"{flops / 1e15:,.0f}", f"{flops / total:.0%}") for name, flops in work.items()]
    table(
        f"Work of a search on {space.cost(whole, 'params') / 1e9:.2f}B parameters, windows of {options.context} tokens",
        ("phase", "PFLOP", "share"),
        [*rows, ("all", f"{total / 1e15:,.0f}", "100%")],
        timed=False,
    )
    needed = {
        "as it is": memory(space, whole, config, options.batch, options.context, False),
        "checkpointing": memory(space, whole, config, options.batch, options.context, True),
        f"and {options.batch} parts": memory(space, whole, config, 1, options.context, True),
    }
    relaxed = {
        "as it is": on_the_relaxed(space, config, options.batch, options.context, False),
        "checkpointing": on_the_relaxed(space, config, options.batch, options.context, True),
        f"and {options.batch} parts": on_the_relaxed(space, config, 1, options.context, True),
    }
    names = list(needed["as it is"])
    table(
        f"Memory of its training on one device, GiB, {options.batch} windows at a time, float32 weights",
        ("what", *needed),
        [
            *((part, *(f"{needed[name][part] / GIB:.1f}" for name in needed)) for part in names),
            ("all", *(f"{sum(needed[name].values()) / GIB:.1f}" for name in needed)),
        ],
        "Activations in float32; in bf16 matrix products keep half of theirs.",
        timed=False,
    )
    table(
        "Memory of a step on the relaxed supernet, GiB, of as many windows",
        ("what", *relaxed),
        [
            *((part, *(f"{relaxed[name][part] / GIB:.1f}" for name in relaxed)) for part in relaxed["as it is"]),
            ("all", *(f"{sum(relaxed[name].values()) / GIB:.1f}" for name in relaxed)),
        ],
        timed=False,
    )
    most = {name: max(sum(needed[name].values()), sum(relaxed[name].values())) / 1e9 for name in needed}
    table(
        f"Hours at {options.mfu:.0%} of a device's bfloat16 speed",
        ("device", "TFLOP/s", "GB", "hours", "fits"),
        [(device, *hours(device, total, options.mfu), fitting(device, most)) for device in DEVICES],
        "Speeds and sizes are those of data sheets, the share is an assumption: not run on CUDA.",
        timed=False,
    )


def hours(device: str, flops: float, share: float) -> tuple[str, str, str]:
    """A device's speed and size, and the hours that it takes at a share of its speed."""
    speed, size = DEVICES[device]
    return f"{speed / 1e12:.0f}", str(size), f"{flops / (speed * share) / 3600:,.1f}"


def fitting(device: str, most: Mapping[str, float]) -> str:
    """The first setting whose GB the device has."""
    return next((name for name, gb in most.items() if gb <= DEVICES[device][1]), "no")


def phases(space: Any, whole: Any, options: Any) -> Mapping[str, float]:
    """FLOPs of each phase of `controller=dnas` with `recipe=heal`; a token costs F forward and 2 F backward."""
    sizes = {"B": 1, "T": options.context, "P": 0}
    forward = space.cost(whole, "flops", **sizes) / options.context
    head = forward - space.cost(whole, "flops", "layers", **sizes) / options.context
    # Targets of block FLOPs are spread evenly between 45% and all of the backbone's.
    targets = [0.45 + (i + 0.5) * 0.55 / options.candidates for i in range(options.candidates)]
    pruned = sum(head + share * (forward - head) for share in targets)
    mean = pruned / len(targets)
    return {
        "calibration: half of it with gradients": options.calibration * forward * 2,
        "search: shared weights, with the teacher": options.search / 2 * (3 * mean + forward),
        "search: choices on the relaxed supernet, with the teacher": options.search / 2 * (3 * forward + forward),
        f"healing of {options.candidates} candidates": options.heal * 3 * pruned,
        "healing: the teacher, once for all": options.heal * forward,
        "test text: backbone, baselines and candidates": options.test * (5 * forward + pruned),
    }


def memory(space: Any, whole: Any, config: Any, batch: int, context: int, recompute: bool) -> Mapping[str, float]:
    """Bytes on the device while the supernet is trained beside the backbone."""
    from rankitect.training.footprint import training_memory

    return _beside(training_memory(space, whole, [(batch, context)], recompute=recompute), space, config)


def on_the_relaxed(space: Any, config: Any, batch: int, context: int, recompute: bool) -> Mapping[str, float]:
    """Bytes on the device while choices are learned on the relaxed supernet beside the backbone."""
    from rankitect.training.footprint import relaxed_memory

    return _beside(relaxed_memory(space, [(batch, context)], recompute=recompute), space, config)


def _beside(parts: Mapping[str, float], space: Any, config: Any) -> Mapping[str, float]:
    from rankitect.models.backbone import REFITS, refit_memory

    parts = {**parts, "the backbone, which teaches": parts["weights"]}
    return {**parts, REFITS: refit_memory(config, space)[REFITS]}


if __name__ == "__main__":
    main()
