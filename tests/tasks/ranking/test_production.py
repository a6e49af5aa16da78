"""The production model of a ranking search: tried at its start, what bounds are relative to, and logged scores."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.config import Resolved, resolve
from rankitect.config.parts import Parts
from rankitect.config.quantities import Amounts
from rankitect.contracts import Measurement, Trial, TrialContext
from rankitect.controllers.dnas import DNAS
from rankitect.data.ranking.batch import RankingBatch
from rankitect.errors import BaselineError, ConfigError
from rankitect.evaluators.ranking import Trained
from rankitect.methods.bounded_space import BoundedSpace, limits_of
from rankitect.models.candidate import save_ranker
from rankitect.models.supernet import build
from rankitect.production.registry import Registry
from rankitect.study.checks import problem
from rankitect.tasks.ranking.task import Ranking
from rankitect.tasks.ranking.tried import try_module
from tests.tasks.language.tiny import own_cache
from tests.tasks.ranking.tiny import SMALL, ranking_parts

ROWS = RankingBatch(
    torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.ones(64, 2).long(), torch.arange(64) % 2.0
)
HERE = "tests.tasks.ranking.test_production"


class Linear(torch.nn.Module):
    """A ranker whose answer `shape` may spoil."""

    def __init__(self, features: Any = None, shape: Any = None) -> None:
        super().__init__()
        self.linear, self.shape = torch.nn.Linear(3, 1), shape or (lambda x: x)

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> Any:
        return self.shape(self.linear(numeric))


class OneInput(Linear):
    def forward(self, batch: torch.Tensor) -> Any:  # type: ignore[override]
        return self.linear(batch)


class Untrainable(torch.nn.Module):
    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return numeric.sum(1)


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.factor * numeric.sum(1)


def right(features: Any) -> torch.nn.Module:
    return Linear()


def wrong_forward(features: Any) -> torch.nn.Module:
    return OneInput()


def probabilities(features: Any) -> torch.nn.Module:
    return Linear(shape=torch.sigmoid)


def sums(features: Any) -> torch.nn.Module:
    """No product of matrices, so nothing that counts as a FLOP."""
    return Scaled()


def raises(features: Any) -> torch.nn.Module:
    raise KeyError("a" * 5000)


@pytest.mark.parametrize("shape", [None, lambda x: x[:, 0], lambda x: 0.001 * x + 0.5, lambda x: x.clamp(-8, 8)])
def test_a_module_that_gives_a_logit_a_row_is_taken(shape: Any) -> None:
    module = Linear(shape=shape).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for trained in (True, False):
        try_module(module, ROWS, "it", trained)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (OneInput(), "cannot be called on 64 rows (TypeError"),
        (Linear(shape=lambda x: x.expand(-1, 2)), "gives [64, 2] for 64 rows"),
        (Linear(shape=lambda x: x.mean()), "gives [] for 64 rows"),
        (Linear(shape=torch.t), "gives [1, 64] for 64 rows"),
        (Linear(shape=torch.squeeze), "gives [] for 1 rows"),
        (Linear(shape=lambda x: (x,)), "gives tuple"),
        (Linear(shape=lambda x: (x > 0).long()), "a tensor of torch.int64"),
        (Linear(shape=lambda x: x / (x > x.max())), "no finite number for"),
        (Linear(shape=torch.sigmoid), "these are probabilities"),
        (Linear(shape=lambda x: torch.softmax(torch.cat([x, -x], 1), 1)[:, 1]), "these are probabilities"),
        (Linear(shape=lambda x: x.detach()), "cannot be trained"),
        (Untrainable(), "nothing to train"),
    ],
)
def test_a_module_that_cannot_be_compared_with_is_told_in_a_sentence(module: torch.nn.Module, words: str) -> None:
    with pytest.raises(BaselineError) as error:
        try_module(module, ROWS, "it", trained=False)
    assert words in str(error.value)
    assert len(str(error.value)) < 400


@pytest.fixture(scope="module", autouse=True)
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


@cache
def _resolved() -> Resolved:
    return resolve(SMALL)


@cache
def _space() -> Any:
    resolved = _resolved()
    plugin = resolved.plugins["space"]
    parts = Parts(resolved.config, Path())
    parts.task = Ranking(resolved.plugins["task"].config, parts)  # type: ignore[arg-type]
    return plugin.target.from_config(plugin.config, parts)  # type: ignore[attr-defined]


def alone(
    folder: Path, constraints: Any = None, say: Callable[[str], None] = lambda text: None, **report: Any
) -> Parts:
    """A task and its space, without the rest of a search."""
    resolved = _resolved()
    config = resolved.config.model_copy(update={"report": resolved.config.report.model_copy(update=report)})
    config = config.model_copy(update={"allowed_packages": ["rankitect", "tests"]})
    if constraints is not None:
        config = config.model_copy(update={"constraints": constraints})
    names = {"task": "ranking", "space": "ranking_engineered"}
    parts = Parts(config, folder, say, names, space=_space())
    parts.task = Ranking(resolved.plugins["task"].config, parts)  # type: ignore[arg-type]
    return parts


def bounds(parts: Parts) -> tuple[float, float]:
    return limits_of(parts.task)["flops"]


def test_a_production_model_that_cannot_run_stops_the_search_at_its_start(tmp_path: Path) -> None:
    registry, said = Registry(tmp_path / "registry"), list[str]()
    registry.add("right", "ranking", module=f"{HERE}.right")
    given = f"report.registry={registry.folder}"
    with pytest.raises(BaselineError, match=r"'tests\..*' is not in an allowed package .* retire right\."):
        ranking_parts(tmp_path, given)
    begun = alone(tmp_path, {}, said.append, registry=str(registry.folder))
    assert isinstance(begun.task, Ranking)
    models = begun.task.registered
    assert [entry.label for entry, _ in models.live()] == ["right v1"]
    cases = {
        "wrong_forward": "cannot be called on 64 rows (TypeError",
        "probabilities": "these are probabilities",
        "raises": "raises KeyError",
        "gone": "has no 'gone'",
    }
    for name, words in cases.items():
        registry.add(name, "ranking", module=f"{HERE}.{name}")
        # A search that is under way leaves it out and says so; one that begins does not.
        assert [b.name for b in models.baselines()] == ["right v1"]
        assert words in models.left_out()[f"{name} v1"]
        with pytest.raises(BaselineError) as error:
            begun.task.check(begun)
        assert words in str(error.value)
        assert f"retire {name}" in str(error.value)
        assert len(str(error.value)) <= 500
        registry.retire(name)
    assert len(said) == len(cases)
    begun.task.check(begun)


def test_bounds_and_targets_are_relative_to_production(tmp_path: Path) -> None:
    folder, registry = tmp_path / "run", Registry(tmp_path / "registry")
    folder.mkdir()
    plain = alone(tmp_path)
    usual, space = bounds(plain), plain.space
    assert plain.task.production_cost("flops") is None  # type: ignore[attr-defined]
    sampled = {float(space.cost(a, "flops", B=1)): a for a in space.sample_many(100, 0)}
    flops = min(cost for cost in sampled if cost > usual[0])
    live = json.loads(sampled[flops].to_json())
    registry.add("live", "ranking", architecture=live)
    given, folders = {"flops": (0.1, 1.5)}, {"registry": str(registry.folder)}

    said: list[str] = []
    bounded = alone(folder, given, said.append, **folders)
    assert bounds(bounded) == (pytest.approx(0.1 * flops), pytest.approx(1.5 * flops))
    bounded.task.baselines(bounded)  # type: ignore[attr-defined]  # as the study asks for them, when it begins
    assert said == ["Constraints (flops) are relative to live v1, the production model."]
    assert bounds(alone(tmp_path, given, baseline="dlrm", **folders))[1] == pytest.approx(1.5 * usual[1])

    # A run that has begun keeps what its bounds are relative to, whatever becomes of the registry.
    (folder / "study.db").touch()
    registry.retire("live")
    assert bounds(alone(folder, given, **folders)) == bounds(bounded)
    assert bounds(alone(tmp_path, given, **folders))[1] == pytest.approx(1.5 * usual[1])

    registry.add("live", "ranking", architecture=live)
    again = alone(tmp_path, given, **folders)
    dnas = DNAS.from_config(DNAS.Config(targets=[1.0]), again)
    base = BoundedSpace.of(again, shared=True).graph_space
    whole = float(base.cost(again.task.reference, "flops", ""))  # type: ignore[attr-defined]
    assert dnas._targets.values == (pytest.approx(flops / whole),)
    assert dnas._targets.shown(flops / whole) == 1.0
    wide = DNAS.from_config(DNAS.Config(targets=[1.5, 0.5]), again)  # more than production costs
    assert wide._targets.values == (pytest.approx(1.5 * flops / whole), pytest.approx(0.5 * flops / whole))
    assert [wide._targets.shown(value) for value in wide._targets.values] == [1.5, 0.5]
    a = base.sample_many(1, 3)[0]
    reached = wide._targets.reached(a, again.task, wide._bounded)  # type: ignore[arg-type]
    assert reached == pytest.approx(float(base.cost(a, "flops", "")) / flops, abs=1e-4)
    assert wide._targets.missed(1.0, 0.96) == ""
    assert "1 of the production model's flops was missed: " in wide._targets.missed(1.0, 0.9)
    with pytest.raises(ConfigError, match=r"0\.01 is outside of the constraints, which allow 0\.1 to 1\.5"):
        DNAS.from_config(DNAS.Config(targets=[0.01]), again)
    narrow = alone(tmp_path, {"flops": (0.0001, 0.0002)}, **folders)
    with pytest.raises(ConfigError, match=r"relative to live v2, the production model.*space is constraints\.flops=\["):
        narrow.task.check(narrow)  # type: ignore[attr-defined]


def test_a_production_model_without_flops_bounds_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add("sums", "ranking", module=f"{HERE}.sums")
    parts = alone(tmp_path, registry=str(registry.folder))
    assert bounds(parts) == bounds(alone(tmp_path))


def log_with_scores(path: Path, rows: int = 1200) -> list[dict[str, Any]]:
    """A log in which production's probabilities are half of the true ones, and one row is bad."""
    rng = np.random.default_rng(0)
    lines = []
    for time in range(rows):
        price, city = rng.normal(), int(rng.integers(5))
        chance = 1 / (1 + math.exp(0.5 - price - 0.3 * city))
        click = int(rng.random() < chance)
        lines.append(
            {"ts": 1_700_000_000 + 60 * time, "price": price, "city": city, "click": click, "served": chance / 2}
        )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows([{**line, "served": "oops"} if place == 3 else line for place, line in enumerate(lines)])
    return [line for place, line in enumerate(lines) if place != 3]


def logging(folder: Path, score: str) -> Parts:
    """A task on that log alone."""
    columns = [
        "~task.data.synthetic", "task.data.format=csv", f"task.data.path={folder / 'log.csv'}",
        "task.data.table.label=click", "task.data.table.numeric=[price]", "task.data.table.categorical=[city]",
        "task.data.table.timestamp=ts", f"task.data.table.score={score}", "task.data.bad_rows=skip",
        "task.data.bad_share=0.01",
    ]  # fmt: skip
    resolved = resolve([*SMALL, *columns])
    parts = Parts(resolved.config, folder, lambda text: None)
    parts.task = Ranking(resolved.plugins["task"].config, parts)  # type: ignore[arg-type]
    return parts


def entropy(labels: Any, chances: Any) -> float:
    """Normalized entropy, computed directly."""
    rate = float(np.mean(labels))
    loss = -np.mean(np.where(np.asarray(labels) > 0, np.log(chances), np.log1p(-np.asarray(chances))))
    return float(loss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)))


def test_logged_scores_are_a_baseline_without_weights_or_costs(tmp_path: Path) -> None:
    lines = log_with_scores(tmp_path / "log.csv")
    found = {}
    for kind in ("probability", "score"):
        parts = logging(tmp_path, f"{{name: served, kind: {kind}}}")
        assert isinstance(parts.task, Ranking)
        baseline = parts.task.baselines(parts)[-1]
        assert (baseline.name, baseline.logged) == ("logged production", True)
        assert all(feature.name != "served" for feature in parts.task.features.categorical)
        assert parts.task.features.numeric == ("price",)
        evaluator = Trained.from_config(Trained.Config(), parts)
        context = TrialContext(folder=tmp_path / kind, run_folder=tmp_path, seed=0)
        (tmp_path / kind).mkdir()
        found[kind] = evaluator.measure(baseline.architecture, context)
        assert problem(found[kind], evaluator.metrics) is None
        assert "flops" not in found[kind].metrics
        assert found[kind].spent.trained == 0
    test = lines[-found["probability"].metrics["normalized_entropy"].n :]
    labels, served = [r["click"] for r in test], [r["served"] for r in test]
    assert found["probability"].metrics["normalized_entropy"].value == pytest.approx(entropy(labels, served), abs=1e-6)
    assert found["probability"].metrics["calibration"].value == pytest.approx(
        np.mean(served) / np.mean(labels), abs=1e-6
    )
    assert found["score"].metrics["auc"].value == pytest.approx(found["probability"].metrics["auc"].value)
    calibrated = found["score"].metrics["normalized_entropy"].value
    assert calibrated < found["probability"].metrics["normalized_entropy"].value, "the line takes the factor away"


@pytest.mark.parametrize(
    ("score", "words"),
    [("price", "would only copy production"), ("click", "is also the label"), ("gone", "gone")],
)
def test_a_score_column_that_cannot_be_one_is_refused(tmp_path: Path, score: str, words: str) -> None:
    log_with_scores(tmp_path / "log.csv", 300)
    with pytest.raises(ValueError, match=words):
        logging(tmp_path, score)


class Timer:
    """A device of somebody's own that takes rankers."""

    name = "timer"

    def export_ranker(self, folder: Path, model: Any, examples: Any, labels: Any = None) -> dict[str, str]:
        assert model(*examples).numel() == len(labels)
        (folder / "latency.json").write_text("{}")
        return {"latency": "latency.json"}


def test_baselines_are_exported_to_the_device_that_candidates_are_exported_to(tmp_path: Path) -> None:
    parts = alone(tmp_path)
    task = parts.task
    assert isinstance(task, Ranking)
    parts.device = Timer()  # type: ignore[assignment]
    known = task.models["dlrm"]
    (tmp_path / "trial").mkdir()
    model = build(known.space, known.architecture)
    files = save_ranker(tmp_path / "trial", known.space, known.architecture, model, task.features)
    artifacts = {name: f"trial/{path}" for name, path in files.items()}
    trial = Trial(
        1, 0, 1, known.architecture, "final", 0, {}, "DONE", Measurement({}, artifacts=artifacts), baseline="dlrm"
    )
    assert task.baseline_exporter(parts)(trial, tmp_path) == {"latency": "latency.json"}
    logged = dataclasses.replace(trial, measurement=Measurement({}))
    assert task.baseline_exporter(parts)(logged, tmp_path) == {}


def test_targets_without_a_lower_bound_begin_at_the_cheapest_architecture(tmp_path: Path) -> None:
    plain = alone(tmp_path)
    base = BoundedSpace.of(plain, shared=True).graph_space
    whole = float(base.cost(plain.task.reference, "flops", ""))  # type: ignore[attr-defined]
    bounded = alone(tmp_path, {"flops": Amounts(-math.inf, whole / 2)})
    targets = DNAS.from_config(DNAS.Config(points=2), bounded)._targets
    assert all(targets.least < target < 0.5 for target in targets.values), targets
    assert targets.values[0] - targets.values[1] == pytest.approx((0.5 - targets.least) / 2, abs=2e-4)
