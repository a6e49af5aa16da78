"""Does it pay to prune the residual stream's width? Against narrower feed-forwards at equal cost, healed alike.

Two costs are made equal: block FLOPs, which a prefill is about, and bytes of all weights, which decoding is about (a
narrower stream shrinks the token table too). Channels that stay are those of most energy. A repeated run goes on.

    python benchmarks/hidden_width.py --tokens 5120 --out runs/hidden-width
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from common import arguments, smollm2, table

import rankitect
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.backbone import largest
from rankitect.models.families import DecoderConfig, axes
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.tasks.costs import cost_value
from rankitect.tasks.language.uniform import nearest, widths

COSTS = ("block_flops", "weight_bytes")
TINY = DecoderConfig(vocab=256, d_model=48, n_layers=4, n_heads=6, n_kv_heads=3, head_dim=8, ffn=128)
"""The sizes of `task.backbone=random`."""


def narrower(space: SearchSpace, whole: Architecture) -> Iterator[Architecture]:
    """The backbone at every residual width."""
    for width in space.choices[axes.CHANNELS].values:
        yield space.architecture({**dict.fromkeys(space.choices), **whole.choices, axes.CHANNELS: width})


def both(space: SearchSpace, whole: Architecture) -> Iterator[Architecture]:
    """The residual width a twelfth smaller, and feed-forwards of one width beside it."""
    for pruned in widths(space, whole):
        some = sorted({int(v) for v in space.choices[axes.CHANNELS].values})  # type: ignore[arg-type]
        width = min(some, key=lambda w: abs(w - some[-1] * 11 / 12))
        yield space.architecture({**pruned.choices, axes.CHANNELS: width})


def _share(space: SearchSpace, cost: str, whole: float, context: int, architecture: Architecture) -> float:
    return cost_value(space, architecture, cost, context) / whole


def main() -> None:
    """Measure, and print the table."""
    options = arguments(str(__doc__).splitlines()[0], 1, tokens=5120, out="runs/hidden-width", shares="0.75,0.6")
    context = 32 if options.quick else 256
    config = TINY if options.quick else smollm2(False)
    step = 4 if options.quick else 16
    sizes = list(range(config.d_model // 4 // step * step, config.d_model, step))
    shape = {"ffn_step": 32, "window": 16} if options.quick else {}
    space = from_backbone(config, context=context, widths=sizes, **shape)
    whole = largest(space)
    families = {"feed-forward": widths, "residual width": narrower, "both": both}
    wanted: dict[str, tuple[str, float, str, Architecture]] = {}
    for cost in COSTS:
        full = cost_value(space, whole, cost, context)
        for share in map(float, options.shares.split(",")):
            for name, family in families.items():
                picked = nearest(family(space, whole), partial(_share, space, cost, full, context), share)
                wanted.setdefault(f"{cost} {share:g} {name}", (cost, share, name, picked))
    picks = {picked.fingerprint: picked for _, _, _, picked in wanted.values()}
    given = [f"space.widths={sizes}", "task.uniform=[]", f"output_dir={options.out}", "report.page=false"]
    if options.quick:
        given += ["preset=smoke", "task.backbone=random"]
    else:
        given += [f"recipe.heal.tokens={options.tokens}", f"task.context={context}"]
    measured = rankitect.measure([whole, *picks.values()], ["space=mobile_llm", *given]).table
    by_fingerprint: Mapping[str, Mapping[str, float]] = measured.set_index("fingerprint").to_dict("index")
    rows = []
    for cost, share, name, picked in wanted.values():
        got = by_fingerprint[picked.fingerprint]
        relative = [cost_value(space, picked, c, context) / cost_value(space, whole, c, context) for c in COSTS]
        decode = cost_value(space, picked, "decode_flops", context) / cost_value(space, whole, "decode_flops", context)
        rows.append(
            [f"{cost} {share:.0%}", name, *(f"{r:.1%}" for r in relative), f"{decode:.1%}", f"{got['perplexity']:.2f}"]
        )
    backbone = f"Backbone: {by_fingerprint[whole.fingerprint]['perplexity']:.2f}. Healed with {options.tokens} tokens."
    header = ["equal", "pruned", *COSTS, "decode FLOPs", "perplexity"]
    table("Pruning the residual width", header, rows, backbone, timed=False)
    Path(options.out, "hidden_width.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
