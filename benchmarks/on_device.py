"""Against the device: is a searched model better than simple pruning at equal latency, and are predictions right?

Takes the run folder of a finished staged search. For each asked speed-up, the slowest model on its front that has it is
compared with uniform width pruning, uniform depth pruning and the pick of a search guided by FLOPs, all brought to
its predicted latency and healed alike; all are exported and timed as whole programs. Further tables: predictions for
random unseen models against whole programs, and the rank correlation of parameters and FLOPs with latency. Every
finished measurement is a line in `results.jsonl`; repeating the command goes on where it stopped. An export takes
minutes.

    python -m rankitect.search space=mobile_llm controller=staged device=host output_dir=runs/staged
    python benchmarks/on_device.py --run runs/staged --folder runs/bench-device
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Results, table, verdict

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture

SEARCH, WIDTH, DEPTH, FLOPS = "search", "uniform width", "uniform depth", "guided by FLOPs"
NAMES = ("prefill_ms", "decode_ms")


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a finished staged search")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-device"))
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 1.8], help="of prefill, over the backbone")
    parser.add_argument("--random", type=int, default=10, help="random models timed as whole programs")
    parser.add_argument("--drawn", type=int, default=60, help="random models of the rank correlation")
    parser.add_argument("overrides", nargs="*", help="the keys that the search was given")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = Results(options.folder / "results.jsonl")
    parts = _parts(options)
    timed_by_the_run(options.run, results)
    compared = list(comparisons(parts, options, results))
    for architecture in dict.fromkeys([parts.task.reference, *(a for _, _, a in compared)]):
        whole(parts, architecture, options.folder, results)
    quality_table(parts, compared, results, options.run)
    drawn = parts.space.sample_many(options.random, 1, **parts.task.limits())
    for architecture in drawn:
        whole(parts, architecture, options.folder, results)
    prediction_table(parts, drawn, results)
    bound_table(parts, results)
    correlation_table(parts, options.drawn)


def _parts(options: argparse.Namespace) -> Parts:
    from rankitect.config import resolve
    from rankitect.config.parts import build
    from rankitect.training.host import configure_host

    configure_host()
    given = ["space=mobile_llm", "controller=staged", "device=host", *options.overrides]
    return build(resolve(given), options.folder / "parts")


def comparisons(parts: Parts, options: argparse.Namespace, results: Results) -> Iterator[tuple[str, str, Architecture]]:
    """(fingerprint of the searched model, method, architecture), each healed and recorded."""
    from rankitect.graph import Architecture

    summary = json.loads((options.run / "summary.json").read_text())
    examples = json.loads((options.run / "examples.json").read_text())
    task = parts.task
    backbone = task.latency.predict(task.reference, NAMES[0]).ms
    front = []
    for found in summary["pareto"]:
        searched = parts.space.validate(Architecture.from_json(json.dumps(found["architecture"])))
        front.append((backbone / task.latency.predict(searched, NAMES[0]).ms, searched, found))
    fast = [
        min((f for f in front if f[0] >= s), default=max(front, key=lambda f: f[0]), key=lambda f: f[0])
        for s in options.speedups
    ]
    for speed, searched, found in {f[1].fingerprint: f for f in fast}.values():
        target = backbone / speed
        key = searched.fingerprint
        if not results.find(kind="quality", target=key, method=SEARCH):
            row = {"perplexity": found["metrics"]["perplexity"]["value"], "nats": examples["models"][key]}
            results.add({"kind": "quality", "target": key, "method": SEARCH, **row})
        yield key, SEARCH, searched
        for method in (WIDTH, DEPTH, FLOPS):
            architecture = pick(parts, method, target)
            if not results.find(kind="quality", target=key, method=method):
                row = healed(parts, architecture, options.folder)
                results.add({"kind": "quality", "target": key, "method": method, **row})
                print(f"{key[:8]} {method}: perplexity {row['perplexity']:.2f}", flush=True)
            yield key, method, architecture


def timed_by_the_run(run: Path, results: Results) -> None:
    """Take over the whole programs that the search itself has measured."""
    summary = json.loads((run / "summary.json").read_text())
    for found in summary["pareto"]:
        place = run / "candidates" / f"{found['rank']:02d}-{found['fingerprint'][:8]}"
        if not (place / "latency.json").exists() or results.find(kind="whole", fingerprint=found["fingerprint"]):
            continue
        add_whole(place, found["fingerprint"], results)


def add_whole(place: Path, fingerprint: str, results: Results) -> dict[str, Any]:
    """Record what a program's folder says."""
    read = json.loads((place / "latency.json").read_text())["latencies"]
    row: dict[str, Any] = {"kind": "whole", "fingerprint": fingerprint}
    for name in NAMES:
        one = read[name]
        row[name] = {"predicted": one["predicted_ms"], "measured": one["measured"]["p50"], "trusted": one["trusted"]}
    row["lowering_seconds"] = json.loads((place / "program.json").read_text())["lowering_seconds"]
    results.add(row)
    print(f"{fingerprint[:8]}: {row[NAMES[0]]}, {row[NAMES[1]]}", flush=True)
    return row


def pick(parts: Parts, method: str, target: float) -> Architecture:
    """A method's architecture whose predicted prefill is nearest to a target, ms."""
    from rankitect.controllers.dnas_scores import Scores
    from rankitect.tasks.language.uniform import depths, nearest, widths

    task, space = parts.task, parts.space

    def latency(architecture: Architecture) -> float:
        return float(task.latency.predict(architecture, NAMES[0]).ms)

    if method == WIDTH:
        return nearest(widths(space, task.reference), latency, target)
    if method == DEPTH:
        return nearest(depths(space, task.reference, task.statistics.influence), latency, target)
    scores = Scores(space, "layers:flops", task.reference, task.prior(lambda: None, lambda *said: None)[0])
    rng = np.random.default_rng(0)
    return nearest([scores.discretise(share, rng) for share in np.arange(0.3, 1.0, 0.01)], latency, target)


def healed(parts: Parts, architecture: Architecture, folder: Path) -> dict[str, Any]:
    """Heal and measure with the search's own final evaluator."""
    from rankitect.contracts import TrialContext
    from rankitect.evaluators.healed import Healed

    evaluator = Healed.from_config(Healed.Config(save=False), parts)
    made = evaluator.measure(architecture, TrialContext(run_folder=folder, folder=folder, seed=parts.config.seed))
    return {"perplexity": made.metrics["perplexity"].value, "nats": made.notes["examples"]["values"]}


def whole(parts: Parts, architecture: Architecture, folder: Path, results: Results) -> dict[str, Any]:
    """The latencies of the exported program, with what was predicted."""
    from rankitect.errors import DeployError

    if known := results.find(kind="whole", fingerprint=architecture.fingerprint):
        return known
    task, place = parts.task, folder / "program"
    shutil.rmtree(place, ignore_errors=True)
    predicted = {name: task.latency.predict(architecture, name) for name in NAMES}
    model = task.backbone.supernet.extract(architecture)
    try:
        parts.device.export(place, model, task.checkpoint.tokenizer, predicted, task.sample_text())
    except DeployError as error:
        print(f"{architecture.fingerprint[:8]}: {error}", flush=True)
        return {}
    return add_whole(place, architecture.fingerprint, results)


def quality_table(parts: Parts, compared: list[tuple[str, str, Architecture]], results: Results, run: Path) -> None:
    """Perplexity at equal latency."""
    base = results.find(kind="whole", fingerprint=parts.task.reference.fingerprint)
    clusters = json.loads((run / "examples.json").read_text())["clusters"]
    rows = []
    for key, method, architecture in compared:
        own = results.find(kind="quality", target=key, method=method)
        mine = results.find(kind="quality", target=key, method=SEARCH)
        timed = results.find(kind="whole", fingerprint=architecture.fingerprint)
        if not (base and own and mine and timed):
            continue
        ms = [timed[name]["measured"] for name in NAMES]
        faster = [base[name]["measured"] / value for name, value in zip(NAMES, ms, strict=True)]
        against = "" if method == SEARCH else ratio(mine["nats"], own["nats"], clusters)
        cells = (f"{v:.1f} ms ({f:.2f}×)" for v, f in zip(ms, faster, strict=True))
        rows.append((key[:8], method, *cells, f"{own['perplexity']:.2f}", against))
    if rows:
        header = ("model", "method", "prefill", "decode", "perplexity", "search's, relative [95%]")
        note = "Times of whole programs (times faster than the backbone's). Perplexities after equal healing, paired."
        table("Quality at equal predicted prefill latency", header, rows, note, timed=False)


def ratio(ours: list[float], theirs: list[float], clusters: list[int]) -> str:
    """exp of the mean paired difference over windows, with its interval; windows of one document are alike."""
    from rankitect.metrics.intervals import mean_estimate

    found = mean_estimate(np.asarray(ours) - np.asarray(theirs), clusters=clusters)
    low, high = found.interval()
    return f"{math.exp(found.value):.3f} [{math.exp(low):.3f}, {math.exp(high):.3f}]"


def prediction_table(parts: Parts, drawn: list[Architecture], results: Results) -> None:
    """Predicted against whole programs."""
    every = [r for r in results.rows if r["kind"] == "whole"]
    new = {a.fingerprint for a in drawn}
    groups = {
        "random models, never measured": [r for r in every if r["fingerprint"] in new],
        "the models above": [r for r in every if r["fingerprint"] not in new],
    }
    rows = []
    for title, group in groups.items():
        for name in NAMES if group else ():
            errors = [abs(r[name]["predicted"] / r[name]["measured"] - 1) for r in group]
            layers = parts.task.latency.measured(name)
            mean, worst = 100 * float(np.mean(errors)), 100 * max(errors)
            rows.append((title, name, len(group), layers, f"{mean:.1f}%", f"{worst:.1f}%", verdict(mean, at_most=5)))
    if rows:
        header = ("models", "latency", "how many", "layers measured", "mean error", "largest", "mean, percent")
        taken = [r["lowering_seconds"] for r in every]
        note = f"Lowering both methods took {np.median(taken):.0f} s ({min(taken):.0f} to {max(taken):.0f})."
        table("Predicted latency against whole programs", header, rows, note, timed=False)


def bound_table(parts: Parts, results: Results) -> None:
    """How near the backbone's decode is to reading all its weights once."""
    base = results.find(kind="whole", fingerprint=parts.task.reference.fingerprint)
    if base is None:
        return
    size = parts.space.cost(parts.task.reference, "weight_bytes")
    speed, ms = bandwidth(), base["decode_ms"]["measured"]
    bound = size / speed * 1e3
    row = (f"{size / 2**20:.0f} MiB", f"{speed / 1e9:.1f} GB/s", f"{bound:.1f} ms", f"{ms:.1f} ms", f"{ms / bound:.2f}")
    header = ("weights", "memory, one thread", "bound", "decode", "times the bound")
    table(
        "The backbone's decode against memory", header, [row], "Memory: the fastest of 20 products of a 512 MiB matrix."
    )


def bandwidth() -> float:
    """Bytes a second that one thread reads in the product of a large matrix with a vector."""
    import time

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix, vector = torch.ones(2**14, 2**13), torch.ones(2**13)
    found = []
    for _ in range(20):
        start = time.perf_counter()
        torch.mv(matrix, vector)
        found.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return matrix.numel() * 4 / min(found)


def correlation_table(parts: Parts, count: int) -> None:
    """How well parameters and FLOPs rank models by latency."""
    from scipy.stats import kendalltau

    drawn = parts.space.sample_many(count, 2, **parts.task.limits())
    rows = []
    for name in NAMES:
        latency = [parts.task.latency.predict(a, name).ms for a in drawn]
        for cost in ("params", "flops"):
            found = kendalltau([parts.space.cost(a, cost) for a in drawn], latency).statistic
            rows.append((name, cost, count, f"{found:.2f}"))
    note = "Latencies composed of measured and predicted layers; see the table above for how far that is off."
    table("Kendall's τ with latency over random models", ("latency", "of", "models", "τ"), rows, note, timed=False)


if __name__ == "__main__":
    main()
