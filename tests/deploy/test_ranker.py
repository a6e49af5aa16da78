"""Rankers as programs: the part after the lookups, equal to the model's own outputs."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from rankitect.blocks import Linear
from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.deploy.devices import HostDevice
from rankitect.deploy.ranker import CARD, PROGRAM, dense_part, export_ranker
from rankitect.errors import SpaceError
from rankitect.models.plan import Plan
from rankitect.models.supernet import build
from rankitect.search_spaces.ranking_points import baseline

FEATURES = Features(("age", "price"), (CategoricalFeature("user", 50), CategoricalFeature("item", 20)))


def ranker(name):
    return build(*baseline(name, FEATURES, embedding=8, hidden=(16,), bottom=(8,)), 0).eval()


def examples(n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, generator=generator), torch.randint(0, 20, (n, 2), generator=generator)


@pytest.mark.parametrize("name", ["dlrm", "deepfm", "dcnv2", "finalmlp", "autoint"])
def test_the_dense_part_gives_what_the_model_gives(name):
    model, given = ranker(name), examples(7)
    part = dense_part(model)
    assert not any(step.tables for step in part.plan.steps)
    with torch.no_grad():
        (found,) = part.call(*given)(*part.inputs(*given))
        torch.testing.assert_close(found, model(*given))


def test_programs_of_two_batch_sizes(tmp_path):
    pytest.importorskip("executorch")
    model = ranker("dlrm")
    labels = torch.arange(100) % 2
    files = export_ranker(tmp_path, model, examples(100), labels=labels)
    card = json.loads((tmp_path / CARD).read_text())
    assert {(tmp_path / name).is_file() for name in files.values()} == {True}
    assert max(card["checked"]["errors"].values()) < 1e-4
    with torch.no_grad():
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(*examples(100))[:, 0], labels.float())
    assert card["quality"]["model"] == pytest.approx(float(loss) / math.log(2), rel=1e-5)
    assert card["quality"]["program"] == pytest.approx(card["quality"]["model"], rel=1e-4)
    assert (card["quality"]["metric"], card["quality"]["amount"]) == ("normalized entropy", 100)
    shapes = {name: [i["shape"][0] for i in inputs] for name, inputs in card["methods"].items()}
    assert shapes == {"batch_1": [1, 1], "batch_64": [64, 64]}
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(tmp_path / PROGRAM).load_method("batch_64")
    given = examples(64)
    found = method.execute(list(dense_part(model).inputs(*given)))[0]
    torch.testing.assert_close(found, model(*given), rtol=1e-4, atol=1e-5)


def test_a_ranker_in_few_bits_is_exported_as_it_is(tmp_path):
    pytest.importorskip("executorch")
    space, architecture = baseline("dlrm", FEATURES, embedding=8, hidden=(32,), bottom=(8,))
    few = {"bits": 8, "act_bits": 8}
    blocks = {n.path: n.block for n in space.graph.nodes if isinstance(n.block, Linear)}
    space = space.with_blocks({path: dataclasses.replace(block, **few) for path, block in blocks.items()})
    model = build(space, architecture, 0).eval()
    labels = torch.arange(100) % 2
    export_ranker(tmp_path, model, examples(100), labels=labels, batches=(64,))
    card = json.loads((tmp_path / CARD).read_text())
    assert (card["precision"], card["quantized_share"]) == ("8da8w", 1.0)
    quality = card["quality"]
    assert quality["program"] == pytest.approx(quality["model"], rel=1e-3)
    with torch.no_grad():
        plain = model.in_floats()(*examples(100))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(plain, labels.float())
    assert quality["unrounded"] == pytest.approx(float(loss) / math.log(2), rel=1e-5)
    assert quality["unrounded"] != quality["model"]
    assert quality["floats"] is quality["change"] is None


def test_a_ranker_that_is_lookups_only_has_no_program():
    model = ranker("dlrm")
    model.plan = Plan(model.plan.inputs, tuple(s for s in model.plan.steps if s.tables), model.plan.outputs)
    with pytest.raises(SpaceError, match="nothing follows"):
        dense_part(model)


@pytest.mark.slow
def test_a_device_writes_program_and_latency(tmp_path, monkeypatch):
    pytest.importorskip("executorch")
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))
    device = HostDevice(HostDevice.Config(prompt=8, context=16, seconds=0.5))
    files = device.export_ranker(tmp_path / "out", ranker("finalmlp"), examples(1))
    assert set(files) == {"program", "program_card", "latency"}
    latencies = json.loads((tmp_path / "out" / "latency.json").read_text())["latencies"]
    assert all(latencies[f"batch_{n}_ms"]["measured"]["p50"] > 0 for n in (1, 64))
