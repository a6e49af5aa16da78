"""Candidates that are language models: their tokenizer and how they are used come with them.

The same model is also written as a folder that `transformers` loads, with code of its own where its layers differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.errors import AssetError
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import COSTS
from rankitect.models.candidate.base import REQUIRED
from rankitect.models.candidate.folder import (
    CARD,
    CandidateFolder,
    brief,
    card_of,
    read_model,
    write_card,
    write_model,
)
from rankitect.models.candidate.huggingface import WholeModel, save_folder
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints import DecoderConfig
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families import family_of
from rankitect.models.gguf_layout import gguf_layout
from rankitect.models.supernet import Standalone

__all__ = ["read_language", "save_candidate"]

_HUGGINGFACE = "hf"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def save_candidate(
    folder: str | Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    tokenizer: Tokenizer,
    *,
    config: DecoderConfig,
    usage: Usage | None = None,
    notes: Mapping[str, Any] | None = None,
    huggingface: bool = True,
    searched: Architecture | None = None,
) -> dict[str, str]:
    """Write a language model. Each file appears whole or not at all, candidate.json last: where it is, all is there.

    Args:
        folder: Created if it does not exist; files of an older candidate in it are replaced.
        space: The search space.
        architecture: The closed choices.
        model: Made from both (`Supernet.extract`, `build`), trained or not.
        tokenizer: Of the backbone.
        config: The backbone's sizes; those that a choice decides are replaced by what the architecture says.
        usage: How the backbone is used; by default what the tokenizer knows.
        notes: Plain data on where the weights come from (backbone, healing, seed, run); kept in the card.
        huggingface: Also write ``hf/``, where the architecture allows it.
        searched: What was searched, where stages of a recipe have made a model of another architecture of it.

    Returns:
        For each artifact its path relative to `folder`: "card", "architecture", "space", "weights", "tokenizer",
        "tokenizer_config", each other file of the tokenizer by its name and, where they were written, "backbone" and
        "huggingface".

    Raises:
        SpaceError: The architecture is not of the space, or the model is of another architecture.
        AssetError: The notes are no plain data.
        OSError: The disk is full or cannot be written.
    """
    folder, architecture = Path(folder), space.validate(architecture)
    usage = usage or Usage()
    card = card_of("language", space, architecture, searched, notes or {})
    context = space.defaults["T"]
    decode = space.cost(architecture, "flops", T=1, P=context)
    card["config"] = config.to_json()
    card["costs"]["flops_decode"] = {"value": decode, "unit": COSTS["flops"]}
    card["costs_at"]["flops_decode"] = f"one token after {context}"
    written = write_model(folder, space, architecture, model, searched)
    files = usage.save(folder, tokenizer)
    target = folder / _HUGGINGFACE
    shutil.rmtree(target, ignore_errors=True)  # an older candidate's would pass for this one's
    card["huggingface"] = {"folder": None, "class": None, "reason": "not asked for"}
    if huggingface:
        kind, reason = save_folder(target, WholeModel(space, architecture, model, tokenizer, config, usage))
        card["huggingface"] = {"folder": _HUGGINGFACE if kind else None, "class": kind, "reason": reason}
    gguf = gguf_layout(space, architecture, config)
    card["gguf"] = {"architecture": gguf.architecture or None, "reason": gguf.reason}
    write_card(folder, card, [*written.values(), *files])
    written |= {_artifact(name): name for name in files if "/" not in name}
    written |= {name.partition("/")[0]: name.partition("/")[0] for name in files if "/" in name}
    if card["huggingface"]["folder"]:
        written["huggingface"] = _HUGGINGFACE
    return {"card": CARD, **written}


def _artifact(name: str) -> str:
    """tokenizer.json is "tokenizer"; what would have the name of another file keeps its ending."""
    stem, _, ending = name.rpartition(".")
    return stem if ending == "json" else name


def read_language(folder: CandidateFolder, verify: bool, allowed_packages: Sequence[str]) -> LanguageCandidate:
    """A language model from its folder, equal to the bit.

    Raises:
        AssetError: A file is missing, truncated or altered, or the files contradict each other.
    """
    folder.check((*REQUIRED, *_TOKENIZER), verify)
    space, architecture, model = read_model(folder, allowed_packages)
    try:
        config = DecoderConfig.from_json(folder.card["config"])
        family_of(config)
    except (AssetError, KeyError, TypeError) as error:
        raise AssetError(f"{brief(folder.path / CARD, 200)}: config: {brief(error, 200)}") from error
    tokenizer = load_tokenizer(folder.path)
    if tokenizer.vocab_size > config.vocab:
        raise AssetError(
            f"{brief(folder.path, 200)}: the tokenizer has {tokenizer.vocab_size} tokens, but the model only "
            f"{config.vocab}."
        )
    usage = Usage.load(folder.path, tokenizer, config.vocab)
    return LanguageCandidate(space, architecture, model.eval(), folder.card, tokenizer, config, usage)
