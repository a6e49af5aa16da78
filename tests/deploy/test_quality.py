"""What is said of a program's quality, and when nothing can be said."""

from __future__ import annotations

import pytest
import torch

from rankitect.deploy.artifact import _on_cpu
from rankitect.deploy.quality import ProgramQuality
from tests.deploy import tiny
from tests.training.elsewhere import META, elsewhere


def auc(model: float, program: float, floats: float | None = None) -> ProgramQuality:
    return ProgramQuality("auc", model, program, 8, "exchanges", 1.0, 0.0, floats)


@pytest.mark.parametrize(
    ("quality", "worse"),
    [(auc(0.0, 0.5), False), (auc(0.5, 0.0), True), (auc(0.9, 0.9, floats=0.0), False), (auc(0.0, 0.0), False)],
)
def test_a_value_of_zero_is_a_value(quality: ProgramQuality, worse: bool) -> None:
    assert f"becomes {quality.program:.4g}" in str(quality)
    assert quality.worse is worse
    assert ProgramQuality.from_json(quality.to_json()) == quality


def test_unrounded_weights_are_no_model_in_floats() -> None:
    compared = ProgramQuality("perplexity", 20.0, 20.1, 384, "tokens", 0.99, 1e-3, 15.0)
    assert compared.change == pytest.approx(0.34)
    alone = compared.without_floats()
    assert (alone.floats, alone.unrounded, alone.change, alone.worse) == (None, 15.0, None, False)
    assert "perplexity 20 becomes 20.1; the model in floats is not known" in str(alone)


def test_a_card_of_before_unrounded_weights_were_told_apart_is_read() -> None:
    old = {**auc(0.8, 0.8, 0.9).to_json()}
    del old["unrounded"]
    assert ProgramQuality.from_json(old).floats == 0.9


def test_a_model_on_an_accelerator_is_exported_from_a_copy() -> None:
    model = tiny.model()
    assert _on_cpu(model) is model
    with elsewhere():
        there = tiny.model().to(META)
        here = _on_cpu(there)
    assert {p.device for p in there.parameters()} == {META}
    assert {p.device for p in here.parameters()} == {torch.device("cpu")}
