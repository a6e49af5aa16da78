"""Convolutions without their norms compute what they did, and so do programs of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rankitect.blocks import AvgPool, BatchNorm, Conv2d, GlobalPool, Linear
from rankitect.deploy.images import export_classifier
from rankitect.deploy.quality import classifier_quality
from rankitect.deploy.ranker import dense_part
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.folding import folded
from rankitect.models.statistics import recalibrate
from rankitect.models.supernet import Standalone, Supernet
from rankitect.search_spaces.nb201 import nb201
from rankitect.search_spaces.ofa_mobilenet import ofa_mobilenet
from rankitect.search_spaces.ofa_resnet import ofa_resnet

SHAPE = (3, 10, 8)


def trained(space: SearchSpace, seed: int) -> Standalone:
    model, draw = Supernet(space, seed=1).extract(space.sample(seed)), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor += 0.3 * torch.rand(tensor.shape, generator=draw)
    recalibrate(model, [(torch.randn(16, *SHAPE, generator=draw),)])
    return model.eval()


def norms_behind_anything() -> SearchSpace:
    """Norms of an image's channels, of vectors, and behind convolutions that share their weights."""
    g = Graph("norms")
    x = BatchNorm()(g.input("image", B, *SHAPE), name="first")
    x = Conv2d(3)(x, name="conv")
    x = BatchNorm("relu")(x, name="norm")
    x = BatchNorm()(Conv2d(3)(x, name="again", weights="conv"), name="other_norm")
    x = BatchNorm("relu")(AvgPool(2, 2)(x, name="halved"), name="pooled_norm")
    x = BatchNorm("relu")(Linear(6)(GlobalPool()(x, name="pool"), name="mix"), name="vector_norm")
    g.out = Linear(3)(x, name="classifier")
    return SearchSpace(g)


SPACES = {
    "norms": norms_behind_anything,
    "mobilenet": lambda: ofa_mobilenet(SHAPE, 3, scale=0.25, depths=(2, 1), kernels=(5, 3), expand=(3, 2)),
    "resnet": lambda: ofa_resnet(SHAPE, 3, widths=(8, 16), depths=((2, 1), (2, 1))),
    "nb201": lambda: nb201(SHAPE, 3, channels=4, cells=1),
}


@pytest.mark.parametrize("name", list(SPACES))
def test_a_folded_model_has_no_norms_and_gives_the_same(name: str) -> None:
    space, x = SPACES[name](), torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        model = trained(space, seed)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        plain = folded(model)
        assert not any(isinstance(step.block, BatchNorm) for step in plain.plan.steps)
        assert not list(plain.buffers())
        with torch.no_grad():
            wanted = model(x)
            torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-5 * float(1 + wanted.abs().max()))
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_program_is_judged_a_few_images_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Seen(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return images.flatten(1)[:, :3]

    images, labels = torch.randn(150, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(150) % 3
    part = dense_part(folded(trained(SPACES["nb201"](), 0)))
    monkeypatch.setattr("rankitect.deploy.ranker.run_plan", None)  # nothing is looked up, so that nothing has to run
    assert torch.equal(part.inputs(images)[0], images)
    monkeypatch.setattr("rankitect.deploy.quality._outputs", lambda *given: images.flatten(1)[:, :3])
    quality = classifier_quality(tmp_path, "batch_64", 64, part, Seen(), images, labels)
    assert (quality.amount, quality.difference, quality.agreement) == (150, 0.0, 1.0)
    assert sum(sizes) == 150
    assert max(sizes) <= 64


@pytest.mark.parametrize("name", ["mobilenet", "norms"])
def test_a_classifiers_program_gives_what_it_gives(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch")
    monkeypatch.setattr("rankitect.deploy.quality.TOGETHER", 2)
    model, draw = trained(SPACES[name](), 1), torch.Generator().manual_seed(0)
    images, labels = torch.randn(3, *SHAPE, generator=draw), torch.tensor([0, 1, 2])
    written = export_classifier(tmp_path, model, images, labels, batches=(2,))  # the last call is filled up
    card = json.loads((tmp_path / written["program_card"]).read_text())
    assert card["methods"] == {"batch_2": [{"name": "image", "shape": [2, *SHAPE], "lookup": False}]}
    assert card["quality"]["metric"] == "cross-entropy"
    assert card["quality"]["amount"] == 3
    assert card["quality"]["agreement"] == 1.0
    assert card["quality"]["difference"] < 1e-3
    assert card["delegated"]["share"] > 0.9, card["delegated"]
    assert card["bytes"] == (tmp_path / written["program"]).stat().st_size
