"""What a training step in few bits takes, and how much of what rounding costs a few steps win back.

Steps are timed in turns: plain ones, ours with ranges that follow, stay or learn, and torchao's fake quantizers on the
same model. Quality is that of a backbone after the stages `quantize` and `qat` of a recipe, on held-out windows; ratios
of perplexity to the model in floats are paired window by window. A repeated run goes on where it stopped.

    python benchmarks/qat.py --text wikitext.txt --out runs/qat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, arguments, in_turns, random_backbone, ratio, seconds, table, verdict
from supernet_overhead import adam_step

from rankitect.data.text import DEFAULT_TEXT
from rankitect.data.windows import TextWindows
from rankitect.graph import Architecture, SearchSpace
from rankitect.metrics.language import perplexity_interval, text_quality
from rankitect.models.backbone import largest
from rankitect.models.plan import make_plan
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Standalone
from rankitect.quantization.settings import QuantizeConfig
from rankitect.quantization.spaces import quantized_space
from rankitect.quantization.weights import scales_of, with_numerics_of
from rankitect.recipes import Recipe, StageStore
from rankitect.recipes.qat import Qat, QatConfig
from rankitect.recipes.quantize import Quantize
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.training.distill import Distillation

STARTS: dict[str, dict[str, Any]] = {
    "8da4w, table 8, head 4, to nearest": {"method": "rtn", "head_bits": 4, "head_group": 32},
    "8da4w, table and head 8, to nearest": {"method": "rtn"},
    "8da4w, table and head 8, GPTQ": {"method": "gptq"},
}
LIMITS = {"step": 1.4, "start": 1.30, "trained": 1.15, "recovered": 0.6}


class Task:
    """As much of a task as the stage asks for: text, and a distillation from the model in floats.

    Args:
        data: The text.
        space: The models'.
        whole: The backbone.
    """

    backbone_name, backbone_fingerprint = "backbone", ""

    def __init__(self, data: TextWindows, space: SearchSpace, whole: Architecture) -> None:
        self.data, self.space, self.reference = data, space, whole

    def distillation(self, config: Any, split: str = "train", teacher: Any = None) -> Distillation:
        """From the teacher."""
        return Distillation(teacher, self.data, config, split=split)

    def next_token(self, config: Any, split: str = "train") -> Any:
        """Not asked for."""
        raise NotImplementedError


def main() -> None:
    """Print the tables."""
    options = arguments(
        str(__doc__).splitlines()[0], 8, batch=4, context=128, out="runs/qat", text=None, backbone="smollm2-135m",
        windows=16, seeds=3, steps=45,
    )  # fmt: skip
    time_steps(options)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    measure(options, Results(out / "results.jsonl"))


def time_steps(options: Any) -> None:
    """The first table."""
    checkpoint = random_backbone(options.quick)
    space = from_backbone(checkpoint.config)
    whole = largest(space)
    ids = torch.randint(0, checkpoint.config.vocab, (options.batch, options.context + 1))
    config = QuantizeConfig(method="rtn", group=0 if options.quick else 32)
    jobs: dict[str, Callable[[], object]] = {"plain": adam_step(_model(space, whole, checkpoint), ids)}
    for ranges in ("minmax", "fixed", "learned"):
        changed = quantized_space(space, config, "minmax" if ranges == "minmax" else "stored")
        model = with_numerics_of(changed, whole, _model(space, whole, checkpoint))
        for scale in scales_of(model).values():
            scale.requires_grad_(ranges == "learned")
        jobs[f"few bits, ranges={ranges}"] = adam_step(model, ids)
    jobs["torchao's fake quantizers"] = adam_step(_torchao(checkpoint, config.group or 16), ids)
    times = in_turns(jobs, options.rounds)
    rows = []
    for name in jobs:
        value, text = ratio(times, name, "plain")
        rows.append((name, seconds(times[name]), text, verdict(value, at_most=LIMITS["step"]) if "few" in name else ""))
    table(
        f"A training step in 8da4w, {options.batch} x {options.context} tokens",
        ("step", "time", "to a plain step", "target"),
        rows,
        "Cross-entropy, AdamW, float32. torchao's are on the hand-written Llama, and leave table and head in floats.",
    )


def _model(space: SearchSpace, whole: Architecture, checkpoint: Any) -> Standalone:
    tensors, plan = space_tensors(checkpoint), make_plan(space, whole)
    return Standalone(plan, {key: tensors[key].clone() for key in plan.shapes()})


def _torchao(checkpoint: Any, group: int) -> torch.nn.Module:
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    from tests.models.reference import ReferenceLlama

    model = ReferenceLlama.load(checkpoint)
    activations = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    weights = IntxFakeQuantizeConfig(torch.int4, group_size=group)
    quantize_(model, QATConfig(activation_config=activations, weight_config=weights, step="prepare"))
    return model


def measure(options: Any, results: Results) -> None:
    """The second table."""
    from rankitect.data.tokenizer import ByteTokenizer
    from rankitect.models.checkpoints import DecoderConfig, load_checkpoint, random_checkpoint

    tiny = DecoderConfig(vocab=256, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, ffn=128)
    checkpoint = random_checkpoint(tiny, 0) if options.quick else load_checkpoint(options.backbone)
    context = 32 if options.quick else 256
    space = from_backbone(checkpoint.config, context=context, patterns=["full"])
    whole, tokenizer = largest(space), ByteTokenizer() if options.quick else checkpoint.tokenizer
    data = TextWindows.open(tokenizer, options.text or DEFAULT_TEXT, context=context)

    def losses(model: torch.nn.Module) -> list[float]:
        return [float(x) for x in text_quality(model, data, "test", count=options.windows).window_nats]

    if results.find(start="float") is None:
        results.add({"start": "float", "nats": losses(_model(space, whole, checkpoint).eval())})
    short = {"calibration_tokens": 512, "calibration_context": 32} if options.quick else {}
    keys: dict[str, Any] = {"batch": 2, "context": 32, "tokens": 128} if options.quick else {
        "batch": options.batch, "context": options.context, "tokens": options.steps * options.batch * options.context,
    }  # fmt: skip
    for start, settings in STARTS.items():
        for ranges in (None, "minmax" if settings["method"] == "rtn" else "fixed", "learned"):
            for seed in range(1 if ranges is None or options.quick else options.seeds):
                if results.find(start=start, ranges=ranges, seed=seed) is not None:
                    continue
                config = QuantizeConfig(**{**settings, **short})
                stages: dict[str, Any] = {"quantize": Quantize(config, data if config.needs_text else None)}
                if ranges is not None:
                    stages["qat"] = Qat(QatConfig(ranges=ranges, k=None, **keys), Task(data, space, whole))  # type: ignore[arg-type]
                done = Recipe(stages, StageStore(limit=0)).run(
                    _model(space, whole, checkpoint), whole, seed=seed, space=space, keep=False
                )
                results.add({"start": start, "ranges": ranges, "seed": seed, "nats": losses(done.model)})
    report(results)


def report(results: Results) -> None:
    """Print the table."""
    plain = results.find(start="float")
    assert plain is not None
    rows = []
    for start in STARTS:
        begun = results.find(start=start, ranges=None)
        for ranges in (None, "minmax", "fixed", "learned"):
            mine = [r for r in results.rows if r["start"] == start and r.get("ranges") == ranges]
            if not mine or begun is None:
                continue
            values = [_ratio(row, plain) for row in mine]
            mean = float(np.exp(np.mean([np.log(value) for value, _ in values])))
            back = 1 - np.log(mean) / np.log(_ratio(begun, plain)[0])
            limit = LIMITS["start" if ranges is None else "trained"]
            won = "" if ranges is None else f"{back:.0%} ({verdict(back, at_least=LIMITS['recovered'])})"
            rows.append((start, ranges or "not trained", len(mine), values[0][1], verdict(mean, at_most=limit), won))
    table(
        "Perplexity after training in few bits, as a ratio to the model in floats",
        ("start", "ranges", "seeds", "first seed (95% interval over windows)", "target", "log loss won back"),
        rows,
        timed=False,
    )


def _ratio(row: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, str]:
    ours, theirs = np.asarray(row["nats"]), np.asarray(other["nats"])
    low, high = perplexity_interval(ours, theirs)
    value = float(np.exp(ours.mean() - theirs.mean()))
    return value, f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
