"""Language models as folders for `transformers`, and those whose layers differ read back.

Where layers are alike, a folder is one of a class of `transformers`, and a backbone as any other. Where they differ, it
brings its own code (`huggingface_by_layer`) and says in rankitect.json which architecture of which space it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from rankitect.data.files import write_whole
from rankitect.data.members import place_of
from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.documents import read_json
from rankitect.errors import AssetError, SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.candidate.folder import brief, card_of, guarded_model, read_weights
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints.huggingface import save_huggingface, write_folder
from rankitect.models.checkpoints.own_code import IDENTITY, OURS
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.checkpoints.weights import WEIGHTS
from rankitect.models.decoder_layers import decoder_layers
from rankitect.models.families import DecoderConfig
from rankitect.models.huggingface_by_layer import ByLayer, not_decilm
from rankitect.models.huggingface_layout import huggingface_layout
from rankitect.models.plan import make_plan
from rankitect.models.rounded import in_rounded_floats
from rankitect.models.supernet import Standalone

__all__ = ["WholeModel", "load_by_layer", "save_decilm", "save_folder"]

_AGAIN = "Copy it again."
_CODE_PACKAGE = "rankitect.models.huggingface_code"


class _Identity(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any]
    architecture: dict[str, Any]
    config: dict[str, Any]


@dataclass(frozen=True)
class WholeModel:
    """A language model with all that goes with it.

    Attributes:
        space: The search space.
        architecture: The closed choices.
        model: Made from both.
        tokenizer: Of the backbone.
        config: The backbone's sizes.
        usage: How the backbone is used.
    """

    space: SearchSpace
    architecture: Architecture
    model: Standalone
    tokenizer: Tokenizer
    config: DecoderConfig
    usage: Usage

    def in_rounded_floats(self) -> WholeModel:
        """With weights that are what it computes with, for files that hold floats only."""
        space, model = in_rounded_floats(self.space, self.architecture, self.model)
        return replace(self, space=space, model=model)


def save_folder(folder: Path, whole: WholeModel) -> tuple[str | None, str | None]:
    """Write a model as a class of `transformers`, or with code of its own where it is none.

    Args:
        folder: Created if it does not exist.
        whole: The model, with all that goes with it.

    Returns:
        The class as which it was written, None where it cannot be at all; and why it is no class of `transformers`,
        None where it is one.
    """
    whole = whole.in_rounded_floats()
    layout = huggingface_layout(whole.space, whole.architecture, whole.config)
    if layout.config is not None:
        save_huggingface(folder, layout.config, layout.tensors(whole.model), whole.tokenizer, whole.usage)
        keys = read_json(folder / "config.json", dict[str, Any], AssetError)
        return str(keys["architectures"][0]), None
    row = decoder_layers(whole.space, whole.architecture, whole.config)
    if not row.layers:
        return None, layout.reason
    by_layer = ByLayer(row)
    _write(folder, by_layer, whole)
    return by_layer.architecture, layout.reason


def save_decilm(folder: Path, whole: WholeModel) -> tuple[str, ...]:
    """Write a model as DeciLM, for which vLLM and TensorRT-LLM have code of their own. Arguments as of `save_folder`.

    Returns:
        What a user should know of the files: which layers were written with heads that add nothing.

    Raises:
        SpaceError: It is none.
    """
    whole = whole.in_rounded_floats()
    row = decoder_layers(whole.space, whole.architecture, whole.config)
    reason = not_decilm(row, padded=True) if row.layers else row.difference
    if reason is not None:
        raise SpaceError(f"{whole.architecture.fingerprint[:8]} is no DeciLM: {reason}.")
    by_layer = ByLayer(row, padded=not_decilm(row) is not None)
    _write(folder, by_layer, whole)
    return tuple(by_layer.notes())


def _write(folder: Path, by_layer: ByLayer, whole: WholeModel) -> None:
    """Write a model whose layers may differ, with its code."""
    space = whole.space
    identity = {
        "space": json.loads(space.to_json()),
        "architecture": whole.architecture.to_data(),
        "config": whole.config.to_json(),
    }
    code = {name: files(_CODE_PACKAGE).joinpath(name).read_text(encoding="utf-8") for name in OURS}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / IDENTITY, json.dumps(identity) + "\n")
    write_folder(folder, by_layer.keys(), by_layer.tensors(whole.model), whole.tokenizer, whole.usage, code)


def _says(stated: Mapping[str, Any], way: ByLayer) -> bool:
    """Whether config.json says what layers are; folders of earlier versions lack the keys that lead back to these, and
    call every activation "silu", which only `blocks` decides."""
    usual: dict[str, Any] = way.read_back()
    keys = json.loads(json.dumps(way.keys()))
    if stated.get("hidden_act") == "silu":
        del keys["hidden_act"]
    return all(stated.get(key, value if key in usual else ...) == value for key, value in keys.items())


def load_by_layer(folder: Path, allowed_packages: Sequence[str] = ("rankitect",)) -> LanguageCandidate:
    """The model of a folder whose layers may differ; its code is not run.

    Args:
        folder: Holds rankitect.json.
        allowed_packages: Where the space's blocks may come from.

    Raises:
        AssetError: A file is missing or damaged, or the files contradict each other.
    """
    where = brief(folder, 200)
    identity = read_json(place_of(folder, IDENTITY), _Identity, AssetError, advice=_AGAIN)
    stated = read_json(place_of(folder, "config.json"), dict[str, Any], AssetError, advice=_AGAIN)

    def make() -> tuple[SearchSpace, Architecture, DecoderConfig, list[ByLayer]]:
        space = SearchSpace.from_json(json.dumps(identity.space), allowed_packages)
        architecture = space.validate(Architecture.from_json(json.dumps(identity.architecture)))
        config = DecoderConfig.from_json(identity.config)
        row = decoder_layers(space, architecture, config)
        ways = [ByLayer(row), ByLayer(row, padded=True)] if row.layers else []
        return space, architecture, config, [way for way in ways if _says(stated, way)]

    space, architecture, config, ways = guarded_model(folder / IDENTITY, make)
    if not ways:
        raise AssetError(f"{where}: config.json describes other layers than {IDENTITY}. Copy the whole folder again.")
    weights = ways[0].parameters(read_weights(place_of(folder, WEIGHTS)), where)
    for (owner, name), tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise AssetError(f"{where}: {owner}.{name} holds values that are not finite numbers.")
    plan = make_plan(space, architecture)
    model = Standalone(plan, {key: weights[key] for key in plan.shapes()})
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab:
        raise AssetError(f"{where}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab}.")
    usage = Usage.load(folder, tokenizer, config.vocab)
    card = card_of("language", space, architecture, None, {"folder": folder.name})
    return LanguageCandidate(space, architecture, model.eval(), card, tokenizer, config, usage)
