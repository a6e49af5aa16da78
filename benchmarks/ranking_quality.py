"""Quality of rankers: does a found model beat tuned baselines on normalized entropy (NE) at no more FLOPs?

The search may use as many FLOPs as the best tuned baseline has. Every contender is tuned with the same number of trials
(learning rates, regularisation, and for baselines widths too) by the validation split, then trained with several seeds;
each is then trained once more on training and validation rows for as long as was best, as a model that goes live would
be, and the test split is looked at once. Contenders are the known rankers, LightGBM where it is installed, and the best
architecture that a search finds. Every training is a line in `results.jsonl` with its losses beside it; repeating the
command goes on where it stopped.

    python benchmarks/ranking_quality.py --folder runs/bench-ranking
    python benchmarks/ranking_quality.py --folder runs/bench-criteo task=criteo task.data.path=train.txt
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Results, table
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture, SearchSpace

RANKERS = ("lr", "wide_deep", "deepfm", "dlrm", "dcnv2", "autoint", "finalmlp")
BOOSTED, FOUND = "lightgbm", "found"
AGAIN = 3
"""Settings that are trained with more seeds before one of them is chosen."""
SEARCH = ["task.short_epochs=${task.epochs}", "controller.samples=48", "confirm.seeds=3"]
"""How the search judges: by trainings of full length, and what it finds by three of them."""
WIDTHS = ((64, 32), (128, 64), (256, 128, 64), (400, 400))
"""MLPs that a baseline is tried with."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-ranking"))
    parser.add_argument("--space", default="ranking_engineered")
    parser.add_argument("--controller", default="evolution")
    parser.add_argument("--search", nargs="*", default=SEARCH, help="further keys of the search alone")
    parser.add_argument("--trials", type=int, default=12, help="of tuning, for every contender")
    parser.add_argument("--seeds", type=int, default=5, help="of training, for every contender")
    parser.add_argument("--contenders", nargs="+", default=[*RANKERS, BOOSTED, FOUND])
    parser.add_argument("--quick", action="store_true", help="two trials, two seeds, a tiny search: to try it")
    parser.add_argument("overrides", nargs="*", help="further keys of the search, such as task.data.split=time")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.seeds = 2, 2
        options.overrides = ["preset=smoke", *options.overrides]
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for name in options.contenders:
        if name == BOOSTED and not _installed("lightgbm"):
            print("lightgbm is not installed: left out", flush=True)
            continue
        bench.contend(name)
    bench.report()


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


Trained = tuple[float, NDArray[np.float32] | None, float, float]
"""NE on the validation split; losses on the test split after a refit on training and validation rows, unless it only
tunes; FLOPs; bytes of embedding tables."""


class Bench:
    """The data, the contenders' trainings so far, and how one is trained."""

    def __init__(self, options: argparse.Namespace) -> None:
        from rankitect.config import resolve
        from rankitect.config.parts import build
        from rankitect.training.host import configure_host

        configure_host()
        self.options = options
        self.keys = [f"space={options.space}", f"controller={options.controller}", *options.overrides]
        self.parts: Parts = build(resolve(self.keys), options.folder / "parts")
        self.data = self.parts.task.data.table
        self.results = Results(options.folder / "results.jsonl")
        self.rows = self.results.rows
        self._found: tuple[SearchSpace, Architecture] | None = None

    # --- one contender ----------------------------------------------------------------------------------------------
    def contend(self, name: str) -> None:
        """Tune by validation, then train the best setting with every seed."""
        rng = np.random.default_rng([7, *name.encode()])
        tried = [self.run(name, self._settings(name, rng, trial), 0, "tune") for trial in range(self.options.trials)]
        # One training is a noisy judge: the few best settings are trained twice more, and the best mean is taken.
        again = sorted(tried, key=lambda row: float(row["validation"]))[:AGAIN]
        means = []
        for row in again:
            more = [self.run(name, row["settings"], 100 + seed, "tune") for seed in range(2)]
            means.append(float(np.mean([r["validation"] for r in (row, *more)])))
        best = again[int(np.argmin(means))]
        for seed in range(1, self.options.seeds + 1):
            self.run(name, best["settings"], seed, "final")

    def _settings(self, name: str, rng: np.random.Generator, trial: int) -> dict[str, Any]:
        """The task's own settings first, then draws."""
        if name == BOOSTED:
            drawn = {
                "learning_rate": 10 ** rng.uniform(-2, -0.7),
                "num_leaves": int(rng.choice([15, 31, 63, 127])),
                "min_data_in_leaf": int(rng.choice([20, 50, 100, 200])),
                "lambda_l2": 10 ** rng.uniform(-2, 1.5),
                "cat_smooth": 10 ** rng.uniform(0.5, 2.5),
            }
            return drawn if trial else {}
        drawn = {
            "lr": 10 ** rng.uniform(-3.7, -2.3),
            "weight_decay": float(rng.choice([0.0, 10 ** rng.uniform(-4, -1)])),
            "table_lr": 10 ** rng.uniform(-2.5, -0.8),
        }
        if name != FOUND:
            drawn["hidden"] = list(WIDTHS[int(rng.integers(len(WIDTHS)))])
        return drawn if trial else {}

    def run(self, name: str, settings: Mapping[str, Any], seed: int, purpose: str) -> dict[str, Any]:
        """One training, or what is known of it."""
        key = hashlib.sha256(json.dumps([name, settings, seed, purpose], sort_keys=True).encode()).hexdigest()[:16]
        known = self.results.find(key=key)
        if known is not None:
            return known
        train = self._boosted if name == BOOSTED else self._ranker
        validation, losses, flops, held = train(name, settings, seed, purpose)
        if losses is not None:
            np.save(self.options.folder / f"{key}.npy", losses)
        row = {"key": key, "name": name, "settings": dict(settings), "seed": seed, "purpose": purpose}
        row |= {"validation": validation, "flops": flops, "table_bytes": held}
        self.results.add(row)
        print(f"{name} {purpose} seed {seed}: validation NE {validation:.4f} {dict(settings)}", flush=True)
        return row

    def _ranker(self, name: str, settings: Mapping[str, Any], seed: int, purpose: str) -> Trained:
        import dataclasses

        from rankitect.models.supernet import build
        from rankitect.search_spaces.ranking_points import baseline
        from rankitect.tasks.ranking.fit import fit, refit

        task = self.parts.task
        if name == FOUND:
            space, architecture = self.found()
        else:
            sizes = {"hidden": tuple(settings["hidden"])} if "hidden" in settings else {}
            space, architecture = baseline(name, task.features, **sizes)
        config = task.fit_config(self.parts.task.reference, seed)
        rates = {key: settings[key] for key in ("lr", "weight_decay") if key in settings}
        tables = config.tables
        if tables is not None and "table_lr" in settings:
            tables = dataclasses.replace(tables, lr=settings["table_lr"])
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **rates), tables=tables)
        costs = [float(space.cost(architecture, kind, B=1)) for kind in ("flops", "table_bytes")]
        model = build(space, architecture, seed)
        result = fit(model, task.data, config)
        validation = task.quality(model, "validation").normalized_entropy
        if purpose == "tune":
            return validation, None, costs[0], costs[1]
        model = build(space, architecture, seed)
        refit(model, task.data, config, result.best_step / task.data.steps("train", config.batch))
        test = task.quality(model, "test")
        return validation, test.losses, costs[0], costs[1]

    def found(self) -> tuple[SearchSpace, Architecture]:
        """The architecture of the lowest validation NE that a search finds within its constraints."""
        if self._found is None:
            import rankitect
            from rankitect.graph import Architecture

            keys = [*self.keys, "runner.baselines=false", *self.options.search, *self._limit()]
            result = rankitect.search(keys, quiet=True, output_dir=self.options.folder / "search")
            best = min(result.summary.pareto, key=lambda c: c.metrics["validation_normalized_entropy"].value)
            space = self.parts.space
            self._found = space, space.validate(Architecture.from_json(json.dumps(best.architecture)))
        return self._found

    def _limit(self) -> list[str]:
        """No more FLOPs than the best baseline by validation, where one was tuned before."""
        finals = [row for row in self.rows if row["purpose"] == "final" and row["name"] in RANKERS]
        names = {row["name"] for row in finals}
        if not names:
            return []

        def mean(name: str) -> float:
            return float(np.mean([row["validation"] for row in finals if row["name"] == name]))

        best = min(names, key=mean)
        flops = next(row["flops"] for row in finals if row["name"] == best)
        reference = self.parts.task.config.reference
        model = self.parts.task.models[reference]
        share = flops / model.space.cost(model.architecture, "flops", B=1)
        return [f"constraints.flops=[{share / 10:.6f},{share:.6f}]"]

    def _boosted(self, name: str, settings: Mapping[str, Any], seed: int, purpose: str) -> Trained:
        import lightgbm  # type: ignore[import-not-found]

        from rankitect.metrics.ranking_metrics import entropy_estimate

        def inputs(split: str) -> NDArray[np.float32]:
            part = self.data.split(split)
            return np.concatenate([part.numeric, part.ids.astype(np.float32)], 1)

        labels = {name: self.data.split(name).labels for name in ("train", "validation", "test")}
        numbers = self.data.split("train").numeric.shape[1]
        columns = list(range(numbers, numbers + self.data.split("train").ids.shape[1]))
        train = lightgbm.Dataset(inputs("train"), labels["train"], categorical_feature=columns, free_raw_data=False)
        valid = lightgbm.Dataset(inputs("validation"), labels["validation"], reference=train)
        keys = {"objective": "binary", "seed": seed, "verbose": -1, "feature_pre_filter": False, "bagging_freq": 1}
        keys |= {"bagging_fraction": 0.9, "feature_fraction": 0.9, **settings}
        rounds = 20 if self.options.quick else 2000
        stop = lightgbm.early_stopping(50, verbose=False)
        booster = lightgbm.train(keys, train, rounds, valid_sets=[valid], callbacks=[stop])

        def losses(split: str) -> NDArray[np.float32]:
            p = np.clip(booster.predict(inputs(split)), 1e-7, 1 - 1e-7)
            y = labels[split]
            found: NDArray[np.float32] = (-y * np.log(p) - (1 - y) * np.log1p(-p)).astype(np.float32)
            return found

        validation = entropy_estimate(losses("validation"), labels["validation"]).value
        if purpose == "tune":
            return validation, None, math.nan, math.nan
        both = np.concatenate([inputs("train"), inputs("validation")])
        known = np.concatenate([labels["train"], labels["validation"]])
        whole = lightgbm.Dataset(both, known, categorical_feature=columns)
        booster = lightgbm.train(keys, whole, max(1, booster.best_iteration))
        return validation, losses("test"), math.nan, math.nan

    # --- the table --------------------------------------------------------------------------------------------------
    def report(self) -> None:
        """NE of each contender over seeds, and its paired difference from the best baseline."""
        test = self.data.split("test")
        losses = {name: self._losses(name) for name in self.options.contenders if self._final(name)}
        if not losses:
            sys.exit("nothing was measured")
        entropy = {name: self._entropy(found) for name, found in losses.items()}
        baselines = [name for name in losses if name != FOUND]
        best = min(baselines, key=lambda name: float(np.mean(entropy[name]))) if baselines else FOUND
        rows = []
        for name in sorted(losses, key=lambda name: float(np.mean(entropy[name]))):
            flops, held = (self._final(name)[0][kind] for kind in ("flops", "table_bytes"))
            seeds = f"{np.mean(entropy[name]):.4f} ({min(entropy[name]):.4f} to {max(entropy[name]):.4f})"
            costs = [f"{flops:,.0f}", f"{held / 1e6:,.2f} MB"] if math.isfinite(flops) else ["-", "-"]
            rows.append((name, *costs, seeds, self._gap(losses, name, best)))
        table(
            f"Test NE on {self.data.name}, {test.rows:,} rows",
            ("model", "FLOPs a row", "embedding tables", "NE, mean (range) of seeds", f"minus {best} [95%]"),
            rows,
            f"{self.options.trials} trials of tuning by validation and {self.options.seeds} seeds for each. Intervals "
            "are paired over rows, clustered by user where there is one, and hold the spread over seeds.",
            *self._optimum(entropy),
            timed=False,
        )

    def _optimum(self, entropy: Mapping[str, Sequence[float]]) -> list[str]:
        """On generated data, the share of the way from no model (NE 1) to the teacher's own NE."""
        best = self.data.split("test").facts.get("bayes_ne")
        if best is None:
            return []
        shares = {name: (1 - float(np.mean(found))) / (1 - best) for name, found in entropy.items()}
        listed = ", ".join(f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
        return [f"The teacher's own NE on these rows is {best:.4f}. Share of the gap to it that is closed: {listed}."]

    def _final(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["name"] == name and row["purpose"] == "final"]

    def _losses(self, name: str) -> NDArray[np.float32]:
        return np.stack([np.load(self.options.folder / f"{row['key']}.npy") for row in self._final(name)])

    def _entropy(self, losses: NDArray[np.float32]) -> Sequence[float]:
        from rankitect.metrics.ranking_metrics import entropy_estimate

        test = self.data.split("test")
        return [entropy_estimate(row, test.labels, weights=test.weights).value for row in losses]

    def _gap(self, losses: Mapping[str, NDArray[np.float32]], name: str, best: str) -> str:
        from rankitect.metrics.ranking_metrics import entropy_difference

        if name == best:
            return ""
        test = self.data.split("test")
        found = entropy_difference(losses[name], losses[best], test.labels, weights=test.weights, clusters=test.groups)
        low, high = found.interval()
        return f"{found.value:+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
