"""llama.cpp runs pruned models as they are: equal logits, equal ids, equal text; and it makes them smaller."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.graph import Architecture
from rankitect.models.candidate import LanguageCandidate, load_candidate
from rankitect.models.candidate.gguf import load_gguf_candidate
from rankitect.models.families.blocks import PLAIN
from tests.models.llama_cpp_runs import greedy, loaded, logits_of
from tests.models.test_gguf_candidates import (
    DIFFERENT,
    FIRST_SKIPS,
    IDS,
    LLAMA3,
    UNIFORM,
    backbone,
    logits,
    saved,
    variant,
)

pytest.importorskip("llama_cpp")


@pytest.mark.parametrize(
    "architecture",
    [UNIFORM, DIFFERENT, FIRST_SKIPS, variant(attn="skip", ffn_0=32)],
    ids=["uniform", "different", "first skips", "no attention"],
)
def test_logits_and_greedy_text_are_those_of_the_candidate(tmp_path: Path, architecture: Architecture) -> None:
    model = saved(tmp_path / "m.gguf", architecture, precision="float32")
    theirs = loaded(tmp_path / "m.gguf")
    torch.testing.assert_close(logits_of(theirs, IDS), logits(model), rtol=1e-3, atol=5e-4)
    candidate = load_candidate(tmp_path / "m.gguf")
    assert isinstance(candidate, LanguageCandidate)
    prompt = "the quick brown fox"
    ids = candidate.encode(prompt)[0].tolist()
    assert theirs.tokenize(prompt.encode(), add_bos=False, special=False) == ids
    assert candidate.tokenizer.decode(greedy(theirs, ids, 12, (259, 260))) == candidate.generate(prompt, 12)


@pytest.mark.parametrize(
    "blocks",
    [
        {"rope_scaling": LLAMA3},
        {"rope_scaling": ("linear", 4.0)},
        {"rope_scaling": ("yarn", 4.0, 16, 32.0, 1.0, 1.2, True)},
    ],
    ids=["llama3", "linear", "yarn"],
)
def test_scaled_positions_are_llama_cpps(tmp_path: Path, blocks: dict[str, Any]) -> None:
    of = backbone(blocks=dataclasses.replace(PLAIN, **blocks))
    for number, architecture in enumerate([variant(of, ffn=32), variant(of, ffn_0=32)]):
        model = saved(tmp_path / f"{number}.gguf", architecture, of, precision="float32")
        torch.testing.assert_close(
            logits_of(loaded(tmp_path / f"{number}.gguf"), IDS), logits(model), rtol=1e-3, atol=5e-4
        )


@pytest.mark.parametrize("precision", ["q8_0", "q4_k_m"])
def test_models_in_few_bits_are_smaller_and_run(tmp_path: Path, precision: str) -> None:
    of = backbone(d_model=256, ffn=512)
    architecture = variant(of, width=256, ffn_0=256, attn_1="skip")
    model = saved(tmp_path / "whole.gguf", architecture, of, precision="float32")
    saved(tmp_path / "few.gguf", architecture, of, precision=precision)
    sizes = [(tmp_path / name).stat().st_size for name in ("whole.gguf", "few.gguf")]
    assert sizes[1] < sizes[0] * (0.45 if precision == "q8_0" else 0.4)
    theirs, again = (
        logits_of(loaded(tmp_path / "few.gguf"), IDS),
        logits(load_gguf_candidate(tmp_path / "few.gguf").model),
    )
    away = float((theirs - logits(model)).std())
    assert 0 < float((theirs - again).std()) < 0.8 * away, "what is read back is what llama.cpp computes with"
