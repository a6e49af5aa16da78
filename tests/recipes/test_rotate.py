"""The stage `rotate`: in floats the model is what it was, and what rounds it afterwards loses less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.blocks import GQA, Head, SwiGLU
from rankitect.errors import RankitectError
from rankitect.models.candidate import load_candidate
from rankitect.models.checkpoints import load_checkpoint
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.train import TrainingRun, train
from tests.tasks.language.tiny import own_cache

SMOKE = ["space=mobile_llm", "preset=smoke", "runner.threads=1", "runner.progress=false", "recipe=none"]
LEARNED = [
    "+recipe.rotate.stage=rotate",
    "+recipe.rotate.tokens=64",
    "+recipe.rotate.context=32",
    "+recipe.rotate.steps=20",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Iterator[None]:
    with own_cache(tmp_path / "cache"):
        yield


def trained(tmp_path: Path, name: str, *stages: str) -> TrainingRun:
    return train([*SMOKE, *stages, f"output_dir={tmp_path / name}"], quiet=True)


def metrics(run: TrainingRun) -> dict[str, Any]:
    assert run.summary is not None
    return {name: metric.value for name, metric in run.summary.metrics.items()}


def test_a_rotated_model_is_measured_saved_and_as_good_as_before(tmp_path: Path) -> None:
    plain = trained(tmp_path, "plain")
    rotated = trained(tmp_path, "rotated", *LEARNED)
    assert metrics(rotated)["perplexity"] == pytest.approx(metrics(plain)["perplexity"], rel=1e-4)
    candidate = load_candidate(rotated.folder / "model")
    blocks = [node.block for node in candidate.space.graph.nodes]
    assert all(block.hadamard for block in blocks if isinstance(block, GQA | SwiGLU))
    assert metrics(rotated)["params"] == sum(p.numel() for p in candidate.model.parameters())
    assert candidate.card["gguf"]["architecture"] is None
    assert "multiplies by a rotation while it runs" in candidate.card["huggingface"]["reason"]
    assert rotated.summary is not None
    assert rotated.summary.spent.train_tokens == 64
    steps = ["+recipe.rotate.objective=end_to_end", "+recipe.rotate.end_steps=3"]
    further = trained(tmp_path, "further", *LEARNED, *steps)
    assert further.summary is not None
    assert further.summary.spent.train_tokens == 64 + 3 * 32
    assert further.summary.spent.teacher_tokens == 2 * 32
    ends = load_candidate(further.folder / "model").model.state_dict()
    assert any(not torch.allclose(ends[name], weight) for name, weight in candidate.model.state_dict().items())
    again = trained(tmp_path, "again", *LEARNED)
    assert metrics(again) == metrics(rotated)
    assert again.summary is not None
    assert again.summary.computed.train_tokens == 0, "the rotated model is stored"


def test_merged_rotations_are_written_as_a_plain_llama(tmp_path: Path) -> None:
    options = ["kind=random", "r3=false", "r4=false", "head=untied"]
    warm = ["+recipe.warm.stage=train", "+recipe.warm.tokens=64", "+recipe.warm.context=32", "+recipe.warm.batch=1"]
    run = trained(tmp_path, "run", *warm, "+recipe.rotate.stage=rotate", *(f"+recipe.rotate.{o}" for o in options))
    candidate = load_candidate(run.folder / "model")
    assert type(candidate.space.graph.node("head").block) is Head
    assert candidate.card["huggingface"]["class"] == "LlamaForCausalLM"
    checkpoint = load_checkpoint(str(run.folder / "model" / "hf"))
    assert not checkpoint.config.tied_embeddings
    space = from_backbone(checkpoint.config)
    other = Supernet(space, tensors=space_tensors(checkpoint)).activate(
        space.architecture({path: choice.values[0] for path, choice in space.choices.items()})
    )
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(other(ids), candidate.model(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        (["+recipe.rotate.stage=rotate", "+recipe.again.stage=rotate"], "recipe.again: .* is rotated already"),
        (
            ["+recipe.rotate.stage=rotate", "+recipe.file.stage=gguf"],
            "recipe.file: .*multiplies by a rotation while it runs",
        ),
        (
            ["+recipe.quantize.stage=quantize", "+recipe.quantize.group=0", "+recipe.rotate.stage=rotate"],
            "recipe.rotate: .*scales .* are stored",
        ),
        (
            ["+recipe.rotate.stage=rotate", "+recipe.cut={stage: prune, ffn: 64}"],
            r"recipe.cut: the hidden units of layers.0.mlp are rotated",
        ),
        (
            ["+recipe.rotate={stage: rotate, act_bits: 16, r2: false}"],
            "recipe.rotate.* act_bits=16, cache_bits=4 and r2=false round nothing",
        ),
        (["+recipe.rotate.stage=rotate", "+recipe.rotate.tokens=10_000_000"], "recipe.rotate: .*too short"),
        (["+recipe.rotate={stage: rotate, context: 2048}"], "recipe.rotate.* context is 2048; .* tokens=1024 of all"),
    ],
)
def test_what_cannot_be_rotated_or_written_is_refused_before_any_work(
    tmp_path: Path, stages: list[str], text: str
) -> None:
    with pytest.raises(RankitectError, match=text):
        trained(tmp_path, "refused", *stages)
    assert not (tmp_path / "refused" / "model").exists()
