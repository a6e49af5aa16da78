"""What attention patterns save: one decoder layer of SmolLM2-135M's sizes, eager and exported, context 128 to 8192.

Full attention, a sliding window of 128 tokens, and no attention. Prefill is of the whole context at once; decode of the
token after it. Exported layers run through ExecuTorch and XNNPACK (measured as a search measures them, and kept in its
cache, so that an interrupted run goes on); eager is the model that is trained (prefill) or its deployed form (decode).

    python benchmarks/attention_patterns.py --threads 1
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common import arguments, in_turns, table

from rankitect.models.families import axes

if TYPE_CHECKING:
    from rankitect.deploy.parts import Part

CONTEXTS = (128, 512, 2048, 8192)
WINDOW = 128
PATTERNS = {"full": axes.FULL, "window": axes.WINDOW, "no attention": axes.SKIP}


def main() -> None:
    """Print the tables."""
    options = arguments(__doc__ or "", rounds=5)
    from rankitect.deploy.devices import HostDevice
    from rankitect.deploy.parts import Workload

    patterns = dict(list(PATTERNS.items())[1:]) if options.quick else PATTERNS  # each takes seconds to export
    for mode in ("prefill", "decode"):
        rows = []
        for context in (16,) if options.quick else CONTEXTS:
            settings = {"seconds": 0.1} if options.quick else {}
            device = HostDevice(HostDevice.Config(prompt=8, context=max(context, 16), **settings))
            parts = {name: part(p, Workload(mode, context), options.quick) for name, p in patterns.items()}  # type: ignore[arg-type]
            eager = in_turns({name: forward(p) for name, p in parts.items()}, options.rounds)
            cells = []
            for name, p in parts.items():
                timing = device.runner.part(p)
                flag = "" if timing.trusted else " (not settled)"
                cells.append(f"{statistics.median(eager[name]) * 1e3:.3g} / {timing.p50:.3g}{flag}")
            rows.append((context, *cells))
        table(
            f"One layer's {mode}, ms: eager / exported",
            ("context", *patterns),
            rows,
            f"Window of {WINDOW} tokens.",
        )


def part(pattern: str, workload: Any, quick: bool, ffn: int = 1536, precision: str = "float32") -> Part:
    """One layer under a workload, of a feed-forward width, in float32 or in 8da4w."""
    import dataclasses

    from rankitect.blocks import GQA, SwiGLU
    from rankitect.deploy.parts import parts_of
    from rankitect.models.plan import make_plan
    from rankitect.search_spaces.mobile_llm import mobile_llm

    width, head, ffn = (32, 8, ffn // 24) if quick else (576, 64, ffn)
    space = mobile_llm(
        vocab=64, layers=1, widths=(width,), kv_heads=(3,), group=(3,), ffn=(ffn,), runs=(1,), head=head, window=WINDOW
    )
    layer = {axes.KV_HEADS: 3, axes.QUERY_HEADS: 3, axes.FFN: ffn, axes.PATTERN: pattern}
    choices = {axes.CHANNELS: width, **{axes.path(axis, 0): value for axis, value in layer.items()}}
    if precision == "8da4w":
        few = {"bits": 4, "scale_group": 32, "act_bits": 8}
        blocks = {n.path: n.block for n in space.graph.nodes if isinstance(n.block, GQA | SwiGLU)}
        space = space.with_blocks({path: dataclasses.replace(block, **few) for path, block in blocks.items()})
    return parts_of(make_plan(space, space.architecture(choices)), workload)[0]


def forward(part: Part) -> Callable[[], object]:
    """One eager call."""
    import torch

    from rankitect.models.deployed import random_weights
    from rankitect.models.plan import run_plan
    from rankitect.models.weights import SlicedParams, find_owner

    program = part.program()
    if part.workload.mode == "decode":
        inputs = program.example()
        return lambda: _quietly(program, inputs)
    weights = random_weights(part.plan)
    given = program.example()[: len(part.plan.inputs)]

    def run() -> object:
        with torch.inference_mode():
            return run_plan(
                part.plan,
                given,
                lambda s: SlicedParams(s, find_owner(weights, s.weights) if s.shapes else weights),
            )

    return run


def _quietly(program: Any, inputs: Any) -> object:
    import torch

    with torch.inference_mode():
        return program(*inputs)


if __name__ == "__main__":
    main()
