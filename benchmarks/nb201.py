"""Scores without training on NAS-Bench-201: how they rank architectures, and whether they count more than parameters.

Random architectures of the space are scored with the weights of a supernet that was trained for 0, 10, 20, 40 and 100%
of its steps (one random architecture a step), and held against the accuracies of a table, which others measured after
200 epochs of training. Kendall's tau is over all, the better half and the best tenth, with bootstrap intervals over
architectures; a score is compared with the parameters that are alive (those of operations that an image reaches, and
whose results reach the end) on the same resamples. Two names of one network tell how much of an accuracy is chance. A
repeated run goes on where it stopped.

    python benchmarks/nb201.py --images cifar10/train --table nb201.csv --out runs/nb201
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Results, arguments, table
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Supernet

    Array = NDArray[np.float64]

SHARES = (0.0, 0.1, 0.2, 0.4, 1.0)
"""Of the supernet's steps."""
COUNTED = ("live parameters", "parameters", "FLOPs")
MEASURED = ("SynFlow", "NWOT", "ZiCo", "SNIP", "gradient norm", "Fisher-Rao", "loss", "accuracy")
COMBINED: dict[str, tuple[float, float, float]] = {
    "SiGeo (1, 50, 1)": (1, 50, 1),
    "SiGeo (1, 1, 0)": (1, 1, 0),
}
"""Coefficients of the ZiCo term, the Fisher-Rao term and the loss (arXiv 2311.13169: (1, 50, 1) once warm)."""
STANDARD = "SiGeo, standardised"
"""Each term less its mean and divided by its deviation over the architectures."""
FITTED = "fitted on {} trained"
TRAINED = (20, 50)
"""Architectures whose accuracy is known, from which a combination of scores is fitted."""
BATCHES, IMAGES = 4, 64
"""Batches whose gradients are compared, and images of each."""
LOOKED_AT, STATISTICS = 500, 256
"""Validation images for the accuracy with inherited weights, and training images for the statistics before it."""


def main() -> None:
    """Train the supernet, score what is not scored yet, and print the tables."""
    options = arguments(
        str(__doc__).splitlines()[0], 1000, out="runs/nb201", images="", table="", column="cifar10_test_acc",
        networks=500, cells=1, channels=16, steps=750, seed=0, only="",
    )  # fmt: skip
    if options.quick:
        options.networks, options.steps, options.channels, options.rounds = 12, 4, 4, 20
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    parts = made(options, out)
    chosen = drawn(parts.graph_space, options.networks)
    known = names_and_values(options.table, options.column)
    if not known and not options.quick:
        raise SystemExit("--table: a CSV file with a column arch_str and one of accuracies (--column)")
    known = known or {parts.space.spelled(a): float(int(a.fingerprint, 16) % 97) for a in chosen}  # to try the script
    results = Results(out / f"cells-{options.cells}-seed-{options.seed}.jsonl")
    if options.only != "tables":
        for share, supernet in warmed(parts, options, out, results, len(chosen)):
            for architecture in chosen:
                name = parts.space.spelled(architecture)
                if results.find(share=share, name=name) is None:
                    results.add({"share": share, "name": name, **scored(parts, supernet, architecture)})
    report(results, parts, chosen, known, options)


def made(options: Any, out: Path) -> Parts:
    """The space and the images."""
    from rankitect.config import resolve
    from rankitect.config.parts import build

    keys = ["space=nb201", "controller=random", f"space.cells={options.cells}", f"space.channels={options.channels}"]
    keys += [f"task.data={options.images}"] if options.images else ["preset=smoke"] if options.quick else []
    keys += [f"task.batch={16 if options.quick else 128}", f"seed={options.seed}"]
    return build(resolve(keys), out, print)


def names_and_values(path: str, column: str) -> dict[str, float]:
    """The table: accuracy in percent by the benchmark's name of an architecture; empty without one."""
    if not path:
        return {}
    import pandas as pd

    frame = pd.read_csv(path)
    return dict(zip(frame["arch_str"], frame[column].astype(float), strict=True))


def drawn(space: SearchSpace, count: int) -> list[Architecture]:
    """Random architectures, no two of one name."""
    rng = np.random.default_rng(201)
    chosen: dict[str, Architecture] = {}
    while len(chosen) < count:
        architecture = space.sample(rng)
        chosen.setdefault(space.spelled(architecture), architecture)
    return list(chosen.values())


def warmed(parts: Parts, options: Any, out: Path, results: Results, networks: int) -> Any:
    """The supernet at each share of its training; a share all of whose scores are known is passed over."""
    from rankitect.methods.shared_weights import CoTraining, training_defaults

    task: Any = parts.task
    supernet = task.supernet(parts.graph_space)
    defaults = training_defaults(task)
    training = CoTraining(supernet, task, defaults.lr, options.steps)
    ends = {share: round(share * options.steps) for share in SHARES}
    done = [share for share in SHARES if sum(row["share"] == share for row in results.rows) >= networks]
    begun = time.process_time()
    at = 0
    for share, end in ends.items():
        path = out / f"supernet-{options.cells}-{options.seed}-{end}.safetensors"
        if path.exists():
            training.load(path)
            at = end
        while at < end:
            training.step(parts.graph_space.sample(np.random.default_rng([options.seed, at])), at)
            at += 1
        if end and not path.exists():
            training.save(path, final=False, info={"seconds": time.process_time() - begun})
        if share not in done:
            yield share, supernet


def scored(parts: Parts, supernet: Supernet, architecture: Architecture) -> dict[str, float]:
    """All scores of an architecture with the weights that it inherits, and processor seconds of each kind."""
    from rankitect.errors import TrainingError
    from rankitect.evaluators import proxy_scores as scores
    from rankitect.methods.calibrated import calibrated

    task: Any = parts.task

    def loss_of(model: Any, step: int) -> Any:
        return task.loss(model, task.batch_at("train", step, IMAGES))

    def each(one: Callable[[], float]) -> float:
        try:
            return one()
        except TrainingError:  # no gradient reaches a weight, or it is not finite: the least that there is
            return float("-inf")

    found: dict[str, float] = {}
    marks = [time.process_time()]
    model = supernet.extract(architecture).train()
    inputs = scores.capture_inputs(model, partial(loss_of, step=0))
    found["SynFlow"] = each(lambda: scores.synflow(model, inputs))
    marks.append(time.process_time())
    found["NWOT"] = each(lambda: scores.nwot(model, inputs, 1e-3))
    marks.append(time.process_time())
    try:
        grads = scores.gather_gradients(model, [partial(loss_of, step=step) for step in range(BATCHES)])
    except TrainingError:
        found |= dict.fromkeys(("ZiCo", "SNIP", "gradient norm", "Fisher-Rao", "loss"), float("-inf"))
    else:
        found["ZiCo"] = each(lambda: scores.zico(grads))
        found["SNIP"], found["gradient norm"] = scores.snip(grads), scores.grad_norm(grads)
        found["Fisher-Rao"], found["loss"] = scores.fisher_rao(grads), -float(grads.losses.mean())
    marks.append(time.process_time())
    view = supernet.activate(architecture)
    view.eval()
    calibrated(view, task, task.unit, STATISTICS)
    quality = task.quality(view, "validation", sample=LOOKED_AT)
    found["accuracy"] = float(quality.right.mean()) - 1e-6 * float(quality.losses.mean())  # the loss tells ties apart
    marks.append(time.process_time())
    spent = np.diff(marks)
    return found | {f"seconds of {k}": float(s) for k, s in zip(("SynFlow", "NWOT", "gradients", "accuracy"), spent)}  # noqa: B905


# --- what counts ------------------------------------------------------------------------------------------------------
def alive(space: SearchSpace, architecture: Architecture) -> Architecture:
    """The architecture whose edges that carry nothing but zeros are "none"."""
    from rankitect.search_spaces.nb201 import EDGES, architecture_of

    picked = {edge: architecture.get(f"cell.edge{edge[0]}{edge[1]}") or "none" for edge in EDGES}
    reached = {0}
    for node in (1, 2, 3):
        if any(picked[b, n] != "none" and b in reached for b, n in EDGES if n == node):
            reached.add(node)
    read = {3}
    for node in (2, 1, 0):
        if any(picked[b, n] != "none" and n in read for b, n in EDGES if b == node):
            read.add(node)
    left = {edge: name if edge[0] in reached and edge[1] in read else "none" for edge, name in picked.items()}
    parts = ["|".join(f"{left[b, n]}~{b}" for b, n in EDGES if n == node) for node in (1, 2, 3)]
    return architecture_of(space, "+".join(f"|{part}|" for part in parts))


def columns(results: Results, parts: Parts, chosen: Sequence[Architecture], share: float) -> dict[str, Array]:
    """Every score of the architectures at a share of the training, higher better."""
    space = parts.graph_space
    found: dict[str, Array] = {
        "live parameters": np.asarray([space.cost(alive(space, a), "params") for a in chosen], float),
        "parameters": np.asarray([space.cost(a, "params") for a in chosen], float),
        "FLOPs": np.asarray([space.cost(a, "flops") for a in chosen], float),
    }
    by_name = {row["name"]: row for row in results.rows if row["share"] == share}
    rows = [by_name.get(space.spelled(a)) for a in chosen]
    if any(row is None for row in rows):
        return found
    for name in MEASURED:
        found[name] = np.asarray([row[name] for row in rows if row is not None], float)
    terms = [finite(found[name]) for name in ("ZiCo", "Fisher-Rao", "loss")]
    for name, factors in COMBINED.items():
        found[name] = np.sum([factor * term for factor, term in zip(factors, terms, strict=True)], axis=0)
    found[STANDARD] = np.sum([standard(term) for term in terms], axis=0)
    return found


def finite(values: Array) -> Array:
    """What is infinite becomes a little less than the least."""
    least = values[np.isfinite(values)].min(initial=0.0)
    return np.where(np.isfinite(values), values, least - 1)


def standard(values: Array) -> Array:
    """Less the mean, by the deviation."""
    values = finite(values)
    return (values - values.mean()) / max(float(values.std()), 1e-12)


def fitted(found: Mapping[str, Array], truth: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A ridge regression of ranks on the ranks of all scores, from so many architectures; and which those were."""
    names = [name for name in (*COUNTED, *MEASURED) if name in found]
    features = np.stack([standard(ranks(found[name])) for name in names], 1)
    target = standard(ranks(truth))
    some = rng.choice(len(truth), min(count, len(truth) // 2), replace=False)
    x = features[some]
    weights = np.linalg.solve(x.T @ x + len(some) * 0.1 * np.eye(x.shape[1]), x.T @ target[some])
    return features @ weights, some


def ranks(values: Array) -> Array:
    """Ranks, those of equal values the same."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(finite(values)), float)


def tau(score: Array, truth: Array) -> float:
    """Kendall's tau-b; 0 where a score tells nothing apart."""
    from scipy.stats import kendalltau

    value = float(kendalltau(finite(score), truth).statistic)
    return value if np.isfinite(value) else 0.0


# --- the tables -------------------------------------------------------------------------------------------------------
def report(
    results: Results, parts: Parts, chosen: Sequence[Architecture], known: Mapping[str, float], options: Any
) -> None:
    """Print them."""
    truth = np.asarray([known[parts.space.spelled(a)] for a in chosen])
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(truth), size=len(truth)) for _ in range(options.rounds)]
    order = np.argsort(-truth)
    kinds = {"all": order, "better half": order[: len(truth) // 2], "best tenth": order[: max(3, len(truth) // 10)]}
    by_share = {share: columns(results, parts, chosen, share) for share in SHARES}
    rows, warm = [], []
    live = by_share[0.0]["live parameters"]
    base = np.asarray([tau(live[i], truth[i]) for i in drawn])
    resampled: dict[tuple[str, float], Array] = {}
    for share, found in by_share.items():
        for name, score in found.items():
            if name in COUNTED and share:
                continue
            each = np.asarray([tau(score[i], truth[i]) for i in drawn])
            resampled[name, share] = each
            shown = [f"{tau(score[some], truth[some]):.3f}" for some in kinds.values()]
            shown[0] += f" ({between(each)})"
            gap = (
                ""
                if name == "live parameters"
                else f"{tau(score, truth) - tau(live, truth):+.3f} ({between(each - base)})"
            )
            rows.append(("" if name in COUNTED else f"{share:.0%}", name, *shown, gap))
        if "accuracy" in found:
            rows += _fitted_rows(found, truth, share)
    last = max((share for share in SHARES if ("ZiCo", share) in resampled), default=0.0)
    for name in (*MEASURED, *COMBINED, STANDARD):
        if last and (name, last) in resampled:
            best = max((s for s in SHARES if (name, s) in resampled), key=lambda s: tau(by_share[s][name], truth))
            cold = by_share[0.0][name]
            for share in sorted({best, last} - {0.0}):
                gap = tau(by_share[share][name], truth) - tau(cold, truth)
                each = resampled[name, share] - resampled[name, 0.0]
                verdict = "rises" if np.quantile(each, 0.025) > 0 else "falls" if np.quantile(each, 0.975) < 0 else ""
                warm.append((name, f"{share:.0%}", f"{gap:+.3f} ({between(each)})", verdict or "not resolved"))
    table(
        f"Kendall's tau with {options.column}, {len(truth)} architectures, C={options.channels}, N={options.cells}",
        ("supernet", "score", "all", "better half", "best tenth", "less that of live parameters"),
        rows,
        f"Over all with 95% intervals from {options.rounds} resamples of the architectures; differences are paired. "
        f"Fitted: a ridge regression of ranks, tau on the others, mean of 100 draws (least to most of 95%).",
        timed=False,
    )
    table("After training less before it, paired", ("score", "supernet", "change of tau", ""), warm, timed=False)
    _noise(parts, known, truth)
    _times(results)


def _fitted_rows(found: Mapping[str, Array], truth: Array, share: float) -> list[tuple[str, ...]]:
    rows = []
    for count in TRAINED:
        rng = np.random.default_rng(count)
        each: list[tuple[float, float]] = []
        for _ in range(100):
            score, some = fitted(found, truth, count, rng)
            rest = np.setdiff1d(np.arange(len(truth)), some)
            each.append((tau(score[rest], truth[rest]), tau(found["live parameters"][rest], truth[rest])))
        own, live = np.asarray(each).T
        gap = f"{(own - live).mean():+.3f} ({between(own - live)})"
        rows.append((f"{share:.0%}", FITTED.format(count), f"{own.mean():.3f} ({between(own)})", "", "", gap))
    return rows


def between(values: Array) -> str:
    """The middle 95%."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:.3f} to {high:.3f}"


def _noise(parts: Parts, known: Mapping[str, float], truth: Array) -> None:
    """How far accuracies of one network under several names are apart."""
    from rankitect.search_spaces.nb201 import architecture_of

    space = parts.graph_space
    same: dict[str, list[float]] = {}
    for name, value in known.items():
        same.setdefault(space.spelled(alive(space, architecture_of(space, name))), []).append(value)
    many = {name: values for name, values in same.items() if len(values) > 1}
    if not many:
        return
    spreads = np.asarray([np.ptp(values) for values in many.values()])
    inner = np.sqrt(np.mean([np.var(values, ddof=1) for values in many.values()]))
    rng = np.random.default_rng(1)
    ceiling = [tau(truth + rng.normal(0, inner, len(truth)), truth) for _ in range(50)]
    rows = [
        (f"{len(known):,}", f"{len(same):,}", f"{len(many):,}", f"{np.median(spreads):.2f}", f"{spreads.max():.2f}",
         f"{inner:.2f}", f"{np.mean(ceiling):.3f}")
    ]  # fmt: skip
    table(
        "Chance: networks that have several names",
        (
            "names",
            "networks",
            "of several names",
            "apart, median",
            "most",
            "deviation",
            "tau of the truth with such chance",
        ),
        rows,
        "Points of accuracy. Names are those whose live operations are the same; isomorphic cells are not counted.",
        timed=False,
    )


def _times(results: Results) -> None:
    """Seconds of an architecture's scores."""
    kinds = [key for key in (results.rows[0] if results.rows else {}) if key.startswith("seconds")]
    rows = [(k.removeprefix("seconds of "), f"{np.median([row[k] for row in results.rows]):.3f} s") for k in kinds]
    table("Processor seconds of an architecture, one thread", ("score", "median"), rows, timed=False)


if __name__ == "__main__":
    main()
