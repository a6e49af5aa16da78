"""Fuzzers of candidates in formats of other tools: GGUF files that say what they are, and folders with code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from safetensors.numpy import load as load_arrays

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.models.candidate import Candidate, load_candidate
from rankitect.models.candidate.gguf import save_gguf
from rankitect.models.candidate.huggingface import WholeModel, save_decilm, save_folder
from rankitect.models.checkpoints import DecoderConfig
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
