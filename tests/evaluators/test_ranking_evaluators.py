"""Evaluators of rankers: what they report equals what a direct computation gives; the smallest search end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

import rankitect
from rankitect.contracts import Measurement, StopRequested, TrialContext
from rankitect.contracts.measure import measure
from rankitect.methods.shared_weights import CoTraining
from rankitect.models.candidate import load_ranker
from rankitect.models.supernet import build
from rankitect.tasks.ranking.fit import fit, refit
from tests.tasks.language.tiny import own_cache
from tests.tasks.ranking.tiny import SMALL, ranking_parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("evaluators")
    with own_cache(folder / "cache"):
        yield ranking_parts(folder, "task.epochs=2")


def context(folder: Path, seed: int = 0, **more: Any) -> TrialContext:
    place = folder / "trial"
    place.mkdir(parents=True, exist_ok=True)
    return TrialContext(folder, place, seed, **more)


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric.value for name, metric in measurement.metrics.items()}


def test_training_from_scratch_equals_a_direct_computation(parts: Any, tmp_path: Path) -> None:
    task, architecture = parts.task, parts.space.sample(1, **parts.task.limits())
    evaluator = parts.evaluators["final"]
    found = evaluator.measure(architecture, context(tmp_path, seed=7))
    model = build(parts.space, architecture, 7)
    config = task.fit_config(architecture, 7)
    result = fit(model, task.data, config)
    early = task.quality(model, "test")
    model = build(parts.space, architecture, 7)
    more, _ = refit(model, task.data, config, result.best_step / task.data.steps("train"))
    quality = task.quality(model, "test")
    metrics = values(found)
    assert metrics["normalized_entropy"] == quality.normalized_entropy != early.normalized_entropy
    assert metrics["validation_normalized_entropy"] == min(result.entropies.values())
    assert (metrics["auc"], metrics["calibration"]) == (quality.auc, quality.calibration)
    assert found.metrics["normalized_entropy"].ci95 == quality.interval()
    assert {spec.name for spec in evaluator.metrics} <= metrics.keys()
    assert found.spent.train_examples == result.examples + more
    assert found.spent.eval_examples == result.evaluated + 300
    read = load_ranker(tmp_path / "trial").model
    assert task.quality(read, "test").normalized_entropy == quality.normalized_entropy
    kept = load_file(tmp_path / found.artifacts["losses"])["losses"]
    assert kept.tolist() == quality.losses.tolist()
    again = evaluator.measure(architecture, context(tmp_path / "again", seed=7))
    assert values(again) == metrics


def test_known_rankers_are_measured_as_candidates_are(parts: Any, tmp_path: Path) -> None:
    known = parts.task.models["dlrm"]
    found = parts.evaluators["final"].measure(known.architecture, context(tmp_path))
    assert found.metrics["flops"].value == known.space.cost(known.architecture, "flops")
    assert found.notes["best_step"] <= found.notes["steps"]


def test_screening_with_inherited_weights(parts: Any, tmp_path: Path) -> None:
    task, architecture = parts.task, parts.space.sample(2)
    evaluator = parts.evaluators["screen"]
    short = evaluator.measure(architecture, context(tmp_path))  # nothing to inherit: a short training stands in
    assert short.spent.train_examples == round(task.config.short_epochs * task.data.steps("train")) * task.config.batch
    supernet = task.supernet(parts.space)
    task.adopt(supernet)
    try:
        found = evaluator.measure(architecture, context(tmp_path))
    finally:
        task.adopt(None)
    quality = task.quality(supernet.extract(architecture), "validation")
    assert found.metrics["validation_normalized_entropy"].value == pytest.approx(quality.normalized_entropy)
    assert found.spent.train_examples == 0
    assert found.spent.eval_examples == quality.rows
    assert {spec.name for spec in evaluator.metrics} == found.metrics.keys() == short.metrics.keys()


@pytest.mark.parametrize("final", [False, True])
def test_shared_weights_with_held_tables_come_back_from_their_file(final: bool, parts: Any, tmp_path: Path) -> None:
    task = parts.task
    paths = parts.space.sample_many(3, 0)

    def trained(steps: range, begin: Path | None = None) -> CoTraining:
        made = CoTraining(task.supernet(parts.space), task, 0.01, 4)
        if begin is not None:
            made.load(begin)
        for step in steps:
            made.step(paths[step % 3], step)
        return made

    ended = 4 if final else 2
    first = trained(range(ended))
    first.save(tmp_path / "shared.safetensors", final)
    again = trained(range(ended, 4), tmp_path / "shared.safetensors")
    whole = trained(range(4))
    for (name, one), other in zip(
        whole.supernet.weights.named_parameters(), again.supernet.weights.parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_stop_is_obeyed_and_what_was_spent_is_told(parts: Any, tmp_path: Path) -> None:
    steps: list[int] = []
    place = context(
        tmp_path, should_stop=lambda: len(steps) >= 2, progress=lambda done, total, note: steps.append(done)
    )
    with pytest.raises(StopRequested):
        parts.evaluators["final"].measure(parts.space.sample(0), place)
    assert place.spent.train_examples == 2 * parts.task.config.batch


def test_online_training_notes_its_progressive_validation(tmp_path: Path, parts: Any) -> None:
    online = ranking_parts(tmp_path, "task.one_pass=true")
    found = online.evaluators["final"].measure(online.space.sample(1), context(tmp_path))
    assert found.spent.train_examples == 1200
    assert found.notes["best_step"] == found.notes["steps"] == 5
    assert found.notes["progressive"] > 0


def test_the_smallest_search_ends_with_a_paired_comparison(tmp_path: Path, parts: Any) -> None:
    result = rankitect.search(
        [*SMALL, "controller=random", "controller.samples=1", "controller.bands=2"],
        output_dir=tmp_path / "run", quiet=True, report={"tensorboard": False},
    )  # fmt: skip
    assert result.ended == "finished"
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["objectives"][0]["held_out"] == "normalized_entropy"
    assert {b["name"] for b in summary["baselines"]} == {"dlrm", "lr"}
    assert summary["ledger"]["train_tokens"] == 0 < summary["ledger"]["train_examples"]
    first = summary["pareto"][0]["artifacts"]
    load_ranker((result.folder / first["weights"]).parent)
    page = (result.folder / "report" / "report.md").read_text()
    assert "Normalized entropy" in page
    assert "examples trained and evaluated" in page
    assert "tokens trained" not in page


@measure("min", unit="weight")
def largest_weight(model, task, times: float = 1.0):
    """The largest weight of a ranker: a measure of a user's own."""
    return times * max(float(weight.abs().max()) for weight in model.parameters())


def test_a_function_of_ones_own_is_a_metric_of_every_ranker(tmp_path: Path) -> None:
    result = rankitect.search(
        ["space=ranking_engineered", "controller=random", "task=ranking", "preset=smoke", "report.page=false"],
        measures={"weight": {"target": "tests.evaluators.test_ranking_evaluators.largest_weight", "times": 2}},
        evaluator={"objectives": ["validation_normalized_entropy", "weight"]},
        controller={"samples": 2, "bands": 1},
        task={"baselines": ["lr"]},
        allowed_packages=["rankitect", "tests"],
        output_dir=str(tmp_path / "run"),
    )
    summary = result.summary
    assert [o.name for o in summary.objectives] == ["validation_normalized_entropy", "weight"]
    assert all(model.metrics["weight"].value > 0 for model in (*summary.baselines, *summary.pareto))
