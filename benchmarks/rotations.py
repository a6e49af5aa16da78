"""Do rotations help few bits, and do learned ones help more than random ones? (arXiv 2405.16406, 2404.00456)

A backbone is rotated and rounded by the stages that a recipe has, and what that costs is measured on held-out windows
of two texts: the one that rotations are learned on, and another. Ratios of perplexity to the model in floats are paired
window by window. A repeated run goes on where it stopped.

    python benchmarks/rotations.py --text wikitext.txt --other shakespeare.txt --out runs/rotations
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, arguments, table, verdict

from rankitect.contracts.stage import Stage
from rankitect.data.text import DEFAULT_TEXT
from rankitect.data.windows import TextWindows
from rankitect.graph import SearchSpace
from rankitect.metrics.language import perplexity_interval, text_quality
from rankitect.models.backbone import largest
from rankitect.models.plan import make_plan
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Standalone
from rankitect.quantization.settings import QuantizeConfig
from rankitect.recipes import Recipe, StageStore
from rankitect.recipes.quantize import Quantize
from rankitect.recipes.rotate import Rotate, RotateConfig
from rankitect.search_spaces.mobile_llm import from_backbone

FLOATS = {"method": "rtn", "bits": 32, "group": 0, "embedding_bits": 32, "head_bits": 32, "head_act_bits": 32}
BITS: dict[str, dict[str, Any]] = {
    "W16A8": {**FLOATS, "act_bits": 8},
    "W16A4": {**FLOATS, "act_bits": 4},
    "W16KV4": {**FLOATS, "act_bits": 32, "cache_bits": 4},
    "W16A4KV4": {**FLOATS, "act_bits": 4, "cache_bits": 4},
    "W4": {**FLOATS, "method": "gptq", "bits": 4, "act_bits": 32},
    "W4A4KV4": {**FLOATS, "method": "gptq", "bits": 4, "act_bits": 4, "cache_bits": 4},
}
"""What is rounded: weights by output with GPTQ, activations and keys and values by token; table and head are floats."""
MERGED, ALL = {"r3": False, "r4": False}, {"r3": True, "r4": True}
ROTATIONS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "R1, R2": {"kind": "random", **MERGED},
    "R1 to R4": {"kind": "random", **ALL},
    "R1 to R4, R4 in blocks of 128": {"kind": "random", **ALL, "r4_block": 128},
    "learned, local": {"kind": "learned", **ALL},
    "learned, end to end": {"kind": "learned", "objective": "end_to_end", **ALL},
}
RANDOM, LEARNED = "R1 to R4", ("learned, local", "learned, end to end")
REPEATED = ("W16A4KV4", "W4A4KV4")
"""Bits that every seed of all four rotations is measured with; the rest with the first."""


class Backbone:
    """The model, its space, and the texts that it is measured on.

    Args:
        options: Of the command.
    """

    def __init__(self, options: Any) -> None:
        from rankitect.data.tokenizer import ByteTokenizer
        from rankitect.models.checkpoints import DecoderConfig, load_checkpoint, random_checkpoint

        self.quick, self.windows = options.quick, options.windows
        if options.quick:
            tiny = DecoderConfig(vocab=256, d_model=48, n_layers=3, n_heads=6, n_kv_heads=3, head_dim=8, ffn=128)
            checkpoint = random_checkpoint(tiny, 0)
        else:
            checkpoint = load_checkpoint(options.backbone)
        context = 32 if options.quick else 256
        self.space: SearchSpace = from_backbone(checkpoint.config, context=context, patterns=["full"])
        self.architecture = largest(self.space)
        tensors, plan = space_tensors(checkpoint), make_plan(self.space, self.architecture)
        self._tensors = {key: tensors[key] for key in plan.shapes()}
        tokenizer = ByteTokenizer() if options.quick else checkpoint.tokenizer
        given = {"own": options.text or DEFAULT_TEXT, "other": options.other}
        self.texts = {
            name: TextWindows.open(tokenizer, path, context=context) for name, path in given.items() if path is not None
        }

    def model(self) -> Standalone:
        """The backbone in floats."""
        plan = make_plan(self.space, self.architecture)
        return Standalone(plan, {key: tensor.clone() for key, tensor in self._tensors.items()}).eval()

    def rounded(self, rotation: Mapping[str, Any] | None, bits: Mapping[str, Any], seed: int) -> tuple[Any, float]:
        """The model after the stages, and the CPU seconds that rotating it took."""
        text = self.texts["own"]
        calibration = {"calibration_tokens": 512, "calibration_context": 32} if self.quick else {}
        config = QuantizeConfig(**{**bits, **calibration})
        short = {"tokens": 64, "context": 32, "steps": 5, "end_steps": 2} if self.quick else {}
        bits_after = {"act_bits": config.act_bits, "cache_bits": config.cache_bits}
        result, seconds = self.model(), 0.0
        space, nothing = self.space, StageStore(limit=0)
        stages: list[Stage] = []
        if rotation is not None:
            stages.append(Rotate(RotateConfig(**{**bits_after, **short, **rotation}), text))
        stages.append(Quantize(config, text if config.needs_text else None))
        for number, stage in enumerate(stages):
            began = time.process_time()
            done = Recipe({f"stage{number}": stage}, nothing).run(
                result, self.architecture, seed=seed, space=space, keep=False
            )
            result, space = done.model, done.space
            if isinstance(stage, Rotate):
                seconds = time.process_time() - began
        return result, seconds

    def losses(self, model: Any) -> dict[str, list[float]]:
        """Mean nats of each held-out window, by text."""
        return {
            name: [float(x) for x in text_quality(model, text, "test", count=self.windows).window_nats]
            for name, text in self.texts.items()
        }


def jobs(seeds: int, random: int) -> Iterator[tuple[str, str, int]]:
    """What is measured: bits, rotation and seed."""
    for bits in BITS:
        for rotation, settings in ROTATIONS.items():
            count = 1
            if bits in REPEATED and rotation in (RANDOM, *LEARNED):
                count = random if rotation == RANDOM and bits == "W16A4KV4" else seeds
            if settings is not None and settings["kind"] == "learned" and bits not in REPEATED:
                continue
            for seed in range(count):
                yield bits, rotation, seed


def main() -> None:
    """Measure what is missing, and print the tables."""
    options = arguments(
        str(__doc__).splitlines()[0], 1, out="runs/rotations", text=None, other=None, backbone="smollm2-135m",
        windows=16, seeds=3, random=7, only="",
    )  # fmt: skip
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    results, backbone = Results(out / "results.jsonl"), Backbone(options)
    if results.find(bits="float") is None:
        results.add({"bits": "float", "nats": backbone.losses(backbone.model())})
    wanted = [job for job in jobs(options.seeds, options.random) if options.only in ("", job[0])]
    for bits, rotation, seed in wanted:
        if results.find(bits=bits, rotation=rotation, seed=seed) is None:
            model, seconds = backbone.rounded(ROTATIONS[rotation], BITS[bits], seed)
            row = {"bits": bits, "rotation": rotation, "seed": seed, "seconds": seconds}
            results.add({**row, "nats": backbone.losses(model)})
    report(results, list(backbone.texts))


def report(results: Results, texts: Sequence[str]) -> None:
    """Print the tables."""
    reference = results.find(bits="float")
    assert reference is not None
    rows = []
    for bits in BITS:
        for rotation in ROTATIONS:
            mine = [r for r in results.rows if r["bits"] == bits and r.get("rotation") == rotation]
            if mine:
                each = [[_ratio(r, reference, text)[0] for r in mine] for text in texts]
                cells = [f"{np.exp(np.mean(np.log(e))):.3g} ({min(e):.3g}–{max(e):.3g})" for e in each]
                seconds = max(r["seconds"] for r in mine)
                rows.append((bits, rotation, len(mine), *cells, f"{seconds:.0f}"))
    table(
        "Rotations, as a ratio of perplexity to the model in floats",
        ("rounded", "rotations", "seeds", *texts, "CPU s"),
        rows,
        "Geometric mean over seeds (least to most).",
        timed=False,
    )
    checks = []
    for name in LEARNED:
        for bits, limit in (("W16A4KV4", 1.65), ("W4A4KV4", 2.3)):
            learned, drawn = (
                [r for r in results.rows if r["bits"] == bits and r.get("rotation") == kind] for kind in (name, RANDOM)
            )
            for text in texts if learned and drawn else ():
                own = [_ratio(r, reference, text) for r in learned]
                best = min(_ratio(r, reference, text)[0] for r in drawn)
                mean = float(np.exp(np.mean([np.log(value) for value, _ in own])))
                checks.append((bits, name, text, own[0][1], verdict(mean, at_most=limit), verdict(mean, at_most=best)))
    table(
        "Learned rotations against random ones",
        ("rounded", "rotations", "text", "first seed (95% interval over windows)", "limit", "best random seed"),
        checks,
        timed=False,
    )


def _ratio(row: Mapping[str, Any], other: Mapping[str, Any], text: str) -> tuple[float, str]:
    """The ratio of two perplexities on the same windows, and the text with its interval."""
    ours, theirs = np.asarray(row["nats"][text]), np.asarray(other["nats"][text])
    low, high = perplexity_interval(ours, theirs)
    value = float(np.exp(ours.mean() - theirs.mean()))
    return value, f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
