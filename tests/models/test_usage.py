"""How a backbone is used goes along with a candidate: chat templates, stop tokens, sampling defaults, licence."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest

from rankitect.data.members import member
from rankitect.data.tokenizer import ByteTokenizer, byte_level_bpe
from rankitect.errors import AssetError
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate import load_language_model, save_candidate
from rankitect.models.candidate.gguf import save_gguf
from rankitect.models.checkpoints import (
    DecoderCheckpoint,
    DecoderConfig,
    load_checkpoint,
    random_checkpoint,
    save_huggingface,
)
from rankitect.models.checkpoints.gguf_tokenizer import begins_by_default
from rankitect.models.checkpoints.gguf_writing import stops_left_out, usage_keys
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.test_checkpoints import write_gguf

TINY = DecoderConfig(vocab=300, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, ffn=16, context=64)
CHAT = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
TOOLS = "{{ tools }}"
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 48,
    "bos_token": "a",
    "eos_token": {"content": "b", "__type": "AddedToken"},
    "padding_side": "left",
    "auto_map": {"AutoTokenizer": ["code.py", None]},
}
GENERATION = {"bos_token_id": 97, "eos_token_id": [98, 99, 299], "temperature": 0.6, "top_p": 0.9, "do_sample": True}


BPE = byte_level_bpe(["a", "b", "ab"], ["a b"], pre="gpt-2", source="a test")


def folder_of(place: Path, **files: Any) -> Path:
    """A Hugging Face folder as others write it."""
    checkpoint = random_checkpoint(TINY, 0)
    save_huggingface(place, TINY, checkpoint.tensors, ByteTokenizer())
    texts = {
        "tokenizer_config.json": SETTINGS,
        "generation_config.json": GENERATION,
        "special_tokens_map.json": {"eos_token": "b"},
        "added_tokens.json": {"<think>": 298},
        "chat_template.jinja": CHAT,
        "README.md": "# A model\n",
        "LICENSE": "Do what you like.\n",
        "code.py": "raise SystemExit\n",
        **files,
    }
    for name, content in texts.items():
        if content is None:
            (place / name).unlink(missing_ok=True)
        else:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return place


def candidate_of(checkpoint: DecoderCheckpoint, place: Path) -> Path:
    space = from_backbone(checkpoint.config, context=32)
    backbone = Backbone(checkpoint, space)
    architecture = largest(space)
    save_candidate(
        place, space, architecture, backbone.inherit(architecture), checkpoint.tokenizer,
        config=checkpoint.config, usage=checkpoint.usage,
    )  # fmt: skip
    return place


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_everything_of_a_folder_but_weights_and_code_goes_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder_of(tmp_path / "hf", **{"additional_chat_templates/tools.jinja": TOOLS, "big.md": "x" * (5 << 20)})
    (tmp_path / "secret").write_text("not yours")
    (source / "NOTICE").symlink_to(tmp_path / "secret")
    with caplog.at_level(logging.WARNING, "rankitect"):
        checkpoint = load_checkpoint(source)
    (said,) = caplog.messages
    for name in (
        "auto_map",
        "code.py (code)",
        "big.md (5,242,880 bytes)",
        "NOTICE (a link out of the folder, or no file)",
    ):
        assert name in said
    place = candidate_of(checkpoint, tmp_path / "candidate")
    shutil.rmtree(source)
    for folder in (place, place / "hf"):
        for name in ("special_tokens_map.json", "added_tokens.json", "generation_config.json"):
            assert read(folder / name) == {
                "special_tokens_map.json": {"eos_token": "b"}, "added_tokens.json": {"<think>": 298},
                "generation_config.json": GENERATION,
            }[name]  # fmt: skip
        settings = read(folder / "tokenizer_config.json")
        assert settings.pop("chat_template") == [
            {"name": "default", "template": CHAT},
            {"name": "tools", "template": TOOLS},
        ]
        kept = {key: value for key, value in SETTINGS.items() if key != "auto_map"}
        assert {key: settings[key] for key in kept} == kept
        assert (folder / "chat_template.jinja").read_text() == CHAT
        assert (folder / "additional_chat_templates" / "tools.jinja").read_text() == TOOLS
        assert (folder / "backbone" / "LICENSE").read_text() == "Do what you like.\n"
        assert {f.name for f in (folder / "backbone").iterdir()} == {"LICENSE", "README.md", "config.json"}
    assert read(place / "hf" / "config.json")["eos_token_id"] == [98, 99, 299]
    candidate = load_language_model(place)
    assert candidate.usage.chat_template == CHAT
    assert candidate.usage.stop_ids == (98, 99, 299)
    assert candidate.usage.begin_id == 97
    assert candidate.usage.generation["temperature"] == 0.6
    assert candidate.usage.settings["model_max_length"] == 48


def test_transformers_uses_the_candidate_as_it_used_the_backbone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = folder_of(tmp_path / "hf")
    place = candidate_of(load_checkpoint(source), tmp_path / "candidate")
    chat = [{"role": "user", "content": "hi"}]
    theirs = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    for folder in (place, place / "hf"):
        ours = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        assert ours.apply_chat_template(chat, tokenize=False) == "hi<end>"
        assert (ours.model_max_length, ours.padding_side) == (48, "left")
        assert ours.special_tokens_map == theirs.special_tokens_map
        assert ours("some text").input_ids == theirs("some text").input_ids
        settings = transformers.GenerationConfig.from_pretrained(folder)
        assert (settings.eos_token_id, settings.temperature, settings.top_p) == ([98, 99, 299], 0.6, 0.9)


def test_a_template_only_in_the_settings_gets_its_file_too(tmp_path: Path) -> None:
    source = folder_of(
        tmp_path / "hf", **{"chat_template.jinja": None, "tokenizer_config.json": {**SETTINGS, "chat_template": CHAT}}
    )
    place = candidate_of(load_checkpoint(source), tmp_path / "candidate")
    assert (place / "chat_template.jinja").read_text() == CHAT
    assert read(place / "tokenizer_config.json")["chat_template"] == CHAT


def test_stop_tokens_of_the_configuration_count_where_there_is_no_generation_config(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "hf", **{"generation_config.json": None})
    config = {**read(source / "config.json"), "eos_token_id": [98, 5], "pad_token_id": -1, "bos_token_id": 97}
    (source / "config.json").write_text(json.dumps(config))
    usage = load_language_model(candidate_of(load_checkpoint(source), tmp_path / "candidate")).usage
    assert (usage.stop_ids, usage.begin_id, usage.generation.get("pad_token_id")) == ((98, 5), 97, None)


@pytest.mark.parametrize("wrong", [300, True, "98", [98, 1.5], -2])
def test_a_stop_token_that_there_is_not_is_refused(tmp_path: Path, wrong: Any) -> None:
    source = folder_of(tmp_path / "hf", **{"generation_config.json": {"eos_token_id": wrong}})
    with pytest.raises(AssetError, match=r"generation_config\.json: eos_token_id is .*from 0 to 299"):
        load_checkpoint(source)


def test_the_hub_cache_of_links_is_read(tmp_path: Path) -> None:
    snapshot = folder_of(tmp_path / "models--x" / "snapshots" / "abc")
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    place = candidate_of(load_checkpoint(snapshot), tmp_path / "candidate")
    assert (place / "backbone" / "LICENSE").read_text() == "Do what you like.\n"
    assert (place / "added_tokens.json").is_file()
    deeper = snapshot / "additional_chat_templates"
    deeper.mkdir()
    (blobs / "ffff").write_text("a template")
    (deeper / "rag.jinja").symlink_to(Path("../../../blobs/ffff"))
    assert member(deeper, "rag.jinja") == deeper / "rag.jinja"
    (deeper / "out.jinja").symlink_to(tmp_path)
    with pytest.raises(AssetError, match="out of its folder"):
        member(deeper, "out.jinja")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "additional_chat_templates",
    ],
)
def test_nothing_that_is_read_of_a_folder_is_a_link_out_of_it(tmp_path: Path, name: str) -> None:
    source = folder_of(tmp_path / "hf", **{"additional_chat_templates/tools.jinja": TOOLS})
    (source / "tokenizer.json").write_text(BPE.to_json())
    (source / name).rename(tmp_path / "secret")
    (source / name).symlink_to(tmp_path / "secret")
    with pytest.raises(AssetError, match="out of its folder"):
        load_checkpoint(source)


def test_nothing_that_is_read_of_a_candidate_is_a_link_out_of_it(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder_of(tmp_path / "hf", **{"additional_chat_templates/tools.jinja": TOOLS}))
    place = candidate_of(checkpoint, tmp_path / "candidate")
    entries = [file for file in sorted(place.rglob("*")) if file.is_file() and place / "hf" not in file.parents]
    for file in [*entries, place / "backbone"]:
        file.rename(tmp_path / "secret")
        file.symlink_to(tmp_path / "secret")
        with pytest.raises(AssetError, match="out of its folder"):
            load_language_model(place)
        file.unlink()
        (tmp_path / "secret").rename(file)
    assert load_language_model(place)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"add_bos_token": "true"}, "add_bos_token is 'true'; it must be true or false"),
        ({"add_bos_token": 1}, "add_bos_token is 1; it must be true or false"),
        ({"add_eos_token": "no"}, "add_eos_token is 'no'; it must be true or false"),
        ({"add_bos_token": True, "bos_token": "<none>"}, "add_bos_token is true, but bos_token, '<none>', is no token"),
        ({"add_bos_token": True, "bos_token": None}, "add_bos_token is true, but no bos_token is stated"),
        ({"bos_token": 5}, "bos_token is 5; it must be a token"),
        ({"chat_template": 5}, "chat_template is 5; it must be a template"),
        ({"chat_template": [5]}, "it must be a template, or a list"),
        ({"chat_template": [{"name": "../up", "template": ""}]}, "has the name '../up'"),
        ({"chat_template": [{"name": "rag", "template": 1}]}, "rag is 1; it must be a text"),
        ({"chat_template": [{"name": "rag", "template": ""}] * 2}, "rag is there twice"),
    ],
)
def test_settings_that_are_not_understood_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    settings = {"bos_token": "a", **settings}
    source = folder_of(tmp_path / "hf", **{"tokenizer_config.json": settings, "chat_template.jinja": None})
    (source / "tokenizer.json").write_text(BPE.to_json())
    with pytest.raises(AssetError, match=re.escape(said)):
        load_checkpoint(source)


def test_special_tokens_of_old_folders_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    older = {"tokenizer_config.json": {"add_bos_token": True}, "special_tokens_map.json": {"bos_token": "a"}}
    source = folder_of(tmp_path / "hf", **older)
    (source / "tokenizer.json").write_text(BPE.to_json())
    checkpoint = load_checkpoint(source)
    assert checkpoint.usage.first_token(checkpoint.tokenizer) == checkpoint.tokenizer.special_ids["bos"]


def test_stop_tokens_that_a_gguf_file_has_no_room_for_are_told(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(
        folder_of(tmp_path / "hf", **{"generation_config.json": {"eos_token_id": [1, 2, 3, 4, 5]}})
    )
    assert stops_left_out(checkpoint.usage, checkpoint.tokenizer) == (4, 5)
    candidate = load_language_model(candidate_of(checkpoint, tmp_path / "candidate"))
    notes = save_gguf(
        tmp_path / "model.gguf", candidate.space, candidate.architecture, candidate.model, candidate.tokenizer,
        config=candidate.config, usage=candidate.usage,
    )  # fmt: skip
    assert any("left out: 4, 5" in note for note in notes)


def test_a_gguf_file_says_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def more(writer: gguf.GGUFWriter, value: int) -> None:
        writer.add_uint32("tokenizer.ggml.eos_token_id", value)
        writer.add_uint32("tokenizer.ggml.eot_token_id", 98)
        writer.add_bos_token_id(97)
        writer.add_add_bos_token(True)
        writer.add_float32("general.sampling.temp", 0.5)
        writer.add_uint32("general.sampling.top_k", 20)
        writer.add_chat_template([{"name": "default", "template": CHAT}, {"name": "tool_use", "template": TOOLS}])

    monkeypatch.setattr(gguf.GGUFWriter, "add_eos_token_id", more)
    checkpoint = random_checkpoint(TINY, 0)
    keys: dict[str, object] = {"general.license": "apache-2.0", "general.name": "Tiny"}
    place = candidate_of(load_checkpoint(write_gguf(tmp_path / "tiny.gguf", checkpoint, keys=keys)), tmp_path / "c")
    usage = load_language_model(place).usage
    assert (usage.begin_id, usage.stop_ids, usage.chat_template) == (97, (257, 98), CHAT)
    assert usage.templates["tool_use"] == TOOLS
    assert (usage.generation["temperature"], usage.generation["top_k"]) == (0.5, 20)
    assert usage.settings["model_max_length"] == TINY.context
    assert read(place / "hf" / "config.json")["eos_token_id"] == [257, 98]
    about = read(place / "backbone" / "gguf_metadata.json")
    assert (about["general.license"], about["general.name"]) == ("apache-2.0", "Tiny")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "hf", local_files_only=True)
    assert tokenizer("b").input_ids == [97, 98], "the begin token is added for whoever asks for it"
    assert tokenizer("b", add_special_tokens=False).input_ids == [98]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi<end>"


@pytest.mark.parametrize(
    ("keys", "begins"),
    [
        ({"pre": "llama-bpe"}, True),
        ({"pre": "tekken"}, True),
        ({"pre": "llama-bpe", "add_bos_token": False}, False),
        ({"pre": "smollm"}, None),
        ({"pre": "smollm", "add_bos_token": True}, True),
    ],
)
def test_a_gguf_file_that_does_not_say_so_begins_as_in_llama_cpp(
    tmp_path: Path, keys: dict[str, object], begins: bool | None
) -> None:
    keys = {f"tokenizer.ggml.{name}": value for name, value in {**keys, "bos_token_id": 257}.items()}
    checkpoint = load_checkpoint(write_gguf(tmp_path / "tiny.gguf", random_checkpoint(TINY, 0), keys=keys))
    assert checkpoint.usage.settings.get("add_bos_token") is begins
    assert checkpoint.usage.first_token(checkpoint.tokenizer) == (257 if begins else None)
    written = dict(usage_keys(checkpoint.usage, checkpoint.tokenizer))
    assert written["tokenizer.ggml.add_bos_token"] is bool(begins)


def test_sentence_piece_begins_by_default_and_unigrams_do_not() -> None:
    assert begins_by_default("llama", None)
    assert not begins_by_default("t5", "llama-bpe")
    assert not begins_by_default("gpt2", ["llama-bpe"])
