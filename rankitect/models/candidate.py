"""A candidate on disk: an architecture of a space with weights and tokenizer, in safetensors and JSON only.

The folder's format is in docs/candidate-format.md. Where every layer is alike, the same model is also written as a
folder that `transformers` loads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankitect.data.files import file_sha256, write_atomically
from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.documents import read_json
from rankitect.errors import AssetError, SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import COSTS
from rankitect.models.checkpoints import DecoderConfig, save_huggingface
from rankitect.models.families import family_of
from rankitect.models.huggingface_layout import huggingface_layout
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone

__all__ = ["CARD", "SCHEMA", "Candidate", "load_candidate", "save_candidate"]

SCHEMA = 1
CARD = "candidate.json"
_FILES = {
    "architecture": "architecture.json",
    "space": "space.json",
    "weights": "weights.safetensors",
    "tokenizer": "tokenizer.json",
    "tokenizer_config": "tokenizer_config.json",
}
_HUGGINGFACE = "hf"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate read back from its folder.

    Attributes:
        space: The search space.
        architecture: The closed choices.
        model: Token ids [B, T] int64 to logits [B, T, V].
        tokenizer: The backbone's.
        config: The backbone's sizes and family.
        card: The content of candidate.json: sizes, costs, provenance.
    """

    space: SearchSpace
    architecture: Architecture
    model: Standalone
    tokenizer: Tokenizer
    config: DecoderConfig
    card: Mapping[str, Any]


def save_candidate(
    folder: str | Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    tokenizer: Tokenizer,
    *,
    config: DecoderConfig,
    notes: Mapping[str, Any] | None = None,
    huggingface: bool = True,
) -> dict[str, str]:
    """Write a candidate. Each file appears whole or not at all, candidate.json last: where it is, all is there.

    Args:
        folder: Created if it does not exist; files of an older candidate in it are replaced.
        space: The search space.
        architecture: The closed choices.
        model: Made from both (`Supernet.extract`, `build`), trained or not.
        tokenizer: Of the backbone.
        config: The backbone's sizes; those that a choice decides are replaced by what the architecture says.
        notes: Plain data on where the weights come from (backbone, healing, seed, run); kept in the card.
        huggingface: Also write ``hf/``, where the architecture allows it.

    Returns:
        For each artifact its path relative to `folder`: "card", "architecture", "space", "weights", "tokenizer",
        "tokenizer_config" and, where it was written, "huggingface".

    Raises:
        SpaceError: The architecture is not of the space, or the model is of another architecture.
        AssetError: The notes are no plain data.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    architecture = space.validate(architecture)
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in model.state_dict().items()}
    shapes = _shapes(space, architecture)
    if wrong := _difference(tensors, shapes):
        raise SpaceError(f"the model is not of architecture {architecture.fingerprint[:8]}: {wrong}")
    card = _card(space, architecture, config, notes or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    _write_text(folder / _FILES["architecture"], architecture.to_json())
    _write_text(folder / _FILES["space"], space.to_json())
    write_atomically(folder / _FILES["weights"], lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    tokenizer.save(folder)
    written = {"card": CARD, **_FILES}
    layout = huggingface_layout(space, architecture, config)
    card["huggingface"] = {"folder": None, "reason": layout.reason or "not asked for"}
    target = folder / _HUGGINGFACE
    shutil.rmtree(target, ignore_errors=True)  # an older candidate's would pass for this one's
    if huggingface and layout.config is not None:
        save_huggingface(target, layout.config, layout.tensors(model), tokenizer)
        if layout.overrides:
            _override(target / "config.json", layout.overrides)
        written["huggingface"] = _HUGGINGFACE
        card["huggingface"] = {"folder": _HUGGINGFACE, "reason": None}
    card["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in _FILES.values()
    }
    _write_text(folder / CARD, json.dumps(card, indent=2))
    return written


def load_candidate(
    folder: str | Path, *, verify: bool = True, allowed_packages: Sequence[str] = ("rankitect",)
) -> Candidate:
    """Read a candidate back, equal to the bit.

    Args:
        folder: Written by `save_candidate`.
        verify: Compare every file's SHA-256 with the card's (0.3 s for half a gigabyte); sizes are always compared.
        allowed_packages: Where the space's blocks may come from; a folder can run no code from elsewhere.

    Raises:
        AssetError: A file is missing, truncated, altered or of another schema, or the files contradict each other.
    """
    folder = Path(folder)
    card = _read_card(folder)
    for name in _FILES.values():
        _check_file(folder / name, card["files"][name], verify)
    try:
        space = SearchSpace.from_json(_read_text(folder / _FILES["space"]), allowed_packages)
        text = _read_text(folder / _FILES["architecture"])
        architecture = space.validate(Architecture.from_json(text))
        plan = make_plan(space, architecture)
    except SpaceError as error:
        raise AssetError(f"{folder}: its space.json and architecture.json make no model: {error}") from error
    if architecture.fingerprint != card["fingerprint"]:
        raise AssetError(
            f"{folder}: architecture.json is {architecture.fingerprint[:8]}, but {CARD} describes "
            f"{str(card['fingerprint'])[:8]}. Files of two candidates are mixed; copy the whole folder again."
        )
    tensors = _read_weights(folder / _FILES["weights"])
    if wrong := _difference(tensors, _shapes(space, architecture)):
        raise AssetError(f"{folder / _FILES['weights']} does not fit architecture.json: {wrong}")
    by_key = {key: tensors[".".join(key)] for key in plan.shapes()}
    try:
        config = DecoderConfig.from_json(card["config"])
        family_of(config)
    except AssetError as error:
        raise AssetError(f"{folder / CARD}: config: {error}") from error
    return Candidate(space, architecture, Standalone(plan, by_key), load_tokenizer(folder), config, card)


def _card(
    space: SearchSpace, architecture: Architecture, config: DecoderConfig, notes: Mapping[str, Any]
) -> dict[str, Any]:
    """The model card: what the model is, what it costs, where it comes from."""
    from rankitect import __version__

    try:
        plain = json.loads(json.dumps(dict(notes)))
    except (TypeError, ValueError) as error:
        raise AssetError(f"a candidate's notes must be plain data (text, numbers, lists, mappings): {error}") from error
    context = space.defaults["T"]
    costs = {kind: {"value": space.cost(architecture, kind), "unit": unit} for kind, unit in COSTS.items()}
    costs["flops_decode"] = {"value": space.cost(architecture, "flops", T=1, P=context), "unit": COSTS["flops"]}
    return {
        "schema": SCHEMA,
        "kind": "rankitect candidate",
        "fingerprint": architecture.fingerprint,
        "space": {"name": space.name, "version": space.version},
        "config": config.to_json(),
        "costs": costs,
        "costs_at": {**space.defaults, "flops_decode": f"one token after {context}"},
        "notes": plain,
        "versions": {"rankitect": __version__, "torch": str(torch.__version__)},
    }


def _shapes(space: SearchSpace, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {".".join(key): shape for key, shape in make_plan(space, architecture).shapes().items()}


def _difference(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong with tensors that should have these shapes, or None."""
    if missing := sorted(shapes.keys() - tensors.keys()):
        return f"{len(missing)} of {len(shapes)} weights are missing ({', '.join(missing[:3])})"
    if extra := sorted(tensors.keys() - shapes.keys()):
        return f"{len(extra)} weights do not belong to it ({', '.join(extra[:3])})"
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            return f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
        if tensors[name].dtype not in _DTYPES:
            return f"{name} is stored as {tensors[name].dtype}; floating-point numbers are needed"
    return None


def _read_card(folder: Path) -> dict[str, Any]:
    if not (folder / CARD).is_file():
        raise AssetError(
            f"{folder} has no {CARD}, so it is no candidate, or writing it was interrupted. Give a folder that "
            "`save_candidate` wrote, such as one in a run folder's candidates/."
        )
    try:
        card = read_json(folder / CARD, dict[str, Any], AssetError, advice="Copy it again.")
        if card["schema"] != SCHEMA:
            raise AssetError(
                f"{folder / CARD} has schema {card['schema']!r}; this version of Rankitect reads {SCHEMA}. "
                "Read it with the version that wrote it (under `versions`)."
            )
        for name in _FILES.values():
            int(card["files"][name]["bytes"]), str(card["files"][name]["sha256"])
        str(card["fingerprint"]), dict(card["config"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, AssetError):
            raise
        raise AssetError(f"{folder / CARD} is damaged ({type(error).__name__}: {error}). Copy it again.") from error
    return dict(card)


def _check_file(file: Path, expected: Mapping[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise AssetError(f"{file.parent} has no {file.name}, which {CARD} lists. Copy the whole folder again.")
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise AssetError(
            f"{file} is truncated or altered: {size} bytes, but {CARD} says {expected['bytes']}. Copy it again."
        )
    if verify and (actual := file_sha256(file)) != expected["sha256"]:
        raise AssetError(
            f"{file} was altered: its SHA-256 is {actual[:12]}…, but {CARD} says {expected['sha256'][:12]}…. "
            "Copy it again; to use a file that was changed on purpose, save a new candidate."
        )


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{file} is truncated or damaged ({error}). Copy it again.") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{file} cannot be read ({error}). Copy it again.") from error


def _write_text(file: Path, text: str) -> None:
    write_atomically(file, lambda part: part.write_text(text + "\n", encoding="utf-8"))


def _override(file: Path, values: Mapping[str, Any]) -> None:
    _write_text(file, json.dumps({**read_json(file, dict[str, Any], AssetError), **values}, indent=2))
