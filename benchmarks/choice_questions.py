"""Choice questions: are the answers those of EleutherAI's lm-eval, and in how much less time on the CPU?

A pretrained model is written as a Hugging Face folder and asked the same questions by lm-eval's own model class
(transformers), one sequence at a time as is its default and in batches, and by Rankitect, whose choices share what they
begin with. Both count seconds of the process, from texts to scores, in turns; every answer is compared. Needs the extra
`lm-eval`. With `--generated`, the first queries are continued with a cache and without one.

    python benchmarks/choice_questions.py --questions arc_easy.jsonl piqa.jsonl --count 60 --repeats 5
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Results, table

METRICS = {True: ("acc", "acc_norm", "acc_bytes"), False: ("acc",)}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, nargs="*", default=[], help="files of JSON lines")
    parser.add_argument("--count", type=int, default=60, help="questions of each file, the first")
    parser.add_argument("--shots", type=int, default=0, help="answered questions before each, the last of the file")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="batch sizes of lm-eval")
    parser.add_argument("--repeats", type=int, default=1, help="turns of all ways; medians of their ratios are shown")
    parser.add_argument(
        "--generated", type=int, default=0, help="tokens of an answer to each query, with and without cache"
    )
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-questions"))
    options = parser.parse_args()
    if not options.questions:
        print("No questions were given (--questions): there is nothing to ask.")
        return
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    options.folder.mkdir(parents=True, exist_ok=True)
    results = Results(options.folder / "results.jsonl")
    if options.generated:
        generate_all(options)
        return
    answer_all(options, results)
    print_table(options, results)


def answer_all(options: argparse.Namespace, results: Results) -> None:
    """Ask every file in every way, in turns."""
    import torch

    torch.set_num_threads(options.threads)
    ways: dict[str, Callable[[Path, int], dict[str, Any]]] = {"rankitect": ours(options)}
    for batch in options.batches:
        ways[f"lm-eval, batch {batch}"] = theirs(options, batch)
    for repeat in range(options.repeats):
        for path in options.questions:
            shown = with_examples(path, options) if options.shots else path
            for way, asked in ways.items():
                key = key_of(path, way, options, repeat)
                if results.find(**key) is None:
                    results.add({**key, **asked(shown, options.count)})


def key_of(path: Path, way: str, options: argparse.Namespace, repeat: int) -> dict[str, Any]:
    """What tells a measurement from others."""
    return {
        "file": path.name,
        "way": way,
        "count": options.count,
        "shots": options.shots,
        "threads": options.threads,
        "repeat": repeat,
    }


def with_examples(path: Path, options: argparse.Namespace) -> Path:
    """The questions with the same answered ones before each, as a file of their own."""
    from rankitect.data.questions import read_questions

    questions = read_questions(str(path), "--questions")
    before = "".join(f"{q.query} {q.answers[0]}\n\n" for q in questions[-options.shots :])
    lines = [
        {"query": before + q.query, **({"choices": q.choices, "gold": q.gold} if q.choices else {"answer": q.answers})}
        for q in questions[: options.count]
    ]
    written = options.folder / f"{path.stem}-{options.shots}.jsonl"
    written.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return written


def backbone_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """The pretrained model's checkpoint, and the model as one of blocks."""
    from rankitect.models.backbone import largest
    from rankitect.models.checkpoints import load_checkpoint
    from rankitect.models.pretrained import space_tensors
    from rankitect.models.supernet import Supernet
    from rankitect.search_spaces.mobile_llm import from_backbone

    checkpoint = load_checkpoint(options.backbone)
    space = from_backbone(checkpoint.config)
    return checkpoint, Supernet(space, tensors=space_tensors(checkpoint)).activate(largest(space))


def ours(options: argparse.Namespace) -> Callable[[Path, int], dict[str, Any]]:
    """Rankitect's way: the backbone as a model of blocks."""
    from rankitect.tasks.language.questions import QuestionSettings, ask

    checkpoint, model = backbone_of(options)

    def answer(path: Path, count: int) -> dict[str, Any]:
        start, wall = time.process_time(), time.perf_counter()
        asked = ask(QuestionSettings(path=str(path), limit=count), checkpoint)["test"]
        right, spent = asked.answered(model)
        return {
            "seconds": time.process_time() - start,
            "wall": time.perf_counter() - wall,
            "tokens": spent.eval_tokens,
            "right": {name: values.astype(int).tolist() for name, values in right.items()},
        }

    return answer


def theirs(options: argparse.Namespace, batch: int) -> Callable[[Path, int], dict[str, Any]]:
    """lm-eval's way, with its own model class on a Hugging Face folder of the same weights."""
    from rankitect.models.checkpoints import load_checkpoint, save_huggingface

    folder = options.folder / "huggingface"
    if not (folder / "config.json").exists():
        checkpoint = load_checkpoint(options.backbone)
        save_huggingface(folder, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)

    def answer(path: Path, count: int) -> dict[str, Any]:
        from lm_eval.evaluator import evaluate

        start, wall = time.process_time(), time.perf_counter()
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            task = harness_task(path, count)
            found = evaluate(model, {path.stem: task}, bootstrap_iters=0, log_samples=True)
        samples = sorted(found["samples"][path.stem], key=lambda sample: sample["doc_id"])
        names = [name for name in METRICS[True] if name in samples[0]]
        return {
            "seconds": time.process_time() - start,
            "wall": time.perf_counter() - wall,
            "right": {name: [int(sample[name]) for sample in samples] for name in names},
        }

    return answer


def harness_task(path: Path, count: int) -> Any:
    """The questions of a file as a task of lm-eval."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    from rankitect.data.questions import read_questions

    questions = read_questions(str(path), "--questions", count)
    choices = bool(questions[0].choices)
    rows = [{"query": q.query, "choices": list(q.choices), "gold": q.gold, "answer": q.answers[0]} for q in questions]
    kind = (
        {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}"}
        if choices
        else {"output_type": "loglikelihood", "doc_to_target": " {{answer}}"}
    )
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in METRICS[choices]]
    data = {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, "test_split": "test"}
    return ConfigurableTask(
        config={"task": path.stem, "doc_to_text": "{{query}}", "metric_list": metrics, **kind, **data}
    )


def print_table(options: argparse.Namespace, results: Results) -> None:
    """Seconds, how often the fastest way answers right, and whether all ways answer alike."""
    rows = []
    ways = ["rankitect", *(f"lm-eval, batch {batch}" for batch in options.batches)]
    totals = {way: [0.0] * options.repeats for way in ways}
    for path in options.questions:
        turns = [
            {way: results.find(**key_of(path, way, options, r)) or {} for way in ways} for r in range(options.repeats)
        ]
        seconds = {way: [turn[way]["seconds"] for turn in turns] for way in ways}
        for way in ways:
            totals[way] = [one + more for one, more in zip(totals[way], seconds[way], strict=True)]
        rows.append([path.name, *_answers(turns[0], ways), *_times(seconds)])
    rows.append(["all", "", "", *_times(totals)])
    names = ["rankitect, CPU s", *(f"{way}, CPU s (times as many)" for way in ways[1:])]
    table("Choice questions", ["questions", "right", "answered alike", *names], rows, timed=False)


def _answers(found: dict[str, dict[str, Any]], ways: Sequence[str]) -> list[str]:
    right = found["rankitect"]["right"]
    counts = ", ".join(f"{name} {sum(values)}" for name, values in right.items())
    total = len(next(iter(right.values())))
    alike = [
        int((np.asarray(right[name]) == np.asarray(found[way]["right"][name])).sum())
        for way in ways[1:]
        for name in right
        if name in found[way]["right"]
    ]
    return [f"{counts} of {total}", f"{min(alike, default=0)} of {total}"]


def _times(seconds: dict[str, list[float]]) -> list[str]:
    """Medians, and the median ratio within a turn with the smallest and the largest."""
    own = seconds["rankitect"]
    cells = [f"{median(own):.1f}"]
    for way, values in seconds.items():
        if way != "rankitect":
            ratios = [value / one for value, one in zip(values, own, strict=True)]
            spread = f", {min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else ""
            cells.append(f"{median(values):.1f} ({median(ratios):.2f}{spread})")
    return cells


def generate_all(options: argparse.Namespace) -> None:
    """Continue queries with a cache and by reading each text again for every token, in turns; print a table."""
    from rankitect.data.questions import read_questions
    from rankitect.models import greedy

    checkpoint, model = backbone_of(options)
    rows = []
    for path in options.questions:
        queries = [one.query for one in read_questions(str(path), "--questions", options.count)]
        prompts = [ids.tolist() for ids in checkpoint.tokenizer.encode_batch(queries)]
        seconds: dict[bool, list[float]] = {True: [], False: []}
        texts = {}
        known = greedy.packs_by_its_blocks
        for _ in range(options.repeats):
            for cached in (True, False):
                greedy.packs_by_its_blocks = known if cached else lambda model: False
                start = time.process_time()
                texts[cached] = greedy.greedy_continuations(model, prompts, options.generated)[0]
                seconds[cached].append(time.process_time() - start)
        greedy.packs_by_its_blocks = known
        ratios = [again / once for once, again in zip(seconds[True], seconds[False], strict=True)]
        alike = sum(one == other for one, other in zip(texts[True], texts[False], strict=True))
        rows.append(
            [
                path.name,
                f"{alike} of {len(prompts)}",
                f"{median(seconds[True]):.1f}",
                f"{median(seconds[False]):.1f} ({median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    names = ["queries", "same tokens", "with a cache, CPU s", "without, CPU s (times as many)"]
    table(f"{options.generated} tokens after each query", names, rows, timed=False)


if __name__ == "__main__":
    main()
