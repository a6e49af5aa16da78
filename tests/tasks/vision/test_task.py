"""Images in a study: what the task promises to spaces, methods and evaluators, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import rankitect
from rankitect.config.parts import Parts, build
from rankitect.config.resolve import resolve
from rankitect.contracts import Calibrates, HasImages, SharesWeights, Task, offers
from rankitect.contracts.task import HasSearchLoss, SavesCandidates, TunesSharedTraining
from rankitect.errors import AssetError
from rankitect.models.candidate import ImageCandidate, load_candidate
from rankitect.models.supernet import build as build_model
from rankitect.tasks.vision.scaled import scaled, scaled_baselines
from rankitect.tasks.vision.task import Vision
from tests.tasks.language.tiny import own_cache

SPACE = """
# @package _global_
defaults:
  - override /task: vision
space:
  name: pixels
  target: tests.tasks.vision.tiny.Pixels
"""
ALLOWED = ["rankitect", "tests"]


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "space").mkdir()
    (folder / "space" / "pixels.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Parts:
    given = ["space=pixels", "preset=smoke", "controller=random", "allowed_packages=[rankitect,tests]"]
    return build(resolve(given, configs), tmp_path_factory.mktemp("run"), lambda text: None, measuring=True)


@pytest.fixture(scope="module")
def task(parts: Parts) -> Vision:
    assert isinstance(parts.task, Vision)
    return parts.task


def test_the_task_offers_what_methods_ask_for(task: Vision) -> None:
    for capability in (Task, HasImages, Calibrates, SharesWeights, HasSearchLoss, SavesCandidates, TunesSharedTraining):
        assert offers(task, capability), capability
    assert task.image_shape == (3, 16, 16)
    assert len(task.classes) == 4


def test_images_for_statistics_are_plain_training_images_of_mixed_classes(task: Vision) -> None:
    batches = [images for (images,) in task.calibration_batches(300)]
    again = [images for (images,) in task.calibration_batches(300)]
    assert [len(images) for images in batches] == [256], "batches of one size, of the 480 images that there are"
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert len(list(task.calibration_batches(10**6))) == 1
    data = task.data.data
    labels = data.stored.labels[task.data.shuffled("train")[:64]]
    assert np.bincount(labels).min() > 5, "not in the order of the classes"


def test_quality_is_of_the_split_and_its_sample(task: Vision, parts: Parts) -> None:
    space = parts.graph_space
    model = build_model(space, space.sample(0), 0).train()
    whole = task.quality(model, "test")
    assert whole.amount == len(task.data.data.places("test"))
    assert model.training, "the model keeps its mode"
    part = task.quality(model, "test", sample=20)
    assert part.amount == 20
    assert set(part.losses.tolist()) < set(whole.losses.tolist())
    images = torch.cat([x for x, _ in task.data.images_at(task.data.sampled("test", None), 1000)])
    labels = torch.from_numpy(whole.labels)
    expected = torch.nn.functional.cross_entropy(model.eval()(images), labels, reduction="none").detach().numpy()
    assert np.allclose(whole.losses, expected, atol=1e-5)
    assert task.loss(model, task.batch_at("train", 0)).requires_grad


def test_a_candidate_is_read_back_with_all_that_turns_images_into_classes(
    task: Vision, parts: Parts, tmp_path: Path
) -> None:
    space = parts.graph_space
    architecture = space.sample(1)
    model = build_model(space, architecture, 0).eval()
    task.save_candidate(tmp_path / "c", architecture, model)
    candidate = load_candidate(tmp_path / "c", allowed_packages=ALLOWED)
    assert isinstance(candidate, ImageCandidate)
    assert candidate.classes == task.classes
    pixels, _ = task.data.data.read(task.data.data.places("test")[:3])
    (images, _), *_ = task.data.images_at(task.data.data.places("test")[:3], 3)
    scores = candidate.score(list(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))))
    with torch.inference_mode():
        assert np.allclose(scores, model(images).softmax(1).numpy(), atol=1e-5)
    about = json.loads((tmp_path / "c" / "images.json").read_text())
    for change, message in [
        ({"classes": about["classes"][:3]}, "3 classes, and the model gives"),
        ({"shape": [3, 16, 8]}, "images are"),
        ({"mean": [0.5]}, "mean and deviation have a value for each"),
        ({"extra": 1}, "extra"),
    ]:
        (tmp_path / "c" / "images.json").write_text(json.dumps({**about, **change}))
        card = json.loads((tmp_path / "c" / "candidate.json").read_text())
        del card["files"]["images.json"]
        from rankitect.data.files import file_sha256

        file = tmp_path / "c" / "images.json"
        card["files"]["images.json"] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        (tmp_path / "c" / "candidate.json").write_text(json.dumps(card))
        with pytest.raises(AssetError, match=message):
            load_candidate(tmp_path / "c", allowed_packages=ALLOWED)


def test_baselines_are_the_largest_network_and_networks_scaled_alike(task: Vision, parts: Parts) -> None:
    space = parts.graph_space
    family = list(scaled(space, task.reference))
    assert len(family) > 2
    costs = [space.cost(one, "flops") for one in family]
    assert costs == sorted(costs)
    assert family[-1] == task.reference
    largest, half = scaled_baselines(space, task.reference, [0.5])
    assert (largest.name, largest.reference) == ("largest", True)
    share = space.cost(half.architecture, "flops") / space.cost(task.reference, "flops")
    assert half.name == f"uniform {share:.0%}"
    assert abs(share - 0.5) == min(abs(cost / costs[-1] - 0.5) for cost in costs)


def test_a_search_compares_its_candidates_image_by_image(tmp_path: Path, configs: Path) -> None:
    result = rankitect.search(
        ["space=pixels", "preset=smoke", "controller=random"],
        config_dir=configs,
        controller={"samples": 2, "bands": 2},
        evaluator={"screen": None, "final": {"steps": 20}},
        task={"augment": {"cutout": 4}},
        allowed_packages=ALLOWED,
        output_dir=str(tmp_path / "run"),
        quiet=True,
    )
    best = result.summary.pareto[0]
    assert best.metrics["cross_entropy"].interval is not None
    assert {"accuracy", "calibration_error", "flops", "activation_bytes"} <= set(best.metrics)
    answers = json.loads((tmp_path / "run" / "answers.json").read_text())
    assert set(answers) == {"cross_entropy", "accuracy"}
    assert all(len(seeds[0]) == 60 for seeds in answers["accuracy"]["models"].values())
    assert result.report.exists()
