"""Training throughput of DLRM, DCNv2 and DeepFM against FuxiCTR and deepctr-torch, and the quality that each reaches.

Same rows, batch, widths, optimizer and threads; a process for each measurement, the libraries in turns. `--competitors`
names the interpreter of an environment that has the other two; without it Rankitect alone is measured. Such an
environment:

    python3.11 -m venv others
    others/bin/pip install torch==2.13.0 fuxictr==2.3.9 deepctr-torch==0.3.0 "polars<1.30"
    python benchmarks/ranking_throughput.py --competitors others/bin/python

`--data movielens` takes small tables; `--parity` measures normalized entropy on the test rows instead of time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _throughput_others import LEAST_STEPS, POOL, PREDICTED, Job, batch_rows, entropy_terms, report
from common import ratio, table, verdict
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rankitect.data.ranking import RankingData
    from rankitect.graph import Architecture, SearchSpace

HERE = Path(__file__).resolve().parent
RANKITECT, OTHERS = "rankitect", ("fuxictr", "deepctr-torch")
MODELS = {"dlrm": "DLRM", "dcnv2": "DCNv2", "deepfm": "DeepFM"}
ABSENT = {("deepctr-torch", "dlrm")}
"""What a library has no model for."""
LEAST = {"criteo": 3.0, "movielens": 1.3}
"""The smallest ratio allowed."""
BATCH = {"criteo": 4096, "movielens": 1024}
ROUNDS = {"criteo": 3, "movielens": 5}
BOTTOM, CROSS = (64,), 3
CLIP = 10.0
"""Largest gradient norm: FuxiCTR's, and the default of Rankitect's ranking task. It is not reached here."""
RATE_SECONDS = 1.0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(LEAST), default="criteo", help="default criteo: generated, its shape")
    parser.add_argument("--competitors", default=None, help="python of an environment with FuxiCTR and deepctr-torch")
    parser.add_argument("--libraries", nargs="+", choices=OTHERS, default=list(OTHERS), help="of the competitors")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--hidden", default="256-128-64", help="widths of the MLP, default 256-128-64")
    parser.add_argument("--embedding", type=int, default=16, help="default 16")
    parser.add_argument("--batch", type=int, default=None, help=f"default {BATCH}")
    parser.add_argument("--optimizer", choices=("adagrad", "adam"), default="adagrad", help="default adagrad")
    parser.add_argument("--lr", type=float, default=None, help="default 0.02; with adam 0.001")
    parser.add_argument("--rows", type=int, default=2_000_000, help="generated rows, default 2000000")
    parser.add_argument("--rounds", type=int, default=None, help=f"runs of each; with --parity, seeds; {ROUNDS}")
    parser.add_argument("--threads", type=int, default=None, help="of torch, default: all cores")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each timed part, default 20")
    parser.add_argument("--warmup", type=int, default=5, help="steps before it, default 5")
    parser.add_argument("--parity", action="store_true", help="normalized entropy after the same rows, instead of time")
    parser.add_argument("--parity-rows", type=int, default=None, help="default: criteo 200000, movielens 3 epochs")
    parser.add_argument(
        "--fuxictr-numbers", choices=("raw", "embedded"), default="raw",
        help="what its DCNv2 and DeepFM get: numbers as they are, as the others (default), or a vector of each",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-throughput"), help="where the rows are kept")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it; its figures mean nothing")
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch = options.batch or (256 if options.quick else BATCH[options.data])
    options.rounds = options.rounds or (2 if options.quick else ROUNDS[options.data])
    options.warmup = max(1, options.warmup)
    options.lr = options.lr or (0.02 if options.optimizer == "adagrad" else 0.001)
    if options.quick:
        options.rows, options.seconds = min(options.rows, 20_000), min(options.seconds, 1.0)
    return options


def main() -> None:
    """Be a worker, or run the workers and print the table."""
    options = parse()
    if options.worker is not None:
        work(Job(**json.loads(options.worker)))
        return
    from rankitect.training.host import configure_host

    options.threads = configure_host(options.threads)  # also of the workers, which get this environment
    data = opened(settings(options), options.folder)
    if options.competitors is None:
        print("Rankitect alone: `--competitors PYTHON` is missing (`--help` says how to make that environment).")
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.rounds):
            for name in options.models:
                jobs = turn_jobs(options, data, name, turn, Path(scratch))
                for job in jobs if turn % 2 == 0 else reversed(jobs):
                    result = run(job, options.competitors)
                    found[name, job.library].append(result)
                    print(f"{turn + 1}/{options.rounds} {json.dumps(result)}", flush=True)
        (parity if options.parity else throughput)(options, data, found)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """`task.data` of the rows."""
    if options.data == "movielens":
        return {"format": "movielens"}
    ids = 2000 if options.quick else 1_000_000
    return {"format": "synthetic", "synthetic": {"rows": options.rows, "ids": ids, "numeric": 13, "categorical": 26}}


def opened(keys: Mapping[str, Any], folder: Path) -> RankingData:
    """The encoded table."""
    from rankitect.data.ranking import DataSettings, open_ranking

    return open_ranking(DataSettings(**keys), cache=folder.resolve())


def turn_jobs(options: argparse.Namespace, data: RankingData, name: str, turn: int, scratch: Path) -> list[Job]:
    """One job of each library that has the model."""
    train = data.split("train").rows
    default = 20 * options.batch if options.quick else {"criteo": 200_000, "movielens": 3 * train}[options.data]
    job = Job(
        library=RANKITECT,
        model=name,
        folder=str(data.folder.resolve()),
        data=settings(options),
        numeric=list(data.features.numeric),
        features=[(f.name, f.rows, f.slots) for f in data.features.categorical],
        rows=train,
        embedding=options.embedding,
        hidden=[int(width) for width in options.hidden.split("-")],
        bottom=list(BOTTOM),
        cross_layers=CROSS,
        batch=options.batch,
        optimizer=options.optimizer,
        lr=options.lr,
        clip=CLIP,
        threads=options.threads,
        seed=turn,
        seconds=options.seconds,
        warmup=options.warmup,
        steps=steps_of(options.parity_rows or default, train, options.batch) if options.parity else 0,
        losses="",
        numbers=options.fuxictr_numbers,
    )
    libraries = [RANKITECT, *(options.libraries if options.competitors else ())]
    return [
        replace(job, library=library, losses=str(scratch / f"{name}-{library}-{turn}.npy"))
        for library in libraries
        if (library, name) not in ABSENT
    ]


def steps_of(wanted: int, rows: int, batch: int) -> int:
    """Steps that take so many rows, over whole epochs and a part."""
    epochs, left = divmod(wanted, rows)
    return max(1, epochs * -(-rows // batch) + left // batch)


def run(job: Job, competitors: str | None) -> dict[str, Any]:
    """A job in a process of its own."""
    if job.library == RANKITECT:
        command = [sys.executable, str(HERE / Path(__file__).name), "--worker", job.to_json()]
    else:
        command = [str(competitors), str(HERE / "_throughput_others.py"), job.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        sys.exit(f"{job.library}, {job.model}, failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if job.losses and Path(job.losses).exists():
        found["losses"] = job.losses
    return found


# --- Rankitect's worker -----------------------------------------------------------------------------------------------
def work(job: Job) -> None:
    """Train by `rankitect.tasks.ranking.fit.fit`, which reads batches ahead from the memory-mapped table."""
    from rankitect.training.host import configure_host

    configure_host(job.threads)
    import torch

    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import CategoricalFeature, Features
    from rankitect.models.supernet import build
    from rankitect.search_spaces.ranking_points import baseline
    from rankitect.tasks.ranking.fit import FitConfig, fit
    from rankitect.training.embeddings import TableConfig
    from rankitect.training.optimizer import OptimizerConfig

    features = Features(tuple(job.numeric), tuple(CategoricalFeature(*each) for each in job.features))
    space, architecture = baseline(
        job.model,
        features,
        embedding=job.embedding,
        hidden=job.hidden,
        bottom=job.bottom,
        cross_layers=job.cross_layers,
    )
    model = build(space, architecture, job.seed)
    batches = RankingBatches(opened(job.data, Path(job.folder).parent), batch=job.batch)
    rule: Any = {"adagrad": ("adagrad", 1e-10), "adam": ("adamw", 1e-8)}[job.optimizer]
    optimizer = OptimizerConfig(
        kind=rule[0], lr=job.lr, schedule="constant", betas=(0.9, 0.999), eps=rule[1], weight_decay=0, clip=job.clip
    )
    tables = TableConfig("auto", "adagrad" if job.optimizer == "adagrad" else "adam", job.lr, rule[1])
    epoch = batches.steps("train")
    config = FitConfig(
        epochs=(job.steps or 10**9) / epoch,
        batch=job.batch,
        evaluate_every=1e9,
        optimizer=optimizer,
        tables=tables,
        seed=job.seed,
    )
    ends: list[float] = []

    def over() -> bool:
        timed = len(ends) - job.warmup
        return not job.steps and timed > LEAST_STEPS and ends[-1] - ends[job.warmup - 1] >= job.seconds

    fit(model, batches, config, progress=lambda done, total, note: ends.append(time.perf_counter()), should_stop=over)
    if job.steps:
        model.eval()
        test = batches.table.split("test")
        with torch.inference_mode():
            each = [torch.sigmoid(model(*b.inputs)).double().numpy().ravel() for b in test.batches(PREDICTED)]
        print(report(job, losses=entropy_terms(np.concatenate(each), test.labels)))
        return
    rows = sum(batch_rows(job.rows, job.batch, step) for step in range(job.warmup, len(ends)))
    found = {"rows_per_second": rows / (ends[-1] - ends[job.warmup - 1]), "steps": len(ends) - job.warmup}
    print(report(job, found | arithmetic(space, architecture, model, job)))


def arithmetic(space: SearchSpace, architecture: Architecture, model: Any, job: Job) -> dict[str, float]:
    """FLOPs of the dense layers for a row of training, and FLOPs a second of their matrix products alone.

    A step multiplies each dense matrix three times: outputs, gradients of inputs, gradients of weights.
    """
    import torch

    flops = 3 * float(space.cost(architecture, "flops", B=1))  # lookups count none
    tables = set(model.lookup_tables())
    shapes = [p.shape for name, p in model.named_parameters() if p.ndim == 2 and name not in tables]
    matrices = [
        (torch.randn(job.batch, inputs), torch.randn(outputs, inputs), torch.randn(job.batch, outputs))
        for outputs, inputs in shapes
    ]
    work = sum(6 * job.batch * x.shape[1] * g.shape[1] for x, _, g in matrices)
    taken: list[float] = []
    with torch.inference_mode():
        while sum(taken) < RATE_SECONDS or len(taken) < 5:
            start = time.perf_counter()
            for x, w, g in matrices:
                torch.mm(x, w.T)
                torch.mm(g, w)
                torch.mm(g.T, x)
            taken.append(time.perf_counter() - start)
    return {"flops": flops, "rate": work / statistics.median(taken[1:])}


# --- the tables -------------------------------------------------------------------------------------------------------
Found = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]


def throughput(options: argparse.Namespace, data: RankingData, found: Found) -> None:
    """Rows a second, ratios within rounds, and how far from the arithmetic."""
    rows: list[tuple[object, ...]] = []
    rates = []
    for name in options.models:
        ours = found[name, RANKITECT]
        flops, rate = ours[0]["flops"], statistics.median(r["rate"] for r in ours)
        rates.append(f"{MODELS[name]} {flops / 1e6:.2f} MFLOP a row at {rate / 1e9:.1f} GFLOP/s")
        times = {lib: [1 / r["rows_per_second"] for r in found[name, lib]] for lib in (RANKITECT, *OTHERS)}
        for library in (RANKITECT, *OTHERS):
            if not times[library]:
                if options.competitors and library in options.libraries:
                    rows.append((MODELS[name], library, "-", "-", "-", "-", "-"))
                continue
            text = goal = ""
            if library != RANKITECT:
                value, text = ratio(times, library, RANKITECT)
                goal = verdict(value, at_least=LEAST[options.data])
            speeds = [1 / t for t in times[library]]
            share = statistics.median(flops / r["rate"] / t for r, t in zip(ours, times[library], strict=True))
            memory = max(r["memory"] for r in found[name, library]) / 2**30
            rows.append((MODELS[name], library, spread(speeds), text, goal, f"{share:.1%}", f"{memory:.2f} GiB"))
    table(
        f"Training throughput, {about(options, data)}",
        ("model", "library", "rows/s", "Rankitect's over it", "target", "dense arithmetic", "peak memory"),
        rows,
        "Dense arithmetic: the share of the step that the dense layers' FLOPs (forward and backward) would take at the "
        f"rate of their matrix products alone, same threads: {'; '.join(rates)}.",
        *notes(options),
    )


def parity(options: argparse.Namespace, data: RankingData, found: Found) -> None:
    """Normalized entropy of the test rows, and its paired difference."""
    from rankitect.metrics.ranking_metrics import entropy_difference, entropy_estimate

    test = data.split("test")

    def losses(key: tuple[str, str]) -> NDArray[np.float32]:
        return np.stack([np.load(r["losses"]) for r in found[key]])

    rows: list[tuple[object, ...]] = []
    for name in options.models:
        ours = losses((name, RANKITECT))
        for library in (RANKITECT, *OTHERS):
            if (name, library) not in found:
                continue
            each = losses((name, library))
            values = [entropy_estimate(row, test.labels).value for row in each]
            gap = same = ""
            if library != RANKITECT:
                difference = entropy_difference(each, ours, test.labels, clusters=test.groups)
                low, high = difference.interval()
                gap = f"{difference.value:+.4f} [{low:+.4f}, {high:+.4f}]"
                same = "yes" if low <= 0 <= high else "no"
            mean = f"{np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})"
            rows.append((MODELS[name], library, mean, gap, same))
    train = data.split("train").rows
    wanted = turn_jobs(options, data, options.models[0], 0, Path())[0].steps
    seen = sum(batch_rows(train, options.batch, step) for step in range(wanted))
    table(
        f"Test NE after {seen:,} rows of training ({wanted} steps), {about(options, data)}",
        ("model", "library", "NE, mean (range) of seeds", "minus Rankitect [95%]", "interval holds 0"),
        rows,
        f"{test.rows:,} test rows, {options.rounds} seeds. Each seed gives all libraries the same batches in the same "
        "order, and weights drawn anew from the same distributions. Intervals are paired over rows, clustered by user "
        "where there is one, and hold the spread over seeds.",
        *notes(options),
        timed=False,
    )


def spread(speeds: Sequence[float]) -> str:
    """Median and quartiles of rows a second."""
    low, middle, high = speeds[0], speeds[0], speeds[0]
    if len(speeds) > 1:
        low, middle, high = statistics.quantiles(speeds, n=4, method="inclusive")
    return f"{middle:,.0f} ({low:,.0f}–{high:,.0f})"


def about(options: argparse.Namespace, data: RankingData) -> str:
    """The rows and sizes."""
    rows = sum(split.rows for split in data.splits.values())
    inputs = f"{len(data.features.numeric)} numbers and {len(data.features.categorical)} categorical features"
    return (
        f"{data.name}: {rows:,} rows of {inputs}, {sum(data.features.rows):,} embedding rows of {options.embedding}; "
        f"MLP {options.hidden}, batch {options.batch}, {options.optimizer} {options.lr:g}"
    )


def notes(options: argparse.Namespace) -> list[str]:
    """What is the same, and what is not."""
    found = [
        "Rankitect: `fit`, with shuffling and reading from the memory-mapped table. torchrec holds the tables where it "
        "is installed and can (backend auto).",
    ]
    if options.competitors:
        embedded = options.fuxictr_numbers == "embedded"
        numbers = "a vector of each number, as its model zoo does" if embedded else "numbers as they are, as the others"
        found += [
            "FuxiCTR 2.3.9: `BaseModel.train_step` on columns in memory, so without reading or shuffling. Its package "
            "leaves these models out: they are put together from its layers, as in its repository's model zoo, but "
            f"DCNv2 and DeepFM get {numbers}.",
            "deepctr-torch 0.3.0: `fit` on an array in memory, unshuffled, with the loader that `fit` makes; it has no "
            "DLRM; its DCNv2 is DCN of matrices.",
            "No regularisation anywhere. Huge memory pages, which Rankitect asks torch for, are on for all. The others "
            f"have at most {POOL} batches of rows in memory. Gradients are clipped at {CLIP:g}, not in deepctr-torch.",
        ]
    if options.optimizer == "adagrad":
        found.append("Adagrad on all rows and on a batch's rows is the same: a row without gradient stays.")
    else:
        found.append(
            "Adam is not the same mathematics: the others move all rows at every step, Rankitect those of the batch."
        )
    return found


if __name__ == "__main__":
    main()
