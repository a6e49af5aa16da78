"""Fuzzers of pretrained models: GGUF, safetensors and config.json, confirmed by other readers of the same bytes."""

from __future__ import annotations

import json
import math
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from safetensors.torch import save

from rankitect.models.backbone import Backbone
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint, save_huggingface
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.checkpoints.rotary import ROTARY_KEYS
from rankitect.models.families import FAMILIES
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz
from tests.models.checkpoint_files import gguf_name, interleaved, lively, some_ids, write_gguf
from tests.models.test_family_flips import FITTING, whole_config
from tests.models.test_family_flips import theirs as transformers_logits

SMALL = DecoderConfig(vocab=258, d_model=32, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, ffn=32, context=64)
IDS = some_ids(SMALL, 1, 24) % 256


@cache
def weights() -> dict[str, torch.Tensor]:
    return lively(SMALL).tensors


class Places(NamedTuple):
    """A GGUF file, and where in it the values of keys, and what describes a tensor, stand: position and format."""

    data: bytes
    values: list[tuple[int, str]]
    tensors: list[tuple[int, str]]


@cache
def small_gguf(kind: gguf.GGMLQuantizationType) -> Places:
    formats = {np.uint32: "I", np.int32: "i", np.float32: "f", np.uint64: "Q", np.bool_: "?"}
    with TemporaryDirectory() as folder:
        path = write_gguf(Path(folder) / "small.gguf", lively(SMALL), kind)
        reader = gguf.GGUFReader(path)
        values, tensors = [], []
        for fields, places in ((reader.fields.values(), values), ([t.field for t in reader.tensors], tensors)):
            for field in fields:
                at = field.offset
                for part in field.parts[:40]:  # of the list of tokens, the first
                    if part.dtype.type in formats and part.size == 1:
                        places.append((at, formats[part.dtype.type]))
                    at += part.nbytes
        return Places(path.read_bytes(), values, tensors)


class TestGGUF(Fuzz):
    """Models in GGUF files."""

    cases = 250

    def make(self, random: Random) -> bytes:
        whole = small_gguf(random.choice([gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0]))
        if random.random() < 0.2:  # anywhere in the tables
            return mutate.bytes_(random, whole.data[:8000]) + whole.data[8000:]
        data = bytearray(whole.data)
        for _ in range(random.choice([0, 1, 1, 2])):
            places = random.choice([whole.values, whole.tensors])
            at, code = random.choice(places)
            if random.random() < 0.3:  # what stands in another place
                other, code = random.choice(places)
                value = struct.unpack_from(f"<{code}", data, other)[0]
            else:
                value = mutate.number(random)
            if code in "fd":
                with np.errstate(over="ignore"):
                    struct.pack_into("<f", data, at, np.float32(value))
            elif code == "?":
                data[at] = random.choice([0, 1, 7])
            else:
                size = struct.calcsize(code)
                number = int(value) if math.isfinite(value) else 3
                data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
        return bytes(data)

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        (folder / "model.gguf").write_bytes(data)
        return load_checkpoint(folder / "model.gguf")

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            path.write_bytes(data)
            reader = gguf.GGUFReader(path)
            stored = {
                t.name: (gguf.dequantize(t.data, t.tensor_type), t.data_offset, t.n_bytes) for t in reader.tensors
            }
            keys = {name: field.contents() for name, field in reader.fields.items()}
        spans = sorted((start, start + length) for _, start, length in stored.values())
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "tensors overlap"
        assert spans[-1][1] <= len(data)
        config = value.config
        assert config.n_heads == keys["llama.attention.head_count"]
        assert config.n_kv_heads == keys.get("llama.attention.head_count_kv", config.n_heads)
        assert np.float32(config.rope_base) == np.float32(keys.get("llama.rope.freq_base", 10_000.0))
        assert np.float32(config.norm_eps) == np.float32(keys["llama.attention.layer_norm_rms_epsilon"])
        assert config.context == keys["llama.context_length"]
        assert not [key for key in keys if "scaling" in key]
        for name, tensor in value.tensors.items():
            expected = stored.pop(gguf_name(name))[0]
            heads = config.n_heads if "q_proj" in name else config.n_kv_heads
            ours = interleaved(tensor, heads) if "q_proj" in name or "k_proj" in name else tensor.numpy()
            np.testing.assert_array_equal(ours, expected)
        assert not stored, "tensors that nobody read"
        assert value.tokenizer.vocab_size == len(keys["tokenizer.ggml.tokens"]) <= config.vocab
        assert value.tokenizer.special_ids["eos"] == keys["tokenizer.ggml.eos_token_id"]


@cache
def small_folder() -> dict[str, bytes]:
    """The files of a Hugging Face folder."""
    with TemporaryDirectory() as name:
        checkpoint = lively(SMALL)
        save_huggingface(name, SMALL, checkpoint.tensors, checkpoint.tokenizer)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class TestSafetensors(Fuzz):
    """Weights in safetensors."""

    cases = 250

    def make(self, random: Random) -> bytes:
        kind = random.choice([torch.float32, torch.float16, torch.bfloat16])
        whole = save({name: tensor.to(kind) for name, tensor in weights().items()})
        length = struct.unpack_from("<Q", whole)[0]
        if random.random() < 0.2:
            return mutate.bytes_(random, whole)
        header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        names = list(header)
        kind = random.randrange(6)
        if kind == 0:
            header = mutate.tree(random, header)
        elif kind == 1:  # prefixes that wrappers leave behind, on all weights or on some
            prefix = random.choice(["_orig_mod.", "module.", "model.", "base_model.", "transformer."])
            some = names if random.random() < 0.7 else names[:3]
            header = {(prefix + name if name in some else name): entry for name, entry in header.items()}
        elif kind == 2:
            header = {name.removeprefix("model."): entry for name, entry in header.items()}
        elif kind == 3:  # two tensors change places
            one, other = random.sample(names, 2)
            header[one], header[other] = header[other], header[one]
        elif kind == 4:
            header["lm_head.weight"] = header[random.choice(names)]
        else:
            at = random.randrange(len(body))
            body = body[:at] + random.randbytes(4) + body[at + 4 :]
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text)) + text + body

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        return load_checkpoint(written(small_folder() | {"model.safetensors": data}, folder))

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        length = struct.unpack_from("<Q", data)[0]
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        header.pop("__metadata__", None)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights().items()}
        assert {name: tuple(tensor.shape) for name, tensor in value.tensors.items()} == shapes
        origins = {origin.replace("_orig_mod.", "").replace("module.", ""): origin for origin in header}
        for name, tensor in value.tensors.items():
            bare = name.removeprefix("model.")
            origin = next(origins[n] for n in (name, bare, f"model.{name}") if n in origins)
            start, end = header[origin]["data_offsets"]
            raw = body[start:end]
            if header[origin]["dtype"] == "BF16":
                expected = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                expected = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[header[origin]["dtype"]]).astype(np.float32)
            np.testing.assert_array_equal(tensor.numpy().ravel(), expected)
            assert np.isfinite(expected).all()


@cache
def shards() -> tuple[dict[str, Any], dict[str, bytes]]:
    """An index, and the files of a folder whose weights are in two shards."""
    parts = {"a.safetensors": list(weights())[:5], "b.safetensors": list(weights())[5:]}
    files = {file: save({name: weights()[name] for name in names}) for file, names in parts.items()}
    index = {"metadata": {"total_size": 1}, "weight_map": {n: file for file, names in parts.items() for n in names}}
    return index, {name: data for name, data in small_folder().items() if name != "model.safetensors"} | files


class TestShards(Fuzz):
    """The index of weights in shards."""

    cases = 100

    def make(self, random: Random) -> bytes:
        index, _ = shards()
        if random.random() < 0.3:
            other = random.choice(["../a.safetensors", "/a.safetensors", "a", "b.safetensors", "", "c.safetensors"])
            index = {"weight_map": {**index["weight_map"], random.choice([*weights(), "x"]): other}}
        return mutate.json_text(random, index)

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        return load_checkpoint(written(shards()[1] | {"model.safetensors.index.json": data}, folder))

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        assert json.loads(data.decode("utf-8-sig"))["weight_map"] == shards()[0]["weight_map"]
        assert all(torch.equal(value.tensors[name], tensor) for name, tensor in weights().items())


@cache
def configurations() -> list[dict[str, Any]]:
    """config.json as Rankitect and as `transformers` write it, and as older versions of the latter did."""
    import transformers

    ours = json.loads(small_folder()["config.json"])
    theirs = transformers.LlamaConfig.from_dict(ours)
    theirs.architectures = ["LlamaForCausalLM"]
    older = {key: value for key, value in ours.items() if key != "rope_parameters"} | {"rope_scaling": None}
    logits_of_transformers(ours, weights())  # the first model takes seconds of imports, which are no case's
    return [ours, json.loads(theirs.to_json_string(use_diff=False)), older]


ROTARY = [
    {"rope_scaling": {"type": "linear", "factor": 1.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 123.0}},
    {"rope_scaling": {"rope_theta": 123.0, "factor": 4}},
    {"rope_parameters": {"rope_type": "yarn", "factor": 1.0, "rope_theta": 123.0}},
    {"rope_parameters": {"rope_theta": 99}},
    {"rope_theta": 5e5},
    {"partial_rotary_factor": 0.5},
    {"rope_scaling": {}},
]


COMPUTING = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "attention_bias",
    "mlp_bias", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
}  # fmt: skip
"""The keys of which a Llama of `transformers` computes something."""


def logits_of_transformers(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    import transformers

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).float().eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert missing in ([], ["lm_head.weight"])
    model.tie_weights()
    with torch.no_grad():
        return model(IDS).logits


class TestConfigJson(Fuzz):
    """The configuration of Hugging Face folders."""

    cases = 120

    def make(self, random: Random) -> bytes:
        config = random.choice(configurations())
        if random.random() < 0.3:
            config = {**config, **random.choice(ROTARY)}
        if random.random() < 0.2:
            config = {**config, mutate.name(random): mutate.odd(random)}
        return mutate.json_text(random, config)

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        return load_checkpoint(written(small_folder() | {"config.json": data}, folder))

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        config = json.loads(data.decode("utf-8-sig"))
        try:
            theirs = logits_of_transformers(config, weights())
        except Exception:  # it is strict about what changes nothing, such as use_cache="True"
            theirs = logits_of_transformers({key: config[key] for key in COMPUTING & config.keys()}, weights())
        torch.testing.assert_close(logits_of(value), theirs, atol=1e-4, rtol=0)


def logits_of(checkpoint: DecoderCheckpoint) -> torch.Tensor:
    """What a search would prune."""
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config))
    with torch.no_grad():
        return backbone.inherit(backbone.largest)(IDS)


@cache
def folder_of(family: str) -> tuple[dict[str, bytes], dict[str, Any], DecoderCheckpoint]:
    """The files of a family's folder, its configuration as `transformers` writes it, and the model."""
    config = whole_config(family)
    checkpoint = lively(read_config(config, "config.json"))
    transformers_logits(config, checkpoint, IDS)  # the first model takes seconds of imports, which are no case's
    with TemporaryDirectory() as name:
        save_huggingface(name, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}, config, checkpoint


class TestConfigJsonOfFamilies(Fuzz):
    """The configuration of Hugging Face folders of every family: its number, and config.json."""

    cases = 80

    def make(self, random: Random) -> bytes:
        number = random.randrange(len(FAMILIES))
        _, config, _ = folder_of(list(FAMILIES)[number])
        if random.random() < 0.5:
            key = random.choice(sorted(FITTING))
            config = {**config, key: random.choice(FITTING[key])}
        return bytes([number]) + mutate.json_text(random, config)

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        files = folder_of(list(FAMILIES)[data[0]])[0]
        return load_checkpoint(written(files | {"config.json": data[1:]}, folder))

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        family, config = list(FAMILIES)[data[0]], json.loads(data[1:].decode("utf-8-sig"))
        checkpoint, layout = folder_of(family)[2], FAMILIES[family].huggingface
        computing = {"model_type", *layout.sizes.values(), *layout.required, *layout.of_layers, *ROTARY_KEYS}
        try:
            theirs = transformers_logits(config, checkpoint, IDS)
        except Exception:  # it is strict about what changes nothing, such as use_cache="True"
            kept = {key: config[key] for key in computing & config.keys()} | {"pad_token_id": None}
            theirs = transformers_logits(kept, checkpoint, IDS)
        torch.testing.assert_close(logits_of(value), theirs, atol=1e-4, rtol=0)
