"""Weights of Hugging Face folders: read under every prefix, refused where two things contradict each other."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankitect.errors import AssetError
from rankitect.models.checkpoints import DecoderConfig, load_checkpoint, save_huggingface
from tests.models.checkpoint_files import UNTIED, lively, write_gguf

CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, ffn=32, context=64)
CHECKPOINT = lively(CONFIG)
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_huggingface(tmp_path / "model", CONFIG, CHECKPOINT.tensors, CHECKPOINT.tokenizer)
    return tmp_path / "model"


def frequencies(base: float) -> torch.Tensor:
    return base ** -(torch.arange(0, 8, 2) / 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {name.removeprefix("model."): tensor for name, tensor in t.items()},
        lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()},
        lambda t: {f"module._orig_mod.{name}": tensor for name, tensor in t.items()},
        lambda t: {name.replace("self_attn", "self_attn._orig_mod"): tensor for name, tensor in t.items()},
        lambda t: {f"model.{name}": tensor for name, tensor in t.items()},
        lambda t: {**t, HEAD: t[EMBEDDING].clone()},
        lambda t: {(HEAD if name == EMBEDDING else name): tensor for name, tensor in t.items()},
        lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": frequencies(10_000.0).half()},
    ],
    ids=["bare model", "compiled", "parallel", "compiled part", "wrapped", "head too", "head alone", "frequencies"],
)
def test_weights_are_read_however_they_were_saved(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    again = load_checkpoint(folder).tensors
    assert again.keys() == CHECKPOINT.tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in CHECKPOINT.tensors.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, HEAD: t[EMBEDDING] + 1}, f"ties {HEAD} to {EMBEDDING}, but the two hold different values"),
        (lambda t: {**t, "norm.weight": t[NORM] + 1}, f"are both the weight {NORM}"),
        (lambda t: {**t, f"_orig_mod.{NORM}": t[NORM] + 1}, f"are both the weight {NORM}"),
        (lambda t: {**t, "model.rotary_emb.inv_freq": frequencies(500.0)}, "other frequencies than plain RoPE of base"),
        (lambda t: {**t, "model.rotary_emb.inv_freq": frequencies(10_000.0) / 4}, "other frequencies than plain RoPE"),
        (lambda t: {**t, "base_model.model.x": t[NORM] + 1}, "does not have: base_model.model.x"),
        (lambda t: {**t, "\x1b[2J" + "x" * 5000: t[NORM] + 1}, "does not have: \\x1b[2Jxxx"),
        (lambda t: {**t, NORM: t[NORM] * torch.inf}, f"{NORM} holds values that are not finite numbers"),
        (lambda t: {**t, NORM: t[NORM].double() * 1e300}, f"{NORM} holds values that are not finite numbers"),
        (
            lambda t: {**t, NORM: t[NORM].to(torch.float8_e4m3fn)},
            "is stored as torch.float8_e4m3fn. Supported",
        ),
        (lambda t: {**t, NORM: t[NORM].int()}, "is stored as torch.int32. Supported: float32"),
    ],
)
def test_weights_that_contradict_each_other_are_refused(
    folder: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(AssetError, match=re.escape(message)) as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) <= 500


def header_of(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = struct.unpack_from("<Q", data)[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header, at: header[NORM].update(data_offsets=header[EMBEDDING]["data_offsets"]),
        lambda header, at: header[NORM].update(data_offsets=[at, at + 128]),
        lambda header, at: header[NORM].update(data_offsets=[2**63, 2**63 + 128]),
        lambda header, at: header[NORM].update(data_offsets=[-128, 0]),
        lambda header, at: header[NORM].update(dtype="F16"),
        lambda header, at: header[NORM].update(dtype="X9"),
        lambda header, at: header[NORM].update(shape=[2**62, 2**62]),
        lambda header, at: header.pop(NORM),
    ],
)
def test_headers_that_do_not_fit_their_file_are_refused(folder: Path, change: Callable[..., object]) -> None:
    header, body = header_of((folder / "model.safetensors").read_bytes())
    change(header, len(body))
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    with pytest.raises(AssetError, match=r"model\.safetensors is truncated or damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("length", [0, 1, 2**26, 2**63])
def test_headers_of_impossible_length_are_refused(folder: Path, length: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
    with pytest.raises(AssetError, match=r"model\.safetensors is truncated or damaged"):
        load_checkpoint(folder)


def sharded(folder: Path) -> tuple[Tensors, dict[str, str]]:
    """The folder's model in two files; gives its tensors and the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    return tensors, {name: file for file, held in parts.items() for name in held}


def test_shards_and_their_index_must_agree(folder: Path) -> None:
    tensors, files = sharded(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert load_checkpoint(folder).tensors.keys() == CHECKPOINT.tensors.keys()
    first = next(name for name, file in files.items() if file == "a.safetensors")
    index.write_text(json.dumps({"weight_map": {**files, first: "b.safetensors"}}))
    with pytest.raises(AssetError, match="contradict each other"):
        load_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": files}))
    save_file({name: tensors[name] for name in files if files[name] == "b.safetensors" or name == first},
              folder / "b.safetensors")  # fmt: skip
    with pytest.raises(AssetError, match="contradict each other"):
        load_checkpoint(folder)
    for wrong in ({}, [], {"x": 1}, {"x": ["a.safetensors"]}, "a.safetensors"):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(AssetError, match="has no weight_map from the names"):
            load_checkpoint(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/a.safetensors", "x/a.safetensors", "..", "\0.safetensors"])
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    (folder.parent / "a.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NORM: name}}))
    with pytest.raises(AssetError, match=r"must be a \.safetensors file in the same folder|is not the name of"):
        load_checkpoint(folder)


def test_links_are_followed_inside_of_the_folder_and_in_the_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(folder / "own.safetensors")
    weights.symlink_to("own.safetensors")
    (tmp_path / "link").symlink_to(folder)
    assert load_checkpoint(tmp_path / "link").config == CONFIG
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "0123", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(path for path in folder.iterdir() if not path.is_symlink()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        name = "model.safetensors" if file.name == "own.safetensors" else file.name
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    assert load_checkpoint(snapshot).config == CONFIG


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_links_out_of_the_folder_and_in_circles_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(AssetError, match="is a link out of its folder"):
        load_checkpoint(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with pytest.raises(AssetError, match="is a link that leads nowhere"):
        load_checkpoint(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(AssetError, match="is not a file"):
        load_checkpoint(folder)


def test_what_is_there_instead_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(AssetError, match=r"has no config\.json.*It holds 'generation_config\.json', 'model\.safetens"):
        load_checkpoint(folder)
    (folder / "x.gguf").write_bytes(b"")
    with pytest.raises(AssetError, match=r"has no config\.json.*Give the \.gguf file itself"):
        load_checkpoint(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(AssetError, match=r"holds an adapter .*Merge it into its model first"):
        load_checkpoint(folder)
    with pytest.raises(AssetError, match="it is one file of a folder, which is loaded as a whole"):
        load_checkpoint(folder / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(AssetError, match="pickled weights are not read"):
        load_checkpoint(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("path", ["x" * 300, "a\x00b", "~nobody-has-this-name/x", "\x1b[31m"])
def test_paths_that_no_file_can_have_are_no_checkpoints(path: str) -> None:
    with pytest.raises(AssetError, match="There is no checkpoint") as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "model.gguf", lively(UNTIED))
    monkeypatch.setenv("RANKITECT_MEMORY_GIB", "0.00001")
    for place in (folder, path):
        with pytest.raises(AssetError, match=r"needs 0\.0 GiB as float32, but only 0\.0 GiB of memory are available"):
            load_checkpoint(place)


def test_a_token_without_a_row_in_the_embedding_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["extra"] = 256
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AssetError, match="the tokenizer has 257 tokens, but the embedding has only 256 rows"):
        load_checkpoint(folder)


def test_the_name_of_a_model_of_the_hub_is_told_from_a_path() -> None:
    with pytest.raises(AssetError, match="models of the Hugging Face hub are not fetched"):
        load_checkpoint("HuggingFaceTB/SmolLM2-135M")
