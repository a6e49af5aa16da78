"""Are searched bits better than uniform ones at equal bytes, and architecture and bits together than either alone?

Bits of the whole backbone are searched (layers 8 or 4 bits in groups of 32, table and head 8 or 4) with Bayesian
optimisation under a bound on the program's bytes, for each seed; nothing is trained. Two controls stand beside them:
bits drawn at random within the same bytes, and a rule by hand (table and head 4 bits, attention 8 bits in as many
layers as fit). Then (`--tokens`, 0 leaves it out) the architecture is open as well: differentiable search of
architecture and bits, of the architecture alone in 8 bits, and the whole backbone in 4 bits, all within the same bytes
and healed alike (`--only together` measures just this). Ratios of perplexity are paired window by window, in the domain
that was searched in and in another. A repeated run goes on where it stopped.

    python benchmarks/searched_bits.py --out runs/searched-bits --other text8.txt --tokens 10240
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, table

import rankitect
from rankitect.graph import Architecture, SearchSpace
from rankitect.metrics.intervals import mean_estimate
from rankitect.metrics.language import perplexity_interval, text_quality
from rankitect.models.backbone import Backbone, largest
from rankitect.models.families import axes
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.search_spaces.mobile_llm_bits import Bits

UNIFORM = {
    "4 bits, table 8": {axes.EMBED_BITS: 8, axes.HEAD_BITS: 4},
    "4 bits, table and head 8": {axes.EMBED_BITS: 8, axes.HEAD_BITS: 8},
}
"""Bits of table and head where all layers have 4: what is exported as 8da4w, and with a head of 8 bits as well."""
ALONE = ("space.bits.", "task.calibration_tokens=", "task.slope_tokens=")
"""Keys for bits alone; where units are pruned, they are ordered and what they cost is foretold as by default."""
RANDOM = 3
"""Draws of random bits."""


def uniform(space: SearchSpace, ends: Mapping[str, int]) -> Architecture:
    """The whole backbone with layers of 4 bits."""
    bits = {path: ends.get(path, 4) for path in space.choices if axes.is_bits(path)}
    return space.architecture({**largest(space).choices, **bits})


def by_hand(space: SearchSpace, most: float) -> Architecture:
    """Table and head of 4 bits, and attention of 8 in as many of the first layers as fit."""
    ends = dict.fromkeys((axes.EMBED_BITS, axes.HEAD_BITS), 4)
    architecture = uniform(space, ends)
    paths = [path for path in space.choices if axes.is_bits(path) and path.endswith("attn_bits")]
    for count in range(1, len(paths) + 1):
        more = space.architecture({**architecture.choices, **dict.fromkeys(paths[:count], 8)})
        if space.cost(more, "program_bytes") > most:
            break
        architecture = more
    return architecture


def drawn(space: SearchSpace, most: float, seed: int) -> Architecture:
    """Random bits that take between 98% of a bound and all of it."""
    rng, whole = np.random.default_rng(seed), uniform(space, {})
    paths = [path for path in space.choices if axes.is_bits(path)]
    while True:
        share = rng.uniform()
        bits = {path: 8 if rng.uniform() < share else 4 for path in paths}
        architecture = space.architecture({**whole.choices, **bits})
        if 0.98 * most <= space.cost(architecture, "program_bytes") <= most:
            return architecture


def searched(
    out: Path, most: float, seed: int, samples: int, given: Sequence[str], quick: bool
) -> tuple[Architecture, Any]:
    """The best bits within a bound on bytes, found on the search split."""
    keys = ["space=mobile_llm_bits", "controller=bayesian", "recipe=none", "report.page=false", f"seed={seed}"]
    keys += ["runner.baselines=false", "confirm.seeds=1"]
    keys += [f"constraints={{program_bytes: ..{most}}}", "evaluator.objectives=[perplexity]", "task.uniform=[]"]
    keys += [f"controller.samples={samples}", "controller.finalists=1", f"controller.initial={max(3, samples // 3)}"]
    keys += [f"output_dir={out}", *(["preset=smoke"] if quick else []), *given]
    result = rankitect.search(keys)
    best = min(result.summary.pareto, key=lambda c: c.metrics["perplexity"].value)
    return Architecture.from_json((result.folder / best.folder / "architecture.json").read_text()), result


def together(out: Path, name: str, keys: Sequence[str], tokens: int, quick: bool) -> Any:
    """The best model of a differentiable search within the bounds of some keys, healed with so many tokens."""
    given = ["space=mobile_llm_bits", "controller=dnas", "controller.points=1", "controller.weight_lr=0"]
    given += ["report.page=false", "runner.baselines=false", "task.uniform=[]", f"output_dir={out / name}"]
    given += ["preset=smoke"] if quick else [f"recipe.heal.tokens={tokens}"]
    result = rankitect.search([*given, *keys])
    best = min(result.summary.pareto, key=lambda c: c.metrics["perplexity"].value)
    return rankitect.load_candidate(result.folder / best.folder)


def healed(out: Path, architecture: Architecture, keys: Sequence[str], tokens: int, quick: bool) -> Any:
    """One architecture, healed with so many tokens."""
    given = ["space=mobile_llm_bits", "report.page=false", "task.uniform=[]", f"output_dir={out / 'whole'}"]
    given += ["preset=smoke"] if quick else [f"recipe.heal.tokens={tokens}"]
    result = rankitect.measure([architecture], ["runner.baselines=false", *given, *keys]).result
    return rankitect.load_candidate(sorted((result.folder / "candidates").iterdir())[0])


def losses(backbone: Backbone, architecture: Architecture, windows: Any, count: int) -> list[float]:
    """Mean nats of each test window."""
    model = backbone.supernet.activate(backbone.space.validate(architecture))
    return [float(x) for x in text_quality(model, windows, "test", count=count).window_nats]


def ratio_row(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """The ratio of two perplexities on the same windows, and the text with its interval."""
    low, high = perplexity_interval(np.asarray(ours), np.asarray(theirs))
    value = float(np.exp(np.mean(ours) - np.mean(theirs)))
    return value, f"{value:.4f} ({low:.4f} to {high:.4f})"


def main() -> None:
    """Search, measure, and print the table."""
    sizes: dict[str, Any] = {"samples": 24, "seeds": 3, "windows": 96, "search_windows": 12}
    options = arguments(
        str(__doc__).splitlines()[0],
        1,
        out="runs/searched-bits",
        other=None,
        backbone="smollm2-135m",
        tokens=0,
        only="",
        **sizes,
    )
    from rankitect.data.tokenizer import ByteTokenizer
    from rankitect.data.windows import TextWindows
    from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint, random_checkpoint

    out, quick = Path(options.out), options.quick
    out.mkdir(parents=True, exist_ok=True)
    if quick:
        tiny = DecoderConfig(vocab=256, d_model=48, n_layers=4, n_heads=6, n_kv_heads=3, head_dim=8, ffn=128)
        checkpoint: DecoderCheckpoint = random_checkpoint(tiny, 0)
    else:
        checkpoint = load_checkpoint(options.backbone)
    context = 32 if quick else 256
    opened = {"layers": [8, 4], "embedding": [8, 4], "head": [8, 4], "group": 0 if quick else 32}
    space = from_backbone(checkpoint.config, context=context, bits=Bits(**opened), pruned=False)
    backbone = Backbone(checkpoint, space)
    tokenizer = ByteTokenizer() if quick else checkpoint.tokenizer
    limit = 1_000_000 if quick else None
    domains = {"own": TextWindows.open(tokenizer, context=context, limit=limit)}
    if options.other:
        domains["other"] = TextWindows.open(tokenizer, Path(options.other), context=context, limit=limit)
    results = Results(out / "results.jsonl")
    given = [f"space.bits.{key}={value}" for key, value in opened.items()]
    if not quick:  # nothing is pruned, so that the order of units does not count
        given += [f"task.backbone={options.backbone}", f"task.context={context}", "task.calibration_tokens=1024"]
        given += ["task.slope_tokens=0", f"task.search_windows={options.search_windows}", "task.test_windows=8"]
    if options.only != "together":
        _alone(out, backbone, domains, results, options, given)
    if options.tokens:
        _together(out, backbone, domains, results, options, [key for key in given if not key.startswith(ALONE)])


def _alone(
    out: Path, backbone: Backbone, domains: Mapping[str, Any], results: Results, options: Any, given: Sequence[str]
) -> None:
    """The first tables: bits of the whole backbone, and controls."""
    space, quick = backbone.space, options.quick
    rows: list[tuple[object, ...]] = []
    controls: list[tuple[object, ...]] = []
    for name, ends in UNIFORM.items():
        plain = uniform(space, ends)
        most = float(space.cost(plain, "program_bytes"))
        kept = {
            "uniform": _measured(results, backbone, domains, options.windows, budget=name, model="uniform", a=plain)
        }
        for seed in range(options.seeds):
            place = out / f"bits-{round(most)}-{seed}"
            found = results.find(budget=name, model=f"searched {seed}")
            architecture = (
                space.architecture(found["choices"])
                if found is not None
                else searched(place, most, seed, 3 if quick else options.samples, given, quick)[0]
            )
            label = f"searched {seed}"
            kept[label] = _measured(
                results, backbone, domains, options.windows, budget=name, model=label, a=architecture
            )
        rows += list(_rows(name, kept, domains, space))
        others = {"by hand": by_hand(space, most), **{f"random {i}": drawn(space, most, i) for i in range(RANDOM)}}
        beside = {
            label: _measured(results, backbone, domains, options.windows, budget=name, model=label, a=architecture)
            for label, architecture in others.items()
        }
        controls += list(_controls(name, kept, beside, domains))
    table(
        "Bits by layer, at equal bytes, nothing trained",
        ("bytes of the program", "text", "uniform", "searched", "ratio, all seeds", "each seed"),
        rows,
        "Perplexity; ratios of searched to uniform with 95% intervals over windows (each seed) and over windows of the "
        "mean of the seeds' losses (all seeds).",
        timed=False,
    )
    table(
        "Controls at equal bytes",
        ("bytes of the program", "text", "random bits, each", "by hand", "searched to random", "searched to by hand"),
        controls,
        "Ratios of perplexity to uniform bits; then of the mean of the searched seeds' losses to the mean of the "
        "random ones', and to those of the rule by hand, with 95% intervals over windows.",
        timed=False,
    )


def _together(
    out: Path, backbone: Backbone, domains: Mapping[str, Any], results: Results, options: Any, given: Sequence[str]
) -> None:
    """The second table: architecture and bits, each alone and both together, at the bytes of the whole in 4 bits."""
    space, quick = backbone.space, options.quick
    whole = uniform(space, UNIFORM["4 bits, table 8"])
    most = float(space.cost(whole, "program_bytes"))
    # From both sides: one target is in the middle of what is allowed.
    bound = f"constraints={{program_bytes: {0.98 * most}..{most}}}"
    group = f"space.bits.group={0 if quick else 32}"
    values = {"pruned, 8 bits": "[8]", "architecture and bits": "[8,4]"}

    def measured(name: str, seed: int, candidate: Any) -> dict[str, Any]:
        nats = {
            domain: text_quality(candidate.model, text, "test", count=options.windows).window_nats.tolist()
            for domain, text in domains.items()
        }
        size = float(candidate.space.cost(candidate.architecture, "program_bytes"))
        row = {"model": name, "seed": seed, "bytes": size, "nats": nats}
        results.add(row)
        return row

    rows = {}
    for seed in range(options.seeds):
        keys = [*given, group, f"seed={seed}"]
        name = "whole, 4 bits"
        rows[name, seed] = results.find(model=name, seed=seed) or measured(
            name, seed, healed(out / f"seed-{seed}", whole, [*keys, "constraints=null"], options.tokens, quick)
        )
        for name, some in values.items():
            bits = [f"space.bits.{kind}={some}" for kind in ("layers", "embedding", "head")]
            place = name.replace(", ", "-").replace(" ", "-")
            rows[name, seed] = results.find(model=name, seed=seed) or measured(
                name,
                seed,
                together(
                    out / f"seed-{seed}", place, [*keys, *bits, bound, "space.pruned=true"], options.tokens, quick
                ),
            )
    cells = []
    for domain in domains:
        mean = {
            name: np.mean([rows[name, seed]["nats"][domain] for seed in range(options.seeds)], axis=0)
            for name in ("whole, 4 bits", *values)
        }
        ours = mean.pop("architecture and bits")
        better = min(mean, key=lambda name: float(mean[name].mean()))
        cells.append(
            [
                domain,
                *(f"{np.exp(nats.mean()):.2f}" for nats in (*mean.values(), ours)),
                f"{better}: {ratio_row(ours, mean[better])[1]}",
            ]
        )
    table(
        f"Architecture and bits, at most the bytes of the whole in 4 bits, healed with {options.tokens} tokens",
        ("text", "whole, 4 bits", "pruned, 8 bits", "architecture and bits", "ratio to the better"),
        cells,
        f"Perplexity, the mean of the losses of {options.seeds} seeds; intervals over windows.",
        timed=False,
    )


def _measured(
    results: Results, backbone: Backbone, domains: Mapping[str, Any], windows: int, *, a: Architecture, **keys: Any
) -> dict[str, Any]:
    """A row of results: what a model loses on each test window of each domain."""
    row = results.find(**keys)
    if row is None:
        nats = {name: losses(backbone, a, text, windows) for name, text in domains.items()}
        size = float(backbone.space.cost(a, "program_bytes"))
        row = {**keys, "choices": dict(a.choices), "bytes": size, "nats": nats}
        results.add(row)
    return row


def _rows(name: str, kept: Mapping[str, Any], domains: Mapping[str, Any], space: SearchSpace) -> Any:
    plain, found = kept["uniform"], [row for label, row in kept.items() if label != "uniform"]
    for domain in domains:
        own = np.asarray([row["nats"][domain] for row in found])
        base = np.asarray(plain["nats"][domain])
        gap = mean_estimate(own.mean(0) - base)
        low, high = (float(np.exp(end)) for end in gap.interval())
        size = statistics.mean(row["bytes"] for row in found)
        yield (
            f"{name}: {plain['bytes'] / 1e6:.1f} MB; searched {size / 1e6:.1f} MB",
            domain,
            f"{np.exp(base.mean()):.2f}",
            f"{np.exp(own.mean()):.2f}",
            f"{np.exp(gap.value):.4f} ({low:.4f} to {high:.4f})",
            "; ".join(ratio_row(one, base)[1] for one in own.tolist()),
        )


def _controls(name: str, kept: Mapping[str, Any], beside: Mapping[str, Any], domains: Mapping[str, Any]) -> Any:
    for domain in domains:
        plain = float(np.mean(kept["uniform"]["nats"][domain]))
        ours = np.mean([row["nats"][domain] for label, row in kept.items() if label != "uniform"], axis=0)
        hand = np.asarray(beside["by hand"]["nats"][domain])
        chance = np.asarray([row["nats"][domain] for label, row in beside.items() if label != "by hand"])
        yield (
            name,
            domain,
            ", ".join(f"{np.exp(one.mean() - plain):.3f}" for one in chance),
            f"{np.exp(hand.mean() - plain):.3f}",
            ratio_row(ours, chance.mean(0))[1],
            ratio_row(ours, hand)[1],
        )


if __name__ == "__main__":
    main()
