"""Damaged candidates: files altered under their old hashes, and under new ones, as one who edits both leaves them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load as load_arrays

from rankitect.data.ranking.encoder import RowEncoder
from rankitect.data.ranking.encoding import EncodingPlan
from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.data.ranking.keys import hash_values
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.vocabulary import Vocabulary
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.models.candidate import Candidate, load_candidate, save_candidate, save_ranker
from rankitect.models.checkpoints import DecoderConfig
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.supernet import build
from rankitect.quantization.rotations import draw, turning
from rankitect.quantization.settings import QuantizeConfig
from rankitect.quantization.spaces import quantized_space
from rankitect.quantization.weights import quantize_weights, with_numerics_of
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.search_spaces.ranking_points import baseline
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

CONFIG = DecoderConfig(vocab=256, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, ffn=16, context=32)
IDS = torch.arange(12)[None]
ROWS = [{"price": 2.0, "user": "ann", "device": "tv"}, {"price": None, "user": "nobody", "device": None}]
USERS, DEVICES = ("ann", "bob", "cat"), ("tv", "phone")


class Damage(NamedTuple):
    """One damaged file of a candidate."""

    name: str
    content: bytes
    recorded: bool  # whether the card was changed to agree


@cache
def whole(kind: str) -> dict[str, bytes]:
    """The files of a small candidate."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        {"language": _language, "compressed": _compressed, "ranking": _ranker}[kind](folder)
        return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _language(folder: Path) -> None:
    space = from_backbone(CONFIG, context=16)
    architecture = space.sample(0)
    usage = Usage({"eos_token_id": [1, 2], "temperature": 0.5}, {"model_max_length": 32}, {"default": "{{ messages }}"})
    save_candidate(
        folder, space, architecture, build(space, architecture), ByteTokenizer(), config=CONFIG, usage=usage,
        huggingface=False,
    )  # fmt: skip


def _compressed(folder: Path) -> None:
    """Rotated, with what is computed online, and quantized, with scales of its own and a table in two kinds of bits."""
    space = from_backbone(CONFIG, context=16)
    architecture = space.sample(0)
    model = build(space, architecture)
    ready = turning(space, model, head="mix", r3=True, r4=True)
    turned = ready.model(draw(ready.sizes, 0), model)
    config = QuantizeConfig(method="searched", error="weights", bits=4, group=8, embedding_bits=4, cache_bits=8)
    few = quantized_space(ready.space, config, "stored")
    rounded = with_numerics_of(few, architecture, turned)
    quantize_weights(few, rounded, config, None)
    save_candidate(folder, few, architecture, rounded, ByteTokenizer(), config=CONFIG, huggingface=False)


def _keys(values: tuple[str, ...]) -> np.ndarray:
    import pyarrow as pa

    return hash_values(pa.array([value.encode() for value in values], pa.binary()))


def _ranker(folder: Path) -> None:
    features = Features(("price",), (CategoricalFeature("user", 5), CategoricalFeature("device", 4)))
    space, architecture = baseline("dlrm", features, embedding=4, hidden=(8,), bottom=(4,))
    vocabularies = (Vocabulary(5, _keys(USERS)), Vocabulary(4, _keys(DEVICES)))
    plan = EncodingPlan(features, vocabularies, np.array([1.5]), np.array([2.0]))
    table = TableSchema.model_validate({"label": "y", "numeric": ["price"], "categorical": ["user", "device"]})
    model = build(space, architecture)
    save_ranker(folder, space, architecture, model, features, encoder=RowEncoder(table, plan))


class _Folder(Fuzz):
    """A candidate."""

    kind: ClassVar[str]
    cases: ClassVar[int] = 150

    def make(self, random: Random) -> Damage:
        files = whole(self.kind)
        name = random.choice(sorted(files))
        content = files[name]
        if name.endswith(".json") and random.random() < 0.7:
            value = mutate.tree(random, json.loads(content))
            content = mutate.json_text(random, value) if random.random() < 0.2 else json.dumps(value)
            content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        else:
            content = mutate.bytes_(random, content)
        return Damage(name, content, random.random() < 0.8)

    def read(self, data: Damage, folder: Path) -> tuple[Candidate, Any]:
        for name, content in whole(self.kind).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / data.name).write_bytes(data.content)
        if data.recorded and data.name != "candidate.json":
            card = json.loads((folder / "candidate.json").read_text())
            digest = hashlib.sha256(data.content).hexdigest()
            card["files"][data.name] = {"bytes": len(data.content), "sha256": digest}
            (folder / "candidate.json").write_text(json.dumps(card))
        candidate = load_candidate(folder)
        return candidate, self.use(candidate)

    def use(self, candidate: Candidate) -> Any:
        raise NotImplementedError

    def confirm(self, data: Damage, value: tuple[Candidate, Any]) -> None:
        candidate, used = value
        files = {**whole(self.kind), data.name: data.content}
        for name, array in load_arrays(files["weights.safetensors"]).items():
            np.testing.assert_array_equal(candidate.model.state_dict()[name].numpy(), array)
        meant = json.loads(files["architecture.json"])
        assert json.loads(candidate.architecture.to_json())["choices"] == meant["choices"]
        if not data.recorded or data.name not in ("weights.safetensors", "space.json", "architecture.json"):
            self.confirm_use(files, used)

    def confirm_use(self, files: dict[str, bytes], used: Any) -> None:
        raise NotImplementedError


@cache
def logits(kind: str) -> Any:
    """What the undamaged candidate gives."""
    folder = Path(tempfile.mkdtemp())
    try:
        for name, content in whole(kind).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return load_candidate(folder)
    finally:
        shutil.rmtree(folder)


class TestLanguageCandidate(_Folder):
    """The folder of a language model: card, space, architecture, weights, tokenizer and its settings."""

    kind = "language"

    def use(self, candidate: Any) -> Any:
        with torch.inference_mode():
            return candidate.model(IDS), candidate.usage.stop_ids, candidate.usage.chat_template

    def confirm_use(self, files: dict[str, bytes], used: Any) -> None:
        given, stops, template = used
        with torch.inference_mode():
            assert torch.equal(given, logits("language").model(IDS))
        generation = json.loads(files["generation_config.json"])
        eos = generation.get("eos_token_id")
        eos = [] if eos is None or eos == -1 else eos if isinstance(eos, list) else [eos]
        assert list(stops) == ([] if -1 in eos else eos)
        assert template == files["chat_template.jinja"].decode().replace("\r\n", "\n").replace("\r", "\n").removeprefix(
            "\ufeff"
        )


class TestCompressedCandidate(_Folder):
    """The folder of a rotated and quantized language model."""

    kind = "compressed"
    cases = 60

    def use(self, candidate: Any) -> Any:
        with torch.inference_mode():
            return candidate.model(IDS)

    def confirm_use(self, files: dict[str, bytes], used: Any) -> None:
        with torch.inference_mode():
            assert torch.equal(used, logits("compressed").model(IDS))


class TestRankerCandidate(_Folder):
    """The folder of a ranker: card, space, architecture, weights, features, vocabularies and scaling."""

    kind = "ranking"

    def use(self, candidate: Any) -> Any:
        numeric, ids = candidate.encode(ROWS)
        with torch.inference_mode():
            return numeric, ids, candidate.model(numeric, ids)

    def confirm_use(self, files: dict[str, bytes], used: Any) -> None:
        numeric, ids, given = used
        arrays = load_arrays(files["encoder/vocabularies.safetensors"])
        table = json.loads(files["encoder/encoder.json"])["table"]
        missing, columns = table["missing"], {c["name"]: c for c in (*table["numeric"], *table["categorical"])}
        for place, name in enumerate(("user", "device")):
            known = arrays[f"keys{place}"].tolist()
            for number, row in enumerate(ROWS):
                text = row[columns[name]["column"] or name]
                key = None if text is None or text in missing else int(_keys((str(text),))[0])
                wanted = 1 if key is None else known.index(key) + 2 if key in known else 0
                assert int(ids[number, place]) == wanted
        price = ROWS[0]["price"]
        if columns["price"]["transform"] == "log":
            price = np.log1p(price)
        np.testing.assert_allclose(numeric[:, 0], [(price - arrays["centre"][0]) / arrays["scale"][0], 0], rtol=1e-5)
        with torch.inference_mode():
            assert torch.equal(given, logits("ranking").model(numeric, ids))
