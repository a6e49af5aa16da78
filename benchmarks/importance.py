"""Which importance criterion prunes best on each axis, at one size: before healing, with and without refits, and after.

Calibration is on the train split; perplexity is that of the search split, so that the test split stays unseen.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from common import arguments, random_backbone, table

from rankitect.data.windows import TextWindows
from rankitect.graph import Architecture, SearchSpace
from rankitect.metrics.language import text_quality
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import Backbone, largest, rank
from rankitect.models.checkpoints import load_checkpoint
from rankitect.models.importance import CRITERIA, Statistics, gather
from rankitect.models.pretrained import Orders, space_tensors
from rankitect.models.supernet import Standalone, Supernet
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.training.distill import Distillation
from rankitect.training.settings import DistilConfig
from rankitect.training.text import train_on_text

NONE = "none (as they are)"


class Bench:
    """The backbone, its text, its statistics, and how a pruned model is judged."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.checkpoint = random_backbone(True) if options.quick else load_checkpoint(options.backbone)
        c = self.checkpoint.config
        self.context = 32 if options.quick else 256
        self.text = TextWindows.open(self.checkpoint.tokenizer, context=self.context)
        self.narrow = c.d_model * 8 // 9 // 16 * 16
        self.space: SearchSpace = from_backbone(c, context=self.context, widths=(self.narrow,))
        self.plain = Supernet(self.space, tensors=space_tensors(self.checkpoint))
        batches = 2 if options.quick else options.calibration // (4 * self.context)
        self.statistics: Statistics = gather(
            self.plain, largest(self.space), self.text.batches("train", batch=4, steps=batches), cross_entropy
        )
        self._scratch = tempfile.TemporaryDirectory()
        teacher = self.plain.activate(largest(self.space))
        tokens = 64 if options.quick else options.heal_tokens
        settings = DistilConfig(
            tokens=max(tokens, 1),
            batch=2 if options.quick else 4,
            context=32 if options.quick else 128,
            lr=3e-4,
            warmup=0,
        )
        self.healing = Distillation(teacher, self.text, settings, cache=Path(self._scratch.name)) if tokens else None

    def prune(self, orders: Orders, refit: bool, architecture: Architecture) -> Standalone:
        """The backbone sorted by these orders, cut to the architecture."""
        return Backbone(self.checkpoint, self.space, orders, self.statistics.gram if refit else None).inherit(
            architecture
        )

    def perplexity(self, model: torch.nn.Module, split: str = "search", windows: int | None = None) -> float:
        """Of a split; on `--windows` windows unless said."""
        return text_quality(model, self.text, split, count=windows or self.options.windows).perplexity

    def changed(self, **values: Any) -> Architecture:
        """The backbone with some choices changed: in every layer, or by whole path with __ for the dot."""
        whole = largest(self.space)
        found = {p: whole.get(p, c.values[0]) for p, c in self.space.choices.items()}
        for path in found:
            last = path.split(".")[-1]
            found[path] = values.get(path.replace(".", "__"), values.get(last, found[path]))
        return self.space.architecture(found)


def neurons_and_heads(bench: Bench) -> Iterator[tuple[str, str, Orders, Architecture]]:
    """Feed-forward units, key/value heads and query heads under each criterion."""
    c = bench.checkpoint.config
    step = max(v for v in bench.space.choices["layers.0.ffn"].values if v <= c.ffn // 2)  # type: ignore[operator,type-var]
    axes = {
        f"FFN neurons, {c.ffn} to {step}": (bench.changed(ffn=step), "ffn"),
        f"key/value heads, {c.n_kv_heads} to {c.n_kv_heads - 1}": (bench.changed(kv_heads=c.n_kv_heads - 1), "kv"),
        "query heads of a group, one fewer": (bench.changed(group=c.n_heads // c.n_kv_heads - 1), "group"),
    }
    for axis, (architecture, name) in axes.items():
        for criterion in [*CRITERIA, NONE]:
            orders = Orders() if criterion == NONE else rank(c, bench.plain, bench.statistics, criterion)
            kept = dataclasses.replace(Orders(), **{name: getattr(orders, name)})
            if name == "group" and criterion != NONE:  # groups are sorted for sorted key/value heads
                kept = dataclasses.replace(kept, kv=orders.kv)
            yield axis, criterion, kept, architecture


def channels(bench: Bench) -> Iterator[tuple[str, str, Orders, Architecture]]:
    """Channels of the residual stream."""
    t, c = bench.checkpoint.tensors, bench.checkpoint.config
    written = torch.zeros(c.d_model)
    for i in range(c.n_layers):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            written += t[f"model.layers.{i}.{name}.weight"].square().sum(1)
    scores = {
        "mean square after norms": bench.statistics.residual,
        "norm of the embedding's columns": t["model.embed_tokens.weight"].square().sum(0),
        "norm of the weights that write": written,
    }
    architecture = bench.changed(width=bench.narrow)
    for criterion, score in scores.items():
        order = score.argsort(descending=True, stable=True)
        yield f"channels, {c.d_model} to {bench.narrow}", criterion, Orders(channels=order), architecture
    yield f"channels, {c.d_model} to {bench.narrow}", NONE, Orders(), architecture


def layers(bench: Bench) -> Iterator[tuple[str, str, Orders, Architecture]]:
    """Which fifth of the layers is dropped."""
    count = bench.checkpoint.config.n_layers
    drop = max(1, count // 5)
    influence: Mapping[int, float] = {int(s.split(".")[1]): v for s, v in bench.statistics.influence.items()}
    alone = {}
    for i in range(count):
        without = bench.plain.activate(bench.changed(**{f"layers__{i}__runs": 0}))
        alone[i] = bench.perplexity(without, "train", windows=1 if bench.options.quick else 8)
    dropped = {
        "least block influence": sorted(influence, key=influence.__getitem__)[:drop],
        "least perplexity when dropped alone": sorted(alone, key=alone.__getitem__)[:drop],
        "evenly spaced": [round((j + 0.5) * count / drop) for j in range(drop)],
        "the last but one and before": list(range(count - 1 - drop, count - 1)),
    }
    for criterion, gone in dropped.items():
        architecture = bench.changed(**{f"layers__{i}__runs": 0 for i in gone})
        yield (
            f"layers, {count} to {count - drop}",
            f"{criterion} ({', '.join(map(str, sorted(gone)))})",
            Orders(),
            architecture,
        )


def main() -> None:
    """Print the table."""
    options = arguments(
        __doc__ or "", rounds=1, backbone="smollm2-135m", calibration=8192, windows=24, heal_tokens=7680
    )
    if options.quick:
        options.windows = 2
    bench = Bench(options)
    whole = bench.perplexity(bench.plain.activate(largest(bench.space)))
    rows: list[tuple[str, ...]] = [("the whole backbone", "", f"{whole:.2f}", "", "")]
    for candidates in (neurons_and_heads, channels, layers):
        for axis, criterion, orders, architecture in candidates(bench):
            cuts_units = axis.startswith(("FFN", "key", "query"))
            unhealed = bench.perplexity(bench.prune(orders, False, architecture))
            model = bench.prune(orders, cuts_units, architecture)
            refitted = f"{bench.perplexity(model):.2f}" if cuts_units else "-"
            healed = "-"
            if bench.healing is not None:
                train_on_text(model, bench.healing, seed=0)
                healed = f"{bench.perplexity(model):.2f}"
            rows.append((axis, criterion, f"{unhealed:.2f}", refitted, healed))
            print(" | ".join(rows[-1]), flush=True)
    table(
        "Importance: perplexity of the pruned backbone",
        ("axis", "criterion", "cut", "cut and refitted", "healed"),
        rows,
        f"Search split, {options.windows} windows of {bench.context} tokens; calibrated on "
        f"{bench.statistics.tokens:,} tokens of the train split; healed for "
        f"{bench.healing.config.tokens if bench.healing else 0:,} tokens, from the refitted weights where units are "
        "cut. One seed.",
        timed=False,
    )


if __name__ == "__main__":
    main()
