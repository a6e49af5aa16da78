"""Language models as GGUF files, which llama.cpp, Ollama and LM Studio run as they are; and such files read back.

A file also says which architecture of which space its model is. By that, one whose layers differ can be compared with
the candidate that it was made from, whatever its precision; one whose layers are alike is a backbone as any other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankitect.data.table_writing import tables_of
from rankitect.data.tokenizer import Tokenizer
from rankitect.documents import parse_json
from rankitect.errors import AssetError, SpaceError, shown
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.candidate.folder import brief, card_of, guarded_model
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints.checkpoint import check_fits
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.checkpoints.gguf_parts import open_parts, tensors_of
from rankitect.models.checkpoints.gguf_tokenizer import read_tokenizer, tokenizer_keys
from rankitect.models.checkpoints.gguf_writing import stops_left_out, usage_keys, write_gguf
from rankitect.models.checkpoints.precisions import GGUFPrecision
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.checkpoints.usage_sources import usage_of_gguf
from rankitect.models.families import DecoderConfig
from rankitect.models.gguf_layout import GGUFLayout, gguf_layout
from rankitect.models.plan import make_plan
from rankitect.models.rounded import in_rounded_floats
from rankitect.models.supernet import Standalone

__all__ = ["load_gguf_candidate", "save_gguf"]

_log = logging.getLogger("rankitect")
_PREFIX = "rankitect."
_NAMES = ("space", "architecture", "config")


def save_gguf(
    path: Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    tokenizer: Tokenizer,
    *,
    config: DecoderConfig,
    usage: Usage | None = None,
    precision: GGUFPrecision = "float16",
) -> tuple[str, ...]:
    """Write a language model as a GGUF file.

    Args:
        path: Replaced if it is there.
        space: The search space.
        architecture: The closed choices.
        model: Made from both.
        tokenizer: Of the backbone.
        config: The backbone's sizes; those that a choice decides are replaced by what the architecture says.
        usage: How the backbone is used; by default what the tokenizer knows.
        precision: How matrices are stored.

    Returns:
        What a user should know of the file. The log says it too.

    Raises:
        SpaceError: It is no model of llama.cpp; says why.
        AssetError: No file can hold its tokenizer, or the precision cannot be made.
        OSError: The disk is full or cannot be written.
    """
    name = architecture.fingerprint[:8]
    space, model = in_rounded_floats(space, architecture, model)
    layout = gguf_layout(space, architecture, config)
    if layout.reason is not None:
        raise SpaceError(f"{name} is no model of llama.cpp: {layout.reason}.")
    keys: dict[str, Any] = {"general.type": "model", "general.name": f"rankitect {name}", **dict(layout.stated())}
    keys |= dict(tokenizer_keys(tables_of(tokenizer, config.vocab)))
    keys |= dict(usage_keys(usage or Usage(), tokenizer))
    own = (space.to_json(), architecture.to_json(), json.dumps(config.to_json()))
    keys |= {_PREFIX + name: text for name, text in zip(_NAMES, own, strict=True)}
    write_gguf(path, layout.architecture, keys.items(), layout.tensors(model), precision)
    notes = layout.notes
    if more := stops_left_out(usage or Usage(), tokenizer):
        notes += (f"a GGUF file has room for three stop tokens; left out: {brief(', '.join(map(str, more)))}",)
    for note in notes:
        _log.info("%s: %s.", brief(path, 200), note)
    return notes


def load_gguf_candidate(path: Path, allowed_packages: Sequence[str] = ("rankitect",)) -> LanguageCandidate:
    """The model of a GGUF file that `save_gguf` wrote, in whatever precision it is now.

    Args:
        path: The file, or any of its parts.
        allowed_packages: Where the space's blocks may come from.

    Raises:
        AssetError: The file is damaged, was written by another tool, or contradicts itself.
    """
    parts = open_parts(path)
    metadata, stored = Metadata(path, parts[0].metadata), tensors_of(parts)
    texts = {name: metadata.get(_PREFIX + name, str, "") for name in _NAMES}
    if not all(texts.values()):
        raise AssetError(
            f"{brief(path, 200)} does not say which candidate it is (the key {_PREFIX}space): another tool wrote it. "
            "rankitect.models.checkpoints.load_checkpoint reads it as a backbone."
        )

    def make() -> tuple[SearchSpace, Architecture, DecoderConfig, GGUFLayout]:
        space = SearchSpace.from_json(texts["space"], allowed_packages)
        architecture = space.validate(Architecture.from_json(texts["architecture"]))
        config = DecoderConfig.from_json(parse_json(texts["config"], dict[str, Any], path, AssetError))
        return space, architecture, config, gguf_layout(space, architecture, config)

    space, architecture, config, layout = guarded_model(path, make)
    _check_keys(metadata, layout)
    check_fits(sum(prod(entry.shape) for _, entry in stored.values()), brief(path, 200))
    tensors = {name: torch.from_numpy(file.values(entry)) for name, (file, entry) in stored.items()}
    weights = layout.parameters(tensors, brief(path, 200))
    for (owner, name), tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise AssetError(f"{brief(path, 200)}: {owner}.{name} holds values that are not finite numbers.")
    plan = make_plan(space, architecture)
    model = Standalone(plan, {key: weights[key] for key in plan.shapes()})
    tokenizer = read_tokenizer(metadata, config.vocab)
    usage = usage_of_gguf(parts[0].metadata, tokenizer, config.vocab, config.context, path)
    card = card_of("language", space, architecture, None, {"file": path.name})
    return LanguageCandidate(space, architecture, model.eval(), card, tokenizer, config, usage)


def _check_keys(metadata: Metadata, layout: GGUFLayout) -> None:
    """Check that llama.cpp computes what the architecture does.

    Raises:
        AssetError: A key says something else, or there is no such model of llama.cpp.
    """
    where = brief(metadata.path, 200)
    if layout.reason is not None:
        raise AssetError(f"{where} says that it is an architecture which is no model of llama.cpp: {layout.reason}.")
    stated = {"general.architecture": layout.architecture, **dict(layout.stated())}
    for key, value in stated.items():
        given = metadata.values.get(key)
        same = given == np.float32(value) if isinstance(value, float) else given == value
        if type(given) is not type(value) or not same:
            raise AssetError(f"{where}: {key} is {shown(given)}, but its own architecture asks for {shown(value)}.")
    own = (key for key in metadata.values if key.startswith(f"{layout.architecture}."))
    if more := sorted(set(own) - stated.keys()):
        given = metadata.values[more[0]]
        raise AssetError(f"{where}: {shown(more[0])} is {shown(given)}, which its own architecture does not state.")
