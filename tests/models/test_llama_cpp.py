"""llama.cpp runs pruned models as they are: equal logits, equal ids, equal text; and it makes them smaller."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.data.pre_tokenizers import PRE_TOKENIZERS, spelled
from rankitect.data.token_tables import tokenizer_from
from rankitect.data.tokenizer import Tokenizer, byte_level_bpe
from rankitect.graph import Architecture
from rankitect.models.backbone import Backbone
from rankitect.models.candidate import LanguageCandidate, load_backbone, load_candidate
from rankitect.models.candidate.gguf import load_gguf_candidate, save_gguf
from rankitect.models.checkpoints import load_checkpoint
from rankitect.models.families.blocks import PLAIN
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.data.test_token_tables import SENTENCE_PIECES, TRAINING, sentence_piece
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


FAMILY_BLOCKS: dict[str, dict[str, Any]] = {
    "qwen2": {"bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "all", "norms": "post"},
    "gemma3": {
        "qk_norm": "head", "score_scale": 32**-0.5, "norm_offset": 1.0, "norms": "both", "act": "gelu_tanh",
        "embed_scale": 8.0, "local_rope_base": 300.0, "windows": (8, None, 8),
    },
    "smollm3": {"rotary": (True, True, True, False)},
    "phi3": {},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILY_BLOCKS)
def test_models_of_every_family_are_those_of_llama_cpp(tmp_path: Path, family: str) -> None:
    changes: dict[str, Any] = {"n_layers": len(FAMILY_BLOCKS[family].get("rotary", (1, 2, 3)))}
    if family in ("qwen2", "olmo2", "phi3"):
        changes["head_dim"] = 16  # heads as wide as the model
    if family == "olmo2":
        changes["tied_embeddings"] = False
    of = backbone(family=family, blocks=dataclasses.replace(PLAIN, **FAMILY_BLOCKS[family]), **changes)
    architecture = variant(of, ffn=64)
    model = saved(tmp_path / "m.gguf", architecture, of, precision="float32")
    theirs = loaded(tmp_path / "m.gguf")
    assert theirs.metadata["general.architecture"] == family
    coarse = 1e-2 if family == "gemma3" else 5e-4  # llama.cpp takes GELU from a table in float16
    torch.testing.assert_close(logits_of(theirs, IDS), logits(model), rtol=1e-3, atol=coarse)
    assert torch.equal(logits(load_gguf_candidate(tmp_path / "m.gguf").model), logits(model))
    checkpoint = load_checkpoint(tmp_path / "m.gguf")
    again = Backbone(checkpoint, from_backbone(checkpoint.config, context=32, ffn_step=32))
    torch.testing.assert_close(logits(again.inherit(again.largest)), logits(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "phi3"])
def test_pruned_models_of_other_families_go_as_deci_where_that_computes_the_same(tmp_path: Path, family: str) -> None:
    of = backbone(family=family, head_dim=16, blocks=dataclasses.replace(PLAIN, **FAMILY_BLOCKS[family]))
    model = saved(
        tmp_path / "m.gguf", architecture := variant(of, ffn_0=32, group=1, attn_0="skip"), of, precision="float32"
    )
    theirs = loaded(tmp_path / "m.gguf")
    assert theirs.metadata["general.architecture"] == "deci"
    torch.testing.assert_close(logits_of(theirs, IDS), logits(model), rtol=1e-3, atol=5e-4)
    assert load_gguf_candidate(tmp_path / "m.gguf").architecture == architecture


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_pruned_from_a_pruned_model_runs_as_well(tmp_path: Path, seed: int) -> None:
    saved(tmp_path / "first.gguf", DIFFERENT, precision="float32")
    checkpoint = load_backbone(tmp_path / "first.gguf")
    patterns = ("full", "skip")
    space = from_backbone(checkpoint.config, context=32, widths=(32,), ffn_step=16, sharing=True, patterns=patterns)
    second = Backbone(checkpoint, space)
    model = saved(tmp_path / "second.gguf", space.sample(seed), second, precision="float32")
    theirs = loaded(tmp_path / "second.gguf")
    assert theirs.metadata["general.architecture"] == "deci"
    torch.testing.assert_close(logits_of(theirs, IDS), logits(model), rtol=1e-3, atol=5e-4)


TEXTS = [
    "It's 12345 o'clock; THEY'RE HelloWorld-ing   at 3.14159!\n\n\tx = y**2  # naïve café\r\n",
    "  two  spaces, 漢字 и кириллица 🙂 ",
    "<|end|> </s> <0x0A> is text",
]


def byte_level(pre: str) -> Tokenizer:
    """A byte-level tokenizer that was trained on text cut in a way."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = PRE_TOKENIZERS[pre].build()
    alphabet = list(spelled().values())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*TEXTS, *TRAINING], trainer)
    state = json.loads(backend.to_str())["model"]
    merges = [" ".join(merge) for merge in state["merges"]]
    vocab = {token: i for i, token in enumerate([*sorted(state["vocab"], key=state["vocab"].get), "<|end|>"])}
    control = [vocab["<|end|>"]]
    return byte_level_bpe(
        list(vocab), merges, pre=pre, source="test", control_ids=control, special_ids={"eos": control[0]}
    )


def tokenizers() -> dict[str, Callable[[], Tokenizer]]:
    kinds: dict[str, Callable[[], Tokenizer]] = {}
    for pre in ("gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "default"):
        kinds[pre] = partial(byte_level, pre)
    for kind, prefix, options in SENTENCE_PIECES:
        kinds[f"{kind} {prefix}"] = partial(
            lambda *given, **more: tokenizer_from(sentence_piece(*given, **more)[1], "test", {"bos": 1, "eos": 2}),
            kind, prefix, **options,
        )  # fmt: skip
    return kinds


TOKENIZERS = tokenizers()
WIDE = backbone(vocab=448, n_layers=1)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_becomes_the_same_ids(tmp_path: Path, name: str) -> None:
    own = TOKENIZERS[name]()
    architecture = variant(WIDE)
    config = WIDE.checkpoint.config
    save_gguf(tmp_path / "m.gguf", WIDE.space, architecture, WIDE.inherit(architecture), own, config=config)
    theirs, again = loaded(tmp_path / "m.gguf"), load_checkpoint(tmp_path / "m.gguf").tokenizer
    for text in TEXTS[: 2 if name.startswith("t5") else 3]:  # unigrams cut what spells a special token
        ids = own.encode(text).tolist()
        assert again.encode(text).tolist() == ids
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == ids, text
