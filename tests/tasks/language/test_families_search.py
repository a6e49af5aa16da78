"""A search on a backbone of another family than Llama: calibrated, pruned, healed, and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rankitect
from rankitect.models.candidate.language import LanguageCandidate
from rankitect.models.checkpoints import save_huggingface
from rankitect.models.importance import Statistics
from tests.models import family_models
from tests.tasks.language.tiny import own_cache, parts_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 with wide feed-forwards, as uniform pruning needs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(family_models.SIZES, "intermediate_size", 128)
        patch.setitem(family_models.SIZES, "initializer_range", 0.05)
        model = family_models.model_of(family_models.config_of("gemma3-scaled"))
    return family_models.write(tmp_path_factory.mktemp("gemma"), model)


def test_a_gemma_is_searched_and_its_candidates_are_read_back(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    keys = ["space=mobile_llm", "space.ffn_step=8", "controller=dnas", "preset=smoke", f"task.backbone={folder}"]
    with own_cache(tmp_path / "cache"):
        result = rankitect.search(keys, output_dir=tmp_path / "run", quiet=True)
    (first, *_) = sorted((result.folder / "candidates").iterdir())
    candidate = rankitect.load_candidate(first)
    assert isinstance(candidate, LanguageCandidate)
    assert candidate.config.blocks.windows == (4, None, 4, None)
    assert candidate.generate("A dictionary", tokens=4)
    assert torch.isfinite(candidate.model(candidate.encode("A dictionary"))).all()


def test_what_was_kept_of_a_backbone_is_not_taken_for_one_that_computes_something_else(
    folder: Path, tmp_path: Path
) -> None:
    def fingerprint() -> str:
        return str(parts_of(tmp_path, "space.ffn_step=8", f"task.backbone={folder}").task.backbone_fingerprint)

    config = folder / "config.json"
    stated = json.loads(config.read_text())
    one = fingerprint()
    rotary = stated["rope_parameters"]
    rotary = {**rotary, "full_attention": {**rotary["full_attention"], "rope_theta": 777.0}}
    for other in ({"query_pre_attn_scalar": 99}, {"rms_norm_eps": 1e-3}, {"rope_parameters": rotary}):
        config.write_text(json.dumps({**stated, **other}))
        assert fingerprint() != one, other
    config.write_text(json.dumps(stated))
    assert fingerprint() == one


def test_a_kept_calibration_is_that_of_the_same_seed_and_has_the_gradients_that_the_criterion_needs(
    tmp_path: Path,
) -> None:
    def statistics(*keys: str) -> Statistics:
        tokens = ("task.calibration_tokens=256", "task.slope_tokens=0", "task.context=32")
        return parts_of(tmp_path, "task.backbone=random", *tokens, *keys).task.statistics

    with own_cache(tmp_path / "cache"):
        energy, again = statistics(), statistics()
        assert not energy.fisher
        assert torch.equal(energy.residual, again.residual)
        assert statistics("task.criterion=fisher").fisher
        checkpoint = parts_of(tmp_path, "task.backbone=random").task.checkpoint
        folder = tmp_path / "same weights"
        save_huggingface(folder, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
        one, other = (statistics(f"task.backbone={folder}", f"seed={seed}") for seed in (0, 1))
    assert not torch.equal(one.residual, other.residual), "another seed chooses other text"
