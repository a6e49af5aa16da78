"""Pruned candidates in llama.cpp against their backbone there: does the file run as much faster as it promises?

Prefill of 256 tokens should be faster by the ratio of FLOPs, decoding by that of the bytes of the weights, which each
token reads once. Backbone and candidates are written in the same precision, and rounds alternate, so that ratios hold
on a machine that drifts. On one thread, which is the default, times are those of the processor and not of the clock.
It needs llama-cpp-python, which is built on installation:

    pip install llama-cpp-python
    python benchmarks/in_llama_cpp.py --rounds 9
    python benchmarks/in_llama_cpp.py --precision q4_k_m
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import arguments, table

PREFILL, DECODE, BEFORE = 256, 32, 256


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=9, precision="q8_0", backbone="smollm2-135m", folder="runs/bench-gguf")
    options.threads = options.threads or 1
    from llama_cpp import Llama

    files = written(options)
    models = {
        name: Llama(
            str(path), n_ctx=BEFORE + DECODE + 8, n_threads=options.threads, n_threads_batch=options.threads,
            n_batch=PREFILL, verbose=False,
        )
        for name, (path, _, _) in files.items()
    }  # fmt: skip
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for name, model in models.items():
            prefill, decode = timed(model, time.process_time if options.threads == 1 else time.perf_counter)
            times.setdefault((name, "prefill"), []).append(prefill)
            times.setdefault((name, "decode"), []).append(decode)
    first = next(iter(files))
    rows = []
    for name, (_, flops, size) in files.items():
        cells = [name, f"{size / 2**20:.0f}"]
        for kind, promised in (("prefill", files[first][1] / flops), ("decode", files[first][2] / size)):
            own, base = times[name, kind], times[first, kind]
            ratio = statistics.median(b / a for a, b in zip(own, base, strict=True))
            cells += [
                f"{statistics.median(own):.1f}",
                f"{ratio:.2f}",
                f"{promised:.2f}",
                f"{ratio / promised - 1:+.0%}",
            ]
        rows.append(tuple(cells))
    header = (
        "model", "MiB", "prefill, ms", "faster by", "FLOPs promise", "gap", "decode, ms a token", "faster by",
        "bytes promise", "gap",
    )  # fmt: skip
    table(
        f"llama.cpp, {options.precision}, {options.threads} thread(s): {PREFILL} tokens, then {DECODE} one by one",
        header,
        rows,
        f"Medians of {options.rounds} alternating rounds; ratios within rounds.",
        timed=False,
    )


def written(options: Any) -> dict[str, tuple[Path, float, float]]:
    """For each model its file, the FLOPs of a prefill and the bytes of its weights; the backbone first."""
    from rankitect.models.backbone import Backbone
    from rankitect.models.candidate.gguf import save_gguf
    from rankitect.models.checkpoints import load_checkpoint
    from rankitect.models.checkpoints.gguf_file import GGUFFile
    from rankitect.search_spaces.mobile_llm import from_backbone

    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(options.backbone)
    config = checkpoint.config
    space = from_backbone(config, context=PREFILL)
    backbone = Backbone(checkpoint, space)
    files = {}
    for name, values in shapes(config, backbone.largest.choices).items():
        architecture = space.architecture(values)
        path = folder / f"{name.replace(' ', '-')}.gguf"
        save_gguf(
            path, space, architecture, backbone.inherit(architecture), checkpoint.tokenizer,
            config=config, usage=checkpoint.usage, precision=options.precision,
        )  # fmt: skip
        head = 2 * config.vocab * config.d_model
        flops = space.cost(architecture, "flops", T=PREFILL, P=0) - (PREFILL - 1) * head  # one token's logits
        files[name] = path, flops, float(sum(entry.n_bytes for entry in GGUFFile(path).tensors.values()))
    return files


def shapes(config: Any, whole: Any) -> dict[str, dict[str, Any]]:
    """The backbone, and pruned ones of each kind, as choices."""
    layers = range(config.n_layers)
    narrow = max(128, config.ffn // 256 * 128)
    every = {f"layers.{i}.ffn": narrow for i in layers}
    some = {f"layers.{i}.runs": 0 for i in layers if i % 3 == 1}
    mixed = {f"layers.{i}.ffn": narrow for i in layers if i % 2} | {
        f"layers.{i}.attn": "skip" for i in layers if i % 4 == 3
    }
    mixed |= {f"layers.{i}.kv_heads": max(1, config.n_kv_heads - 1) for i in layers if i % 4 == 2}
    return {
        "backbone": dict(whole),
        "narrow feed-forward": {**whole, **every},
        "two thirds of the layers": {**whole, **some},
        "layers that differ": {**whole, **mixed},
    }


def timed(model: Any, clock: Callable[[], float]) -> tuple[float, float]:
    """Milliseconds of a prefill, and of a token after it."""
    model.reset()
    started = clock()
    model.eval(list(range(100, 100 + PREFILL)))
    prefill = clock() - started
    started = clock()
    for token in range(DECODE):
        model.eval([100 + token])
    return prefill * 1e3, (clock() - started) * 1e3 / DECODE


if __name__ == "__main__":
    main()
