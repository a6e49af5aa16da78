"""Evaluators of language models: what they report equals what a direct computation gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.contracts import Measurement, Spent, StopRequested, TrialContext
from tests.tasks.language.tiny import own_cache, parts_of


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("evaluators")
    with own_cache(folder / "cache"):
        yield parts_of(
            folder, "controller=random", "recipe.heal.tokens=4096", "recipe.heal.lr=0.001", "recipe.heal.k=null"
        )


def context(folder: Path, seed: int = 0, **more: Any) -> TrialContext:
    place = folder / "trial"
    place.mkdir(parents=True, exist_ok=True)
    return TrialContext(folder, place, seed, **more)


def smaller(parts: Any) -> Any:
    return parts.space.sample(3, **{"layers:flops": (0.5 * whole_flops(parts), 0.8 * whole_flops(parts))})


def whole_flops(parts: Any) -> float:
    return float(parts.space.cost(parts.task.reference, "flops", "layers"))


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric.value for name, metric in measurement.metrics.items()}


def perplexity(parts: Any, model: torch.nn.Module, split: str, windows: int) -> float:
    """Directly: the mean negative log-likelihood of every next token, exponentiated."""
    text = parts.task.data.text.split(split)
    total = text.windows(parts.task.context)
    nats, count = 0.0, 0
    with torch.no_grad():
        for at in [i * total // windows for i in range(min(windows, total))]:
            ids = torch.from_numpy(text.read([at], parts.task.context)).long()
            logp = model(ids[:, :-1]).double().log_softmax(-1)
            nats -= float(logp.gather(-1, ids[:, 1:, None]).sum())
            count += ids.shape[1] - 1
    return math.exp(nats / count)


def test_screening_equals_a_direct_computation(parts: Any, tmp_path: Path) -> None:
    architecture = smaller(parts)
    found = parts.evaluators["screen"].measure(architecture, context(tmp_path))
    model = parts.task.backbone.inherit(architecture)
    expected = perplexity(parts, model, "search", parts.task.config.search_windows)
    assert found.metrics["perplexity"].value == pytest.approx(expected, rel=1e-4)
    low, high = found.metrics["perplexity"].ci95
    assert low < expected < high
    assert found.spent.train_tokens == 0
    assert found.spent.eval_tokens == parts.task.config.search_windows * parts.task.context


def test_costs_equal_those_of_the_model(parts: Any, tmp_path: Path) -> None:
    architecture = smaller(parts)
    found = parts.evaluators["screen"].measure(architecture, context(tmp_path))
    model = parts.task.backbone.inherit(architecture)
    assert found.metrics["params"].value == sum(p.numel() for p in model.parameters())
    assert found.metrics["weight_bytes"].value == 4 * found.metrics["params"].value
    share = parts.space.cost(architecture, "flops", "layers") / whole_flops(parts)
    assert found.metrics["block_flops"].value == pytest.approx(share)
    assert found.metrics["decode_flops"].value < found.metrics["prefill_flops"].value
    promised = {spec.name for spec in parts.evaluators["screen"].metrics}
    assert promised == set(found.metrics)


def test_the_backbone_is_measured_as_it_is(parts: Any, tmp_path: Path) -> None:
    found = parts.evaluators["final"].measure(parts.task.reference, context(tmp_path))
    model = parts.task.backbone.supernet.activate(parts.task.reference)
    expected = perplexity(parts, model, "test", parts.task.config.test_windows)
    assert found.metrics["perplexity"].value == pytest.approx(expected, rel=1e-4)
    assert found.spent.train_tokens == 0
    assert found.spent.teacher_tokens == 0


def test_healing_brings_a_candidate_nearer_to_the_backbone(parts: Any, tmp_path: Path) -> None:
    from rankitect.training.text import train_on_text

    architecture = smaller(parts)
    held_out = parts.task.searching.objective("search")
    batches = [held_out.batch_at(step) for step in range(8)]

    def distance(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return sum(float(held_out.loss(model, batch)) for batch in batches)

    before = parts.task.backbone.inherit(architecture)
    after = parts.task.backbone.inherit(architecture)
    train_on_text(after, parts.task.searching.objective("train"), seed=0)
    assert distance(after) < distance(before)


def test_healing_is_deterministic_and_leaves_the_backbone_alone(parts: Any, tmp_path: Path) -> None:
    final, architecture = parts.evaluators["final"], smaller(parts)
    weights = {n: t.clone() for n, t in parts.task.backbone.supernet.state_dict().items()}
    one = final.measure(architecture, context(tmp_path / "one", seed=5))
    parts.evaluators["screen"].measure(parts.task.reference, context(tmp_path / "between"))
    two = final.measure(architecture, context(tmp_path / "two", seed=5))
    assert values(one) == values(two)
    assert one.notes == two.notes
    assert one.spent.train_tokens == one.spent.teacher_tokens == 4096
    flops = {a: parts.space.cost(a, "flops", B=1, T=32, P=0) for a in (architecture, parts.task.reference)}
    assert one.spent.train_flops == (3 * flops[architecture] + flops[parts.task.reference]) * 4096 // 32
    assert one.reused == Spent()
    assert replace(two.reused, seconds=0.0) == replace(two.spent, seconds=0.0, eval_tokens=0)
    for name, tensor in parts.task.backbone.supernet.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_what_is_saved_is_what_was_measured(parts: Any, tmp_path: Path) -> None:
    from rankitect.models.candidate import load_candidate

    architecture = smaller(parts)
    found = parts.evaluators["final"].measure(architecture, context(tmp_path))
    assert all((tmp_path / path).exists() for path in found.artifacts.values())
    loaded = load_candidate(tmp_path / "trial")
    assert loaded.architecture == architecture
    again = perplexity(parts, loaded.model, "test", parts.task.config.test_windows)
    assert found.metrics["perplexity"].value == pytest.approx(again, rel=1e-4)


def test_a_stop_ends_a_healing(parts: Any, tmp_path: Path) -> None:
    calls = iter(range(3))
    stopping = context(tmp_path, seed=11, should_stop=lambda: next(calls, None) is None)
    with pytest.raises(StopRequested):
        parts.evaluators["final"].measure(smaller(parts), stopping)


def test_a_search_is_charged_as_a_stage_of_its_recipe_is(parts: Any) -> None:
    task, architecture = parts.task, smaller(parts)
    stage = parts.stages["heal"]
    spent = task.training_spent(parts.space, architecture, 4096)
    assert spent == stage.training_spent(parts.space, architecture, 4096)
    assert spent.teacher_tokens == spent.train_tokens == 4096
    forward = parts.space.cost(task.reference, "flops", B=1, T=task.context, P=0)
    assert task.upfront.train_flops == int(3 * forward) * task.upfront.train_tokens // task.context
