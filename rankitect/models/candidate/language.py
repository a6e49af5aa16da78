"""Candidates that are language models: their tokenizer and how they are used come with them.

Where every layer is alike, the same model is also written as a folder that `transformers` loads.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.errors import AssetError, DataError
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import COSTS
from rankitect.models.candidate.base import REQUIRED, Candidate, device_of
from rankitect.models.candidate.folder import (
    CARD,
    CandidateFolder,
    brief,
    card_of,
    read_model,
    write_card,
    write_model,
)
from rankitect.models.checkpoints import DecoderConfig, save_huggingface
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families import family_of
from rankitect.models.huggingface_layout import huggingface_layout
from rankitect.models.supernet import Standalone

__all__ = ["LanguageCandidate", "TextScore", "read_language", "save_candidate"]

_HUGGINGFACE = "hf"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Attributes:
        nats: Negative log-likelihood of the predicted tokens, summed, in nats.
        tokens: Tokens that were predicted: all but the first of each window.
    """

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(nats a token); lower is better."""
        try:
            return math.exp(self.nats / self.tokens)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, eq=False)
class LanguageCandidate(Candidate):
    """A language model: token ids [B, T] int64 to logits [B, T, V].

    Attributes:
        tokenizer: The backbone's.
        config: The backbone's sizes and family.
        usage: How the backbone is used: chat template, begin and stop tokens, sampling defaults.
    """

    tokenizer: Tokenizer
    config: DecoderConfig
    usage: Usage

    def encode(self, text: str) -> torch.Tensor:
        """Token ids of a text where the model is, [1, T] int64. No token is added.

        Raises:
            DataError: The text has no tokens, or cannot be encoded.
        """
        ids = torch.as_tensor(self.tokenizer.encode(text)).long()[None]
        if not ids.numel():
            raise DataError("The text has no tokens.")
        return ids.to(device_of(self.model))

    @torch.inference_mode()
    def score(self, inputs: str | Sequence[str]) -> list[TextScore]:
        """How well the model predicts each text.

        A text longer than the backbone's context is read in windows, each of which is predicted from its own beginning
        on, as a search measures perplexity.

        Args:
            inputs: Texts of at least two tokens.

        Raises:
            DataError: A text is too short, or cannot be encoded.
        """
        scores = []
        for number, text in enumerate([inputs] if isinstance(inputs, str) else inputs):
            ids, nats = self.encode(text), 0.0
            if ids.shape[1] < 2:
                raise DataError(f"Text {number} ({brief(repr(text), 60)}) has one token: nothing to predict.")
            for start in range(0, ids.shape[1] - 1, self.config.context):
                window = ids[:, start : start + self.config.context + 1]
                logits = self.model(window[:, :-1])[0].float()
                nats += float(F.cross_entropy(logits, window[0, 1:], reduction="sum"))
            scores.append(TextScore(nats, ids.shape[1] - 1))
        return scores

    @torch.inference_mode()
    def generate(self, prompt: str, tokens: int = 32) -> str:
        """The most probable next tokens after a prompt, until one of the stop tokens; nothing is cached.

        Args:
            prompt: A text; special tokens written in it are plain characters.
            tokens: How many at most.

        Raises:
            DataError: The prompt has no tokens, or cannot be encoded.
        """
        ids, answer = self.encode(prompt), list[int]()
        while len(answer) < tokens:
            token = int(self.model(ids[:, -self.config.context :])[0, -1].argmax())
            if token in self.usage.stop_ids:
                break
            answer.append(token)
            ids = torch.cat([ids, ids.new_tensor([[token]])], dim=1)
        return self.tokenizer.decode(answer)


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
    card = card_of("language", space, architecture, None, notes or {})
    context = space.defaults["T"]
    decode = space.cost(architecture, "flops", T=1, P=context)
    card["config"] = config.to_json()
    card["costs"]["flops_decode"] = {"value": decode, "unit": COSTS["flops"]}
    card["costs_at"]["flops_decode"] = f"one token after {context}"
    written = write_model(folder, space, architecture, model)
    files = usage.save(folder, tokenizer)
    layout = huggingface_layout(space, architecture, config)
    card["huggingface"] = {"folder": None, "reason": layout.reason or "not asked for"}
    target = folder / _HUGGINGFACE
    shutil.rmtree(target, ignore_errors=True)  # an older candidate's would pass for this one's
    if huggingface and layout.config is not None:
        save_huggingface(target, layout.config, layout.tensors(model), tokenizer, usage)
        card["huggingface"] = {"folder": _HUGGINGFACE, "reason": None}
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
