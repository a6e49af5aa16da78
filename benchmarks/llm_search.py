"""Quality: does the search beat uniform pruning at equal block FLOPs and equal healing tokens?

For each target (share of the backbone's block FLOPs) and seed, four picks are healed alike and measured on the test
split: DNAS's, the best of random search at the same ledger, uniform width pruning (importance order), and uniform depth
pruning (least block influence first). `--methods` also takes what tells the causes apart: DNAS's pick with the
backbone's weights in place of those that the search trained, uniform width with the latter, and
uniform width without closed-form refits. Every finished measurement is a line in `results.jsonl`; repeating the command
goes on where it stopped.

    python benchmarks/llm_search.py --folder runs/bench-llm --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Results

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture

METHODS = ("dnas", "uniform width", "uniform depth", "random")
SEARCHED = "uniform width, searched weights"
PLAIN = "uniform width, no refits"
CAUSES = ("dnas, backbone's weights", SEARCHED, PLAIN)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-llm"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.75, 0.6, 0.5])
    parser.add_argument("--tokens", type=int, default=10240, help="healing tokens of one candidate")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *CAUSES], default=list(METHODS))
    parser.add_argument("overrides", nargs="*", help="further keys of the search, such as controller.steps=30")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = Quality(options.folder / "results.jsonl")
    for seed in options.seeds:
        run_seed(seed, options, results)
    print(results.table(options.targets, options.methods))


class Quality(Results):
    """Perplexities by seed, target and method."""

    def table(self, targets: list[float], methods: list[str]) -> str:
        """Perplexity by target and method: mean over seeds, and the ratio to uniform width with its 95% interval."""
        lines = [
            "| block FLOPs | method | perplexity (mean of seeds) | seeds | ratio to uniform width [95%] |",
            "|---|---|---|---|---|",
        ]
        for target in targets:
            base = {r["seed"]: r for r in self.rows if (r["target"], r["method"]) == (target, "uniform width")}
            for method in methods:
                rows = [r for r in self.rows if (r["target"], r["method"]) == (target, method)]
                if not rows:
                    continue
                nats = [float(np.mean(r["window_nats"])) for r in rows]
                pairs = [(r["window_nats"], base[r["seed"]]["window_nats"]) for r in rows if r["seed"] in base]
                ratio = _ratio(pairs) if pairs and method != "uniform width" else ""
                mean = math.exp(float(np.mean(nats)))
                spread = f" ({math.exp(min(nats)):.2f} to {math.exp(max(nats)):.2f})"
                lines.append(
                    f"| {target:.0%} ({rows[0]['cost']:.1%}) | {method} | {mean:.2f}{spread} | {len(rows)} | {ratio} |"
                )
        return "\n".join(lines)


def _ratio(pairs: list[tuple[list[float], list[float]]]) -> str:
    """exp of the mean paired difference, with the spread over windows and over seeds (paired by seed)."""
    from rankitect.metrics.intervals import mean_estimate, seeded_estimate

    gaps = np.asarray([np.asarray(a) - np.asarray(b) for a, b in pairs])
    found = seeded_estimate(mean_estimate(gaps.mean(0)), gaps.mean(1).tolist())
    low, high = found.interval()
    return f"{math.exp(found.value):.3f} [{math.exp(low):.3f}, {math.exp(high):.3f}]"


def run_seed(seed: int, options: argparse.Namespace, results: Quality) -> None:
    """All methods at all targets with one seed."""
    missing = [
        (t, m) for m in options.methods for t in options.targets if not results.find(seed=seed, target=t, method=m)
    ]
    if not missing:
        return
    made: dict[bool, Parts] = {}
    for target, method in missing:
        refit = method != PLAIN
        if refit not in made:
            made = {refit: _parts(seed, options, refit)}
        parts = made[refit]
        architecture, ledger = pick(method, target, seed, parts, options)
        if method not in ("dnas", SEARCHED):
            parts.task.adopt(None)
        measured = measure(parts, architecture, seed, options.folder)
        results.add({"seed": seed, "target": target, "method": method, **ledger, **measured})
        print(
            f"seed {seed} {target:.0%} {method}: perplexity {measured['perplexity']:.2f} at {measured['cost']:.1%}",
            flush=True,
        )


def _parts(seed: int, options: argparse.Namespace, refit: bool) -> Parts:
    from rankitect.config import resolve
    from rankitect.config.parts import build
    from rankitect.training.host import configure_host

    configure_host()
    targets = ",".join(map(str, options.targets))
    overrides = [f"seed={seed}", f"recipe.heal.tokens={options.tokens}", "controller=dnas"]
    overrides += [f"controller.targets=[{targets}]", f"task.refit={refit}", "task.test_windows=null"]
    return build(resolve([*overrides, *options.overrides]), options.folder / f"seed{seed}")


def pick(
    method: str, target: float, seed: int, parts: Parts, options: argparse.Namespace
) -> tuple[Architecture, dict[str, Any]]:
    """A method's architecture for a target, and what finding it took."""
    from rankitect.tasks.language.uniform import uniform_depth, uniform_width

    task = parts.task
    if method in ("uniform width", PLAIN):
        return uniform_width(parts.space, task.reference, target, task.context), {}
    if method == "uniform depth":
        return uniform_depth(parts.space, task.reference, target, task.statistics.influence, task.context), {}
    chosen, tokens = dnas(parts, options.folder / f"seed{seed}")
    if method == SEARCHED:
        return uniform_width(parts.space, task.reference, target, task.context), {"search_tokens": tokens}
    if method.startswith("dnas"):
        return chosen[target], {"search_tokens": tokens}
    return random_best(parts, target, seed, tokens / len(options.targets))


def dnas(parts: Parts, folder: Path) -> tuple[dict[float, Architecture], int]:
    """DNAS's picks by target, and the tokens it trained on (resumes from its own checkpoint)."""
    session = _Session(folder)
    controller: Any = parts.controller
    controller._found.clear()
    controller.prepare(session)  # from its last checkpoint, where there is one
    return dict(controller._found), session.tokens


class _Session:
    """What DNAS's `prepare` uses of a study."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder
        self._ledger = folder / "tokens.json"
        self._spent = json.loads(self._ledger.read_text()) if self._ledger.exists() else {}

    def charge(self, key: str, spent: Any) -> None:
        """Remember the tokens."""
        self._spent[key] = spent.train_tokens
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._ledger.write_text(json.dumps(self._spent))

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return sum(self._spent.values())

    def scalar(self, name: str, value: float, step: int) -> None:
        """Not kept."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Print it."""
        print(f"  search {done}/{total}: {note}", flush=True)

    def remaining(self) -> float:
        """No limit."""
        return 1.0

    def remaining_trials(self) -> float:
        """No limit."""
        return 1.0

    def should_stop(self) -> bool:
        """Never."""
        return False

    def check(self) -> None:
        """Never stops."""


def random_best(parts: Parts, target: float, seed: int, train_tokens: float) -> tuple[Architecture, dict[str, Any]]:
    """The best of as many screened draws as DNAS's tokens pay for (a trained token counts as three forward)."""
    task, windows = parts.task, 8
    count = max(2, math.ceil(3 * train_tokens / (windows * task.context)))
    whole = parts.space.cost(task.reference, "flops", "layers")
    bounds = {"layers:flops": ((target - 0.02) * whole, target * whole)}
    best: tuple[float, Any] | None = None
    for architecture in parts.space.sample_many(count, [seed, int(target * 1000)], **bounds):
        quality = task.quality(task.backbone.supernet.activate(architecture), "search", sample=windows)
        if best is None or quality.nats < best[0]:
            best = (quality.nats, architecture)
    assert best is not None
    return best[1], {"screened": count, "search_tokens": count * windows * task.context}


def measure(parts: Parts, architecture: Architecture, seed: int, folder: Path) -> dict[str, Any]:
    """Heal and measure with the search's own evaluator."""
    from rankitect.contracts import TrialContext
    from rankitect.evaluators.healed import Healed

    evaluator = Healed.from_config(Healed.Config(save=False), parts)
    measured = evaluator.measure(architecture, TrialContext(run_folder=folder, folder=folder, seed=seed))
    metrics = measured.metrics
    return {
        "perplexity": metrics["perplexity"].value,
        "cost": metrics["block_flops"].value,
        "healed_tokens": measured.spent.train_tokens,
        "window_nats": measured.notes["examples"]["values"],
        "architecture": json.loads(architecture.to_json()),
    }


if __name__ == "__main__":
    main()
