"""Fuzzers of candidates in formats of other tools: GGUF files that say what they are, and folders with code."""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from safetensors.numpy import load as load_arrays

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.models.backbone import Backbone
from rankitect.models.candidate import CARD, Candidate, load_backbone, load_candidate, save_candidate
from rankitect.models.candidate.gguf import save_gguf
from rankitect.models.candidate.huggingface import WholeModel, save_decilm, save_folder
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.supernet import build
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

CONFIG = DecoderConfig(vocab=256, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, ffn=16, context=32)
SPACE = from_backbone(CONFIG, context=16, ffn_step=8, patterns=("full", "skip"))
ARCHITECTURE = SPACE.architecture(
    {**SPACE.sample(0).choices, "layers.0.runs": 1, "layers.1.runs": 1, "layers.0.attn": "full",
     "layers.1.attn": "skip", "layers.0.kv_heads": 2, "layers.0.group": 1, "layers.0.ffn": 8, "layers.1.ffn": 16,
     "width": 16}
)  # fmt: skip


@cache
def whole_gguf() -> bytes:
    with TemporaryDirectory() as place:
        path = Path(place) / "m.gguf"
        model = build(SPACE, ARCHITECTURE)
        save_gguf(path, SPACE, ARCHITECTURE, model, ByteTokenizer(), config=CONFIG, precision="float32")
        return path.read_bytes()


class TestGGUFCandidate(Fuzz):
    """Candidates in GGUF files."""

    cases = 80

    def make(self, random: Random) -> bytes:
        data = whole_gguf()
        if random.random() < 0.5:
            return mutate.bytes_(random, data)
        words = [b"full", b"skip", b"16", b"8", b"ffn", b"deci", b"attn_q", b"layers.0", b'"1"', b"runs"]
        old, new = random.sample(words, 2)
        at = random.choice([-1, data.find(old, random.randrange(len(data)))])
        new = new[: len(old)].ljust(len(old), b" ")
        return data if at < 0 else data[:at] + new + data[at + len(old) :]

    def read(self, data: bytes, folder: Path) -> Candidate:
        (folder / "m.gguf").write_bytes(data)
        return load_candidate(folder / "m.gguf")

    def confirm(self, data: bytes, value: Candidate) -> None:
        with TemporaryDirectory() as place:
            (Path(place) / "m.gguf").write_bytes(data)
            reader = gguf.GGUFReader(Path(place) / "m.gguf")
            stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
            assert reader.fields["deci.attention.head_count"].contents() == [2, 0]
            assert reader.fields["deci.feed_forward_length"].contents() == [8, 16]
        state = value.model.state_dict()
        for number in (0, 1):
            ours = state[f"layers.{number}.mlp.gate"].numpy()
            np.testing.assert_array_equal(ours, stored[f"blk.{number}.ffn_gate.weight"])
        ours = state["layers.0.attn.shared.v"].flatten(0, 1).numpy()
        np.testing.assert_array_equal(ours, stored["blk.0.attn_v.weight"])
        np.testing.assert_array_equal(state["embed.weight"].numpy(), stored["token_embd.weight"])


class Damage(NamedTuple):
    """One damaged file of a folder."""

    deci: bool
    name: str
    content: bytes


@cache
def whole_folder(deci: bool) -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        folder, model = Path(place) / "hf", build(SPACE, ARCHITECTURE)
        write = save_decilm if deci else save_folder
        write(folder, WholeModel(SPACE, ARCHITECTURE, model, ByteTokenizer(), CONFIG, Usage()))
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}


class TestFolderByLayer(Fuzz):
    """Hugging Face folders of candidates whose layers differ."""

    cases = 100

    def make(self, random: Random) -> Damage:
        deci = random.random() < 0.3
        files = whole_folder(deci)
        name = random.choice(["config.json", "rankitect.json", "model.safetensors", "generation_config.json"])
        if not name.endswith(".json") or random.random() < 0.2:
            return Damage(deci, name, mutate.bytes_(random, files[name]))
        return Damage(deci, name, mutate.json_text(random, json.loads(files[name])))

    def read(self, data: Damage, folder: Path) -> Candidate:
        for name, content in {**whole_folder(data.deci), data.name: data.content}.items():
            (folder / name).write_bytes(content)
        return load_candidate(folder)

    def confirm(self, data: Damage, value: Candidate) -> None:
        files: dict[str, Any] = {**whole_folder(data.deci), data.name: data.content}
        arrays = load_arrays(files["model.safetensors"])
        state = value.model.state_dict()
        for number in (0, 1):
            ours = state[f"layers.{number}.mlp.down"].numpy()
            np.testing.assert_array_equal(
                ours, arrays[f"model.layers.{number}.mlp.down_proj.weight"].astype(np.float32)
            )
        blocks = json.loads(files["config.json"].decode("utf-8-sig"))["block_configs"]
        assert [block["ffn"]["intermediate_size"] for block in blocks] == [8, 16]
        assert value.model(torch.arange(6)[None]).isfinite().all()


class TestGGUFBackbone(Fuzz):
    """The same files as backbones: what the keys of `deci` say, whatever wrote them."""

    cases = 60

    def make(self, random: Random) -> bytes:
        return TestGGUFCandidate().make(random)

    def read(self, data: bytes, folder: Path) -> DecoderCheckpoint:
        (folder / "m.gguf").write_bytes(data)
        return load_checkpoint(folder / "m.gguf")

    def confirm(self, data: bytes, value: DecoderCheckpoint) -> None:
        with TemporaryDirectory() as place:
            (Path(place) / "m.gguf").write_bytes(data)
            reader = gguf.GGUFReader(Path(place) / "m.gguf")
            stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
            heads = reader.fields["deci.attention.head_count"].contents()
            widths = reader.fields["deci.feed_forward_length"].contents()
        layers = range(value.config.n_layers)
        assert [value.config.layer(i).heads for i in layers] == heads
        assert [value.config.layer(i).ffn for i in layers] == widths
        for i in layers:
            ours = value.tensors[f"model.layers.{i}.mlp.gate_proj.weight"].numpy()
            np.testing.assert_array_equal(ours, stored[f"blk.{i}.ffn_gate.weight"])


class TestFolderByLayerAsBackbone(Fuzz):
    """The same folders as backbones: config.json alone says what they are."""

    cases = 80

    def make(self, random: Random) -> Damage:
        deci = random.random() < 0.5
        files = whole_folder(deci)
        if random.random() < 0.2:
            return Damage(deci, "model.safetensors", mutate.bytes_(random, files["model.safetensors"]))
        return Damage(deci, "config.json", mutate.json_text(random, json.loads(files["config.json"])))

    def read(self, data: Damage, folder: Path) -> DecoderCheckpoint:
        for name, content in {**whole_folder(data.deci), data.name: data.content}.items():
            (folder / name).write_bytes(content)
        return load_checkpoint(folder)

    def confirm(self, data: Damage, value: DecoderCheckpoint) -> None:
        files: dict[str, Any] = {**whole_folder(data.deci), data.name: data.content}
        arrays, raw = load_arrays(files["model.safetensors"]), json.loads(files["config.json"].decode("utf-8-sig"))
        assert value.config.norm_eps == raw["rms_norm_eps"]
        computing = [b for b in raw["block_configs"] if not (b["attention"].get("no_op") and b["ffn"].get("no_op"))]
        assert value.config.n_layers == len(computing)
        for i, block in enumerate(computing):
            sizes = value.config.layer(i)
            assert sizes.ffn == (0 if block["ffn"].get("no_op") else block["ffn"]["intermediate_size"])
            assert bool(sizes.kv_heads) != bool(block["attention"].get("no_op"))
        table = arrays["model.embed_tokens.weight"].astype(np.float32)
        np.testing.assert_array_equal(value.tensors["model.embed_tokens.weight"].numpy(), table)
        computes(value)


class TestOwnFolderAsBackbone(Fuzz):
    """Folders of candidates, damaged, with the hashes of the damaged files."""

    cases = 60

    def make(self, random: Random) -> Damage:
        name = random.choice(["space.json", "architecture.json", CARD])
        return Damage(False, name, mutate.json_text(random, json.loads(whole_candidate()[name])))

    def read(self, data: Damage, folder: Path) -> DecoderCheckpoint:
        files = {**whole_candidate(), data.name: data.content}
        if data.name != CARD:
            card = json.loads(files[CARD])
            card["files"][data.name] = {"bytes": len(data.content), "sha256": sha256(data.content).hexdigest()}
            files[CARD] = json.dumps(card).encode()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return load_backbone(folder)

    def confirm(self, data: Damage, value: DecoderCheckpoint) -> None:
        assert [value.config.layer(i).ffn for i in range(value.config.n_layers)] == [8, 16]
        computes(value)


def computes(checkpoint: DecoderCheckpoint) -> None:
    """Check that a space is made of it, and a model of that."""
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config, context=16, ffn_step=8))
    assert backbone.inherit(backbone.largest)(torch.arange(6)[None]).isfinite().all()


@cache
def whole_candidate() -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        folder, model = Path(place), build(SPACE, ARCHITECTURE)
        save_candidate(folder, SPACE, ARCHITECTURE, model, ByteTokenizer(), config=CONFIG, huggingface=False)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
