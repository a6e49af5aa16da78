"""What a training step in few bits takes, and how much of what rounding costs a few steps win back.

Steps are timed in turns with plain ones: ours with ranges that follow, stay or learn, and torchao's fake quantizers on
the same model. Quality is that of a backbone after the stages `quantize` and `qat` of a recipe, on held-out windows of
two texts: the one that it is trained on, and another. Ratios of perplexity to the model in floats are paired window by
window. Controls say what the gain could be instead: the model in floats takes the same steps, with the same objective
and with cross-entropy, and one in few bits takes them with cross-entropy. A repeated run goes on where it stopped.

    python benchmarks/qat.py --text wikitext.txt --other shakespeare.txt --out runs/qat
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import Results, arguments, in_turns, random_backbone, ratio, seconds, table, verdict
from supernet_overhead import adam_step, owner

from rankitect.contracts import Spent
from rankitect.contracts.stage import Stage, StageMeasure
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
from rankitect.recipes.distil import Distil
from rankitect.recipes.qat import Qat, QatConfig
from rankitect.recipes.quantize import Quantize
from rankitect.recipes.train import Train
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.training.distill import Distillation
from rankitect.training.settings import DistilConfig
from rankitect.training.text import NextToken

FLOATS, NEAREST, GPTQ = "floats", "8da4w to nearest", "8da4w by GPTQ"
STARTS: dict[str, dict[str, Any]] = {
    NEAREST: {"method": "rtn"},
    GPTQ: {"method": "gptq"},
    f"{NEAREST}, head in 4 bits": {"method": "rtn", "head_bits": 4, "head_group": 32},
}
"""How weights are rounded before training: 4 bits in groups of 32, table and head 8 bits by row."""
TRAININGS: dict[str, dict[str, Any]] = {
    "minmax": {"ranges": "minmax"},
    "fixed": {"ranges": "fixed"},
    "learned": {"ranges": "learned"},
    "minmax, lr 2e-4": {"ranges": "minmax", "lr": 2e-4},
}
"""Settings of `qat`; the others are its defaults."""
CROSS_ENTROPY, SELF = "cross-entropy", "self-distillation"


class Job(NamedTuple):
    """A model that is trained.

    Attributes:
        start: Of `STARTS`, or `FLOATS`.
        trained: One of `TRAININGS`, or a control.
        seed: Of calibration and of the order of windows.
    """

    start: str
    trained: str
    seed: int = 0

    @property
    def untrained(self) -> Job:
        """What it begins with; rounding to nearest draws nothing."""
        drawn = self.start in STARTS and STARTS[self.start]["method"] != "rtn"
        return Job(self.start, "", self.seed if drawn else 0)


HEADLINE = (Job(GPTQ, "learned"), Job(NEAREST, "minmax"), Job(GPTQ, "fixed"))
ONCE = (
    Job(NEAREST, "minmax, lr 2e-4"),
    Job(FLOATS, SELF),
    Job(FLOATS, CROSS_ENTROPY),
    Job(NEAREST, CROSS_ENTROPY),
    Job(NEAREST, "learned"),
    Job(f"{NEAREST}, head in 4 bits", "minmax"),
)
PAIRS = ((HEADLINE[0], HEADLINE[2]), (HEADLINE[0], HEADLINE[1]), (HEADLINE[0], HEADLINE[0].untrained))
"""What is compared seed by seed: ranges that learn and fixed ones, starts, training and none."""
SHAPES = ((4, 128), (1, 128), (4, 256))
"""Windows and tokens of a step that is timed; the limit holds for the first."""
LIMITS = {"step": 1.4, "start": 1.30, "trained": 1.15, "recovered": 0.6}


class Task:
    """As much of a task as the stages ask for.

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

    def next_token(self, config: Any, split: str = "train") -> NextToken:
        """Cross-entropy with the text."""
        return NextToken(self.data, config, split=split)


def main() -> None:
    """Print the tables."""
    options = arguments(
        str(__doc__).splitlines()[0], 8, batch=4, context=128, out="runs/qat", text=None, other=None,
        backbone="smollm2-135m", windows=24, seeds=3, steps=45, only="",
    )  # fmt: skip
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "results.jsonl")
    if options.only in ("", "quality"):
        measure(options, results)
    if options.only in ("", "steps"):
        time_steps(options, results)
    if options.only == "tables":
        report(results, ["own"] if options.other is None else ["own", "other"])
        report_steps(results)


def time_steps(options: Any, results: Results) -> None:
    """The table of steps. Each kind is timed against a plain one: more models at once would not fit in memory."""
    checkpoint = random_backbone(options.quick)
    space = from_backbone(checkpoint.config)
    whole = largest(space)
    config = QuantizeConfig(method="rtn", group=0 if options.quick else 32)

    def in_few_bits(ranges: str) -> Standalone:
        changed = quantized_space(space, config, "minmax" if ranges == "minmax" else "stored")
        model = with_numerics_of(changed, whole, _model(space, whole, checkpoint))
        for scale in scales_of(model).values():
            scale.requires_grad_(ranges == "learned")
        return model

    kinds: dict[str, Callable[[], torch.nn.Module]] = {
        **{f"few bits, ranges={r}": lambda r=r: in_few_bits(r) for r in ("learned", "fixed", "minmax")},  # type: ignore[misc]
        "torchao's fake quantizers": lambda: _torchao(checkpoint, config.group or 16),
    }
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for shape in SHAPES:
        ids = torch.randint(0, checkpoint.config.vocab, (shape[0], shape[1] + 1))
        for name, make in kinds.items():
            key = {"step": name, "shape": list(shape)}
            if results.find(**key) is None:
                jobs = {"plain": _step(_model(space, whole, checkpoint), ids), "own": _step(make(), ids)}
                results.add({**key, **in_turns(jobs, options.rounds, clock=clock)})
                del jobs
    report_steps(results)


def report_steps(results: Results) -> None:
    """Print that table."""
    rows = []
    for row in (row for row in results.rows if "step" in row):
        value, text = ratio(row, "own", "plain")
        limited = "few" in row["step"] and row["shape"] == list(SHAPES[0])
        goal = verdict(value, at_most=LIMITS["step"]) if limited else ""
        shape = " x ".join(map(str, row["shape"]))
        rows.append((shape, row["step"], seconds(row["own"]), seconds(row["plain"]), text, goal))
    table(
        "A training step in 8da4w",
        ("tokens", "step", "time", "a plain one", "ratio in turns", "target"),
        rows,
        "Cross-entropy, AdamW, float32. torchao's are on the hand-written Llama, and leave table and head in floats.",
    )


def _step(model: torch.nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    """A step that leaves no gradients behind: there are two models."""
    once = adam_step(model, ids)

    def job() -> None:
        once()
        owner(model).zero_grad(set_to_none=True)

    return job


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


class Backbone:
    """The model, the texts, and the stages that it goes through.

    Args:
        options: Of the command.
        results: Finished measurements.
    """

    def __init__(self, options: Any, results: Results) -> None:
        from rankitect.data.tokenizer import ByteTokenizer
        from rankitect.models.checkpoints import DecoderConfig, load_checkpoint, random_checkpoint

        self._results, self._windows = results, options.windows
        tiny = DecoderConfig(vocab=256, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, ffn=128)
        self._checkpoint = random_checkpoint(tiny, 0) if options.quick else load_checkpoint(options.backbone)
        context = 32 if options.quick else 256
        self._space = from_backbone(self._checkpoint.config, context=context, patterns=["full"])
        self._whole = largest(self._space)
        tokenizer = ByteTokenizer() if options.quick else self._checkpoint.tokenizer
        given = {"own": options.text or DEFAULT_TEXT, "other": options.other}
        self.texts = {
            name: TextWindows.open(tokenizer, path, context=context) for name, path in given.items() if path is not None
        }
        self._task: Any = Task(self.texts["own"], self._space, self._whole)
        self._calibration = {"calibration_tokens": 512, "calibration_context": 32} if options.quick else {}
        batch, length, steps = (2, 32, 2) if options.quick else (options.batch, options.context, options.steps)
        self._training = {"batch": batch, "context": length, "tokens": steps * batch * length}

    def losses(self, model: Any) -> dict[str, list[float]]:
        """Mean nats of each held-out window, by text."""
        return {
            name: [float(x) for x in text_quality(model, text, "test", count=self._windows).window_nats]
            for name, text in self.texts.items()
        }

    def in_floats(self) -> Standalone:
        """The model."""
        return _model(self._space, self._whole, self._checkpoint)

    def run(self, job: Job) -> None:
        """Add the losses before and after training."""
        before = job.untrained
        began = time.process_time()

        def of(model: Any, space: SearchSpace, architecture: Architecture) -> tuple[None, Spent]:
            if not space.is_float and self._results.find(**before._asdict()) is None:
                self._results.add({**before._asdict(), "nats": self.losses(model)})
            return None, Spent()

        model = self.in_floats()
        recipe = Recipe(self._stages(job), StageStore(limit=0))
        done = recipe.run(
            model, self._whole, seed=job.seed, space=self._space, keep=False, measure=StageMeasure("losses", of)
        )
        row = {**job._asdict(), "nats": self.losses(done.model), "cpu_seconds": time.process_time() - began}
        self._results.add(row)

    def _stages(self, job: Job) -> dict[str, Stage]:
        stages: dict[str, Stage] = {}
        if job.start != FLOATS:
            config = QuantizeConfig(**{**STARTS[job.start], **self._calibration})
            stages["quantize"] = Quantize(config, self.texts["own"] if config.needs_text else None)
        if job.trained == SELF:
            stages["train"] = Distil(DistilConfig(teacher="float", **self._training), self._task)
        elif job.trained == CROSS_ENTROPY:  # with the optimiser of `qat`
            same = {name: getattr(QatConfig(), name) for name in Train.Config.model_fields if name != "tokens"}
            stages["train"] = Train(Train.Config(**{**same, **self._training}), self._task)
        else:
            stages["train"] = Qat(QatConfig(**{**TRAININGS[job.trained], **self._training}), self._task)
        return stages


def measure(options: Any, results: Results) -> None:
    """Measure what is missing, and print the table of quality: the starts with all seeds, then the others once."""
    backbone = Backbone(options, results)
    if results.find(start=FLOATS, trained="") is None:
        results.add({**Job(FLOATS, "")._asdict(), "nats": backbone.losses(backbone.in_floats())})
    more = [job._replace(seed=seed) for seed in range(1, 1 if options.quick else options.seeds) for job in HEADLINE]
    for job in (*HEADLINE, *more, *ONCE):
        if results.find(**job._asdict()) is None:
            backbone.run(job)
    report(results, list(backbone.texts))


def report(results: Results, texts: Sequence[str]) -> None:
    """Print the table."""
    plain = results.find(start=FLOATS, trained="")
    assert plain is not None
    rows = []
    for start in (*STARTS, FLOATS):
        for trained in ("", *TRAININGS, CROSS_ENTROPY, SELF):
            of = {"start": start, "trained": trained}.items()
            mine = [row for row in results.rows if row.items() >= of and row is not plain]
            if not mine:
                continue
            limit = None if start == FLOATS else LIMITS["trained" if trained else "start"]
            cells, back = [], []
            for text in texts:
                value, said = _ratio(mine, plain, text)
                cells += [said, verdict(value, at_most=limit)] if limit else [said, ""]
                begun = [results.find(**Job(start, trained, row["seed"]).untrained._asdict()) for row in mine]
                if trained and start != FLOATS:
                    back.append(1 - np.log(value) / np.log(_ratio([b for b in begun if b], plain, text)[0]))
            won = ", ".join(f"{b:.0%}" for b in back)
            target = verdict(float(back[0]), at_least=LIMITS["recovered"]) if back else ""
            rows.append((start, trained or "not trained", len(mine), *cells, won, target))
    names = [cell for text in texts for cell in (f"{text} text", "target")]
    table(
        "Perplexity after training in few bits, as a ratio to the model in floats",
        ("start", "trained", "seeds", *names, "log loss won back", "target"),
        rows,
        "Geometric mean over seeds (95% interval over windows, paired); least to most of the seeds.",
        timed=False,
    )
    pairs = []
    for one, other in PAIRS:
        both = [
            (ours, theirs)
            for ours in results.rows
            if ours.items() >= {"start": one.start, "trained": one.trained}.items()
            if (theirs := results.find(**other._replace(seed=ours["seed"])._asdict())) is not None
        ]
        if both:
            cells = [_paired(both, text) for text in texts]
            pairs.append((f"{one.start}, {one.trained}", f"{other.start}, {other.trained or 'not trained'}", *cells))
    table("The same seeds side by side", ("model", "to", *(f"{text} text" for text in texts)), pairs, timed=False)


def _paired(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], text: str) -> str:
    """The ratio of perplexities of two models, seed by seed on the same windows, as text."""
    ours, theirs = (np.asarray([pair[side]["nats"][text] for pair in rows]) for side in (0, 1))
    low, high = perplexity_interval(ours.mean(0), theirs.mean(0))
    each = ", ".join(f"{ratio:.3f}" for ratio in np.exp((ours - theirs).mean(1)))
    return f"{np.exp((ours - theirs).mean()):.4f} ({low:.4f} to {high:.4f}); seeds {each}"


def _ratio(rows: Sequence[Mapping[str, Any]], other: Mapping[str, Any], text: str) -> tuple[float, str]:
    """The ratio of perplexities on the same windows, and as text."""
    ours, theirs = np.asarray([row["nats"][text] for row in rows]), np.asarray(other["nats"][text])
    low, high = perplexity_interval(ours.mean(0), theirs)
    each = np.exp((ours - theirs).mean(1))
    value = float(np.exp((ours - theirs).mean()))
    spread = f"; {each.min():.3f} to {each.max():.3f}" if len(rows) > 1 else ""
    return value, f"{value:.3f} ({low:.3f} to {high:.3f}){spread}"


if __name__ == "__main__":
    main()
