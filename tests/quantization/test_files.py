"""Files of quantized models: a candidate computes as the model does, and files that hold floats hold rounded ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import DeployError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate import load_candidate, save_candidate
from rankitect.models.candidate.gguf import load_gguf_candidate, save_gguf
from rankitect.models.checkpoints import DecoderConfig, random_checkpoint
from rankitect.models.rounded import in_rounded_floats
from rankitect.models.supernet import Standalone
from rankitect.quantization.settings import QuantizeConfig
from rankitect.quantization.spaces import quantized_space
from rankitect.quantization.weights import quantize_weights, with_numerics_of
from rankitect.recipes.export import Export
from rankitect.search_spaces.mobile_llm import from_backbone

CONFIG = DecoderConfig(vocab=300, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, ffn=64, context=64)
IDS = torch.randint(0, CONFIG.vocab, (2, 24), generator=torch.Generator().manual_seed(3))
Quantized = tuple[SearchSpace, Architecture, Standalone]


@pytest.fixture(params=["rtn", "gptq"], scope="module")
def quantized(request: pytest.FixtureRequest) -> Quantized:
    """A model of 4 bits with a layer that is narrower than the other."""
    space = from_backbone(CONFIG, context=32, ffn_step=32)
    architecture = space.architecture({**largest(space).choices, "layers.1.ffn": 32})
    model = Backbone(random_checkpoint(CONFIG, 0), space).supernet.extract(architecture)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)
    config = QuantizeConfig(method=request.param, group=0, act_bits=32, calibration_tokens=256)
    changed = quantized_space(space, config, "minmax" if request.param == "rtn" else "stored")
    rounded = with_numerics_of(changed, architecture, model).eval()
    if request.param != "rtn":
        quantize_weights(changed, rounded, config, torch.randint(0, CONFIG.vocab, (8, 32)))
    return changed, architecture, rounded


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(IDS)
    return result


def test_rounded_floats_compute_what_the_model_does(quantized: Quantized) -> None:
    space, architecture, model = quantized
    plain_space, plain = in_rounded_floats(space, architecture, model)
    assert plain.plan.is_float
    assert "act_bits" not in plain_space.to_json()
    torch.testing.assert_close(logits(plain), logits(model))
    assert in_rounded_floats(plain_space, architecture, plain) == (plain_space, plain)


def test_a_candidate_and_its_folder_for_transformers_compute_what_the_model_does(
    tmp_path: Path, quantized: Quantized
) -> None:
    space, architecture, model = quantized
    save_candidate(tmp_path, space, architecture, model, ByteTokenizer(), config=CONFIG)
    candidate = load_candidate(tmp_path)
    assert torch.equal(logits(candidate.model), logits(model))
    again = load_candidate(tmp_path / "hf")
    torch.testing.assert_close(logits(again.model), logits(model))


def test_a_gguf_file_holds_the_rounded_weights(tmp_path: Path, quantized: Quantized) -> None:
    pytest.importorskip("gguf")
    space, architecture, model = quantized
    path = tmp_path / "model.gguf"
    save_gguf(path, space, architecture, model, ByteTokenizer(), config=CONFIG, precision="float32")
    torch.testing.assert_close(logits(load_gguf_candidate(path).model), logits(model))


def test_bits_that_the_runtime_lacks_are_refused_before_any_work() -> None:
    space = from_backbone(replace(CONFIG, head_dim=32), context=32, ffn_step=32)
    stage = Export(Export.Config(), None)  # type: ignore[arg-type]
    good = QuantizeConfig(method="rtn", group=32)
    assert stage.space_after(quantized_space(space, good, "minmax")).name == space.name
    for changed, message in (
        ({"bits": 3}, "weight 'q', cannot be exported"),
        ({"group": 16}, "weight 'q', cannot be exported"),
        ({"act_bits": 4}, "weight 'q', cannot be exported"),
        ({"cache_bits": 8}, "cannot be exported"),
        ({"embedding_bits": 2}, "embed, weight 'weight', cannot be exported"),
    ):
        settings = good.model_copy(update=changed)
        with pytest.raises(DeployError, match=message):
            stage.space_after(quantized_space(space, settings, "minmax"))
