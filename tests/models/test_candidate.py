"""Candidates on disk: what is read is what was written, what is damaged says so, and transformers agrees."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import AssetError, ConfigError, DataError, SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate import Candidate, load_candidate, save_candidate
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint, random_checkpoint
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.supernet import Standalone
from rankitect.search_spaces.mobile_llm import from_backbone

TINY = DecoderConfig(
    vocab=300, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, ffn=48, rope_base=5000.0, context=64
)
DIGEST = "0" * 64
IDS = torch.randint(0, TINY.vocab, (2, 24), generator=torch.Generator().manual_seed(3))


def lively(config: DecoderConfig = TINY) -> DecoderCheckpoint:
    """Random weights large enough that a wrong rotation, norm or slice shows in the logits."""
    checkpoint = random_checkpoint(config, 0)
    noise = torch.Generator().manual_seed(1)
    for tensor in checkpoint.tensors.values():
        if tensor.ndim == 2:
            tensor.mul_(3)
        else:
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=noise))
    return checkpoint


BACKBONE = Backbone(lively(), from_backbone(TINY, context=32, widths=(24, 20), ffn_step=16, window=8, sharing=True))
SPACE = BACKBONE.space


def variant(space: SearchSpace = SPACE, base: Architecture | None = None, **changes: Any) -> Architecture:
    """The backbone with choices changed: `width=24`, or for all layers `ffn=32`, or for one `ffn_1=16`."""
    values = dict((base or largest(space)).choices)
    for path in space.choices:
        kind = path.split(".")[-1]
        if kind in changes:
            values[path] = changes[kind]
        elif path.startswith("layers.") and (one := f"{kind}_{path.split('.')[1]}") in changes:
            values[path] = changes[one]
        elif path not in values:
            values[path] = space.choices[path].values[0]
    return space.architecture(values)


def saved(folder: Path, architecture: Architecture, **options: Any) -> tuple[Standalone, dict[str, str]]:
    model = BACKBONE.inherit(architecture)
    return model, save_candidate(folder, SPACE, architecture, model, ByteTokenizer(), config=TINY, **options)


def logits(model: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(ids)


def transformers_logits(folder: Path, ids: torch.Tensor = IDS, code: bool = False) -> torch.Tensor:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
    with torch.no_grad():
        return model.eval()(ids).logits


MIXED = variant(ffn_0=16, attn_1="swa", attn_2="skip", group_0=1, runs_1=2)
UNIFORM = {
    "the backbone": variant(),
    "a dropped layer": variant(runs_1=0),
    "a smaller width": variant(width=24),
    "fewer query heads": variant(group=1),
    "fewer key/value heads": variant(kv_heads=1),
    "a narrower feed-forward": variant(ffn=16),
    "a layer run twice": variant(runs_0=2, runs_2=0),
    "all at once": variant(width=24, group=1, ffn=32, runs_0=0, runs_2=2),
    "a width that its heads do not divide": variant(width=20, kv_heads=2, group=2, ffn=32, runs_0=0),
    "a window in every layer": variant(attn="swa", runs_2=0),
}


@pytest.mark.parametrize("architecture", [MIXED, variant(width=24, runs_0=0)], ids=["mixed", "uniform"])
def test_a_candidate_survives_the_disk_to_the_bit(tmp_path: Path, architecture: Architecture) -> None:
    model, files = saved(tmp_path / "c", architecture, notes={"seed": 3, "healed": {"tokens": 100}})
    assert all((tmp_path / "c" / path).exists() for path in files.values())
    found = load_candidate(tmp_path / "c")
    assert isinstance(found, Candidate)
    assert found.architecture == architecture
    assert found.config == TINY
    assert found.card["notes"] == {"seed": 3, "healed": {"tokens": 100}}
    assert torch.equal(logits(found.model), logits(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert list(found.tokenizer.encode("hé")) == list(ByteTokenizer().encode("hé"))
    assert found.space.cost(architecture, "flops") == SPACE.cost(architecture, "flops")


def test_the_card_states_sizes_and_costs(tmp_path: Path) -> None:
    model, _ = saved(tmp_path, MIXED)
    card = json.loads((tmp_path / "candidate.json").read_text())
    assert card["costs"]["params"] == {"value": sum(p.numel() for p in model.parameters()), "unit": "parameters"}
    assert card["costs"]["flops_decode"]["value"] < card["costs"]["flops"]["value"]
    assert card["fingerprint"] == MIXED.fingerprint
    assert card["gguf"]["architecture"] is None
    assert "layers.1 sees the last 8 tokens" in card["gguf"]["reason"]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"candidate.json", "hf", *card["files"]}, "nothing but the format's files is left behind"


def test_weights_have_readable_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    saved(tmp_path, MIXED)
    assert load_file(tmp_path / "weights.safetensors")["layers.0.mlp.gate"].shape == (16, 32)


@pytest.mark.parametrize("name", UNIFORM)
def test_transformers_agrees_where_layers_are_alike(tmp_path: Path, name: str) -> None:
    model, files = saved(tmp_path, UNIFORM[name])
    assert files["huggingface"] == "hf"
    torch.testing.assert_close(transformers_logits(tmp_path / "hf"), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        (variant(ffn_1=16), r"feed-forward width of layers\.0 is 48, of layers\.1 16"),
        (variant(attn_2="skip"), r"layers\.2 has no attention"),
        (
            variant(attn_1="swa"),
            "layers see different numbers of tokens, and those of the Mistral",
        ),
        (variant(group_1=1), r"layers\.1 has attention with 2 key/value heads of 1 query heads"),
        (variant(attn="skip"), "attention is skipped in every layer"),
        (variant(runs=0), "no layer is kept"),
    ],
    ids=["ffn", "skip", "swa", "group", "all-skip", "empty"],
)
def test_the_card_says_why_a_candidate_is_no_class_of_transformers(
    tmp_path: Path, architecture: Architecture, reason: str
) -> None:
    model, files = saved(tmp_path, architecture)
    found = load_candidate(tmp_path)
    said = found.card["huggingface"]
    assert re.search(reason, said["reason"])
    assert torch.equal(logits(found.model), logits(model))
    if reason == "no layer is kept":
        assert said["folder"] is said["class"] is None
        assert "huggingface" not in files
        assert not (tmp_path / "hf").exists()
    else:
        assert (said["folder"], files["huggingface"]) == ("hf", "hf")
        assert said["class"] in ("DeciLMForCausalLM", "RankitectForCausalLM")
        assert said["class"] in json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"]


def test_an_older_candidates_hugging_face_folder_does_not_stay(tmp_path: Path) -> None:
    saved(tmp_path, MIXED)
    assert (tmp_path / "hf" / "modeling_rankitect.py").is_file()
    saved(tmp_path, variant())
    assert not (tmp_path / "hf" / "modeling_rankitect.py").exists()
    saved(tmp_path, variant(), huggingface=False)
    assert not (tmp_path / "hf").exists()


def test_a_model_of_another_architecture_is_refused(tmp_path: Path) -> None:
    model = BACKBONE.inherit(variant(ffn_1=16))
    with pytest.raises(SpaceError, match=r"not of architecture .*layers\.1\.mlp\.gate is \[16, 32\], not \[48, 32\]"):
        save_candidate(tmp_path, SPACE, variant(), model, ByteTokenizer(), config=TINY)


def test_notes_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="notes must be plain data"):
        saved(tmp_path, variant(), notes={"model": object()})


@pytest.mark.parametrize("name", ["architecture.json", "space.json", "weights.safetensors", "tokenizer.json"])
def test_a_missing_truncated_or_altered_file_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path, MIXED)
    file = tmp_path / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match=rf"{name} is truncated or altered: {len(whole) // 2} bytes"):
        load_candidate(tmp_path)
    file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(AssetError, match=rf"{name} was altered: its SHA-256"):
        load_candidate(tmp_path)
    file.unlink()
    with pytest.raises(AssetError, match=f"has no {name}, which candidate.json lists"):
        load_candidate(tmp_path)


def test_a_folder_that_is_no_candidate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"has no candidate\.json"):
        load_candidate(tmp_path)


def recorded(folder: Path, name: str, content: bytes) -> None:
    """Change a file and let the card agree, as one who edits both would."""
    import hashlib

    (folder / name).write_bytes(content)
    card = json.loads((folder / "candidate.json").read_text())
    card["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "candidate.json").write_text(json.dumps(card))


def test_weights_that_do_not_fit_are_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save

    saved(tmp_path, MIXED)
    tensors = load_file(tmp_path / "weights.safetensors")
    recorded(tmp_path, "weights.safetensors", save({**tensors, "norm.weight": torch.ones(7)}))
    with pytest.raises(AssetError, match=r"norm\.weight is \[7\], not \[32\]"):
        load_candidate(tmp_path)
    tensors.pop("norm.weight")
    recorded(tmp_path, "weights.safetensors", save(tensors))
    with pytest.raises(AssetError, match=r"1 of \d+ weights are missing \(norm\.weight\)"):
        load_candidate(tmp_path)
    recorded(tmp_path, "weights.safetensors", save(tensors)[:100])
    with pytest.raises(AssetError, match="truncated or damaged"):
        load_candidate(tmp_path)


def test_mixed_files_of_two_candidates_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, MIXED)
    recorded(tmp_path, "architecture.json", variant().to_json().encode())
    with pytest.raises(AssetError, match="Files of two candidates are mixed"):
        load_candidate(tmp_path)
    recorded(tmp_path, "architecture.json", b'{"space": "other", "version": "1", "choices": {}}')
    with pytest.raises(AssetError, match="make no model"):
        load_candidate(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must hold a mapping"),
        ('{"schema": 1}', "is not of the form that is expected: fingerprint"),
        ('{"schema": 9}', "has schema 9"),
        (f'{{"schema": 1, "fingerprint": "{DIGEST}", "files": {{}}}}', r"lists no architecture\.json"),
        (
            f'{{"schema": 1, "fingerprint": "{DIGEST}", "files": {{"../x": {{"bytes": 1, "sha256": "{DIGEST}"}}}}}}',
            r"lists '\.\./x', which is no file of its folder",
        ),
    ],
)
def test_a_damaged_card_is_refused(tmp_path: Path, content: str, message: str) -> None:
    saved(tmp_path, MIXED)
    (tmp_path / "candidate.json").write_text(content)
    with pytest.raises(AssetError, match=message):
        load_candidate(tmp_path)


def test_a_space_with_code_from_elsewhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, MIXED)
    text = (tmp_path / "space.json").read_text().replace("rankitect.blocks.dense.Norm", "os.path.Norm")
    recorded(tmp_path, "space.json", text.encode())
    with pytest.raises(AssetError, match=r"not from an allowed package"):
        load_candidate(tmp_path)


@pytest.mark.slow
def test_real_weights_survive_and_transformers_agrees(tmp_path: Path) -> None:
    checkpoint = load_checkpoint("smollm2-135m")
    space = from_backbone(checkpoint.config)
    backbone = Backbone(checkpoint, space)
    architecture = variant(space, ffn=1024, runs_11=0, runs_20=0)
    model = backbone.inherit(architecture)
    save_candidate(tmp_path, space, architecture, model, checkpoint.tokenizer, config=checkpoint.config)
    found = load_candidate(tmp_path)
    ids = torch.as_tensor(found.tokenizer.encode("A dictionary maps keys to values.")).long()[None]
    expected = logits(model, ids)
    assert torch.equal(logits(found.model, ids), expected)
    torch.testing.assert_close(transformers_logits(tmp_path / "hf", ids), expected, rtol=1e-3, atol=1e-3)


# --- what is asked of a language model that was loaded ---------------------------------------------------------------
@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> LanguageCandidate:
    folder = tmp_path_factory.mktemp("language")
    saved(folder, largest(SPACE))
    candidate = load_candidate(folder)
    assert isinstance(candidate, LanguageCandidate)
    return candidate


@pytest.mark.parametrize("inputs", [[None], None, b"abc", [b"abc"], 5, [5], ["whole", 1.5], {"a text": 1}, {"a text"},
                                    pd.DataFrame({"a text": ["x"]}), [["nested"]]], ids=repr)  # fmt: skip
def test_what_is_no_text_is_not_scored(language: LanguageCandidate, inputs: Any) -> None:
    with pytest.raises(DataError, match=r"is of type \w+\. A text is a str|are of type \w+\. Give one text, or a list"):
        language.score(inputs)


def test_texts_come_in_whatever_holds_them(language: LanguageCandidate) -> None:
    texts = ["one text", "another text"]
    expected = language.score(texts)
    for inputs in (tuple(texts), iter(texts), np.array(texts), pd.Series(texts, index=[7, 3])):
        assert language.score(inputs) == expected  # type: ignore[arg-type]
    assert language.score(texts[0]) == expected[:1]


@pytest.mark.parametrize("tokens", [-1, 0, True, 2.0, "3", None, [4], 10**600 * -1], ids=lambda value: repr(value)[:9])
def test_as_many_tokens_are_generated_as_a_whole_number_says(language: LanguageCandidate, tokens: Any) -> None:
    with pytest.raises(ConfigError, match="allowed are whole numbers from 1") as error:
        language.generate("a prompt", tokens)
    assert len(str(error.value)) <= 500
    ids = language.encode("a prompt")
    with torch.no_grad():
        expected = int(language.model(ids)[0, -1].argmax())
    assert language.generate("a prompt", np.int64(1)) == language.tokenizer.decode([expected])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="None is of type NoneType"):
        language.generate(None)  # type: ignore[arg-type]


def test_text_that_grows_beyond_the_context_goes_on_from_its_last_tokens(language: LanguageCandidate) -> None:
    prompt, tokens = "p" * (TINY.context - 4), 9
    free = dataclasses.replace(language, usage=Usage())
    ids = free.encode(prompt)[0].tolist()
    for _ in range(tokens):
        ids.append(int(logits(free.model, torch.tensor([ids[-TINY.context :]]))[0, -1].argmax()))
    assert free.generate(prompt, tokens) == free.tokenizer.decode_after(ids[:-tokens], ids[-tokens:])


def test_texts_and_prompts_begin_with_the_first_token_where_the_backbone_was_trained_so(
    language: LanguageCandidate,
) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.special_ids = {"bos": 299}
    begun = dataclasses.replace(language, tokenizer=tokenizer, usage=Usage(settings={"add_bos_token": True}))
    first, text = torch.tensor([[299]]), "a text that is longer than the context " * 5
    ids = begun.encode(text)[0]
    nats = 0.0
    for part in ids.split(TINY.context):
        scores = logits(language.model, torch.cat([first, part[None, :-1]], dim=1))[0]
        nats += float(torch.nn.functional.cross_entropy(scores, part, reduction="sum"))
    (score,) = begun.score(text)
    assert (score.tokens, score.nats) == (len(ids), pytest.approx(nats, rel=1e-5))
    assert begun.score("a")[0].tokens == 1
    with pytest.raises(DataError, match="has one token: nothing to predict"):
        language.score("a")
    for prompt in ("a prompt", text):  # of a prompt beyond the context, the last tokens count
        kept = begun.encode(prompt)[:, -(TINY.context - 1) :]
        expected = int(logits(language.model, torch.cat([first, kept], dim=1))[0, -1].argmax())
        assert begun.generate(prompt, 1) == tokenizer.decode([expected])
