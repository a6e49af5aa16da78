"""The configuration of `rankitect.train`: that of a search, without what only a search reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankitect.config.compose import compose
from rankitect.config.resolve import Resolved, checked
from rankitect.config.schema import SearchConfig
from rankitect.errors import ConfigError, short

__all__ = ["TrainingConfig", "reads", "resolve_training"]

MODEL = "model"
_WHOLE = (
    "space",
    "task",
    "recipe",
    "measures",
    "device",
    "choices",
    "seed",
    "placement",
    "output_dir",
    "resume",
    "preset",
    "allowed_packages",
)
_PARTS = ("evaluator.final", "runner.threads", "runner.progress")
"""Sections of which only this part is read."""


@dataclass(frozen=True)
class TrainingConfig:
    """What `rankitect.train` was asked for.

    Attributes:
        resolved: The configuration as a search would have it.
        model: Which model: a file, or a name; None: the largest.
        data: What training depends on, as plain data; what config.yaml holds and the hash is taken of.
    """

    resolved: Resolved
    model: str | None
    data: dict[str, Any]


def resolve_training(overrides: Sequence[str], extra_folder: Path | None = None) -> TrainingConfig:
    """Compose and check the configuration of a training.

    Args:
        overrides: In Hydra's grammar; `model=` names the model.
        extra_folder: A folder of the user's own groups.

    Raises:
        ConfigError: With one line for each mistake.
    """
    for override in overrides:
        _refuse_what_only_a_search_reads(override)
    composed = compose(overrides, extra_folder)
    data = dict(composed.data)
    model = data.pop(MODEL, None)
    if not isinstance(model, str | None) or model == "":
        raise ConfigError(f"'model' is {model!r}: it must be a file, or the name of a model.")
    if isinstance(data.get("evaluator"), dict):
        data["evaluator"] = {**data["evaluator"], "screen": None, "proxy": None}
    resolved = checked(replace(composed, data={**data, "constraints": {}}))
    kept = {MODEL: model, **{section: resolved.data[section] for section in _WHOLE}}
    for part in _PARTS:
        section, _, key = part.partition(".")
        kept.setdefault(section, {})[key] = resolved.data[section][key]
    return TrainingConfig(resolved, model, kept)


def reads(key: str) -> bool:
    """Whether a training reads a key of a search, or an option of a group; true of what is no key at all."""
    section = key.split(".")[0]
    if section not in SearchConfig.model_fields or section in _WHOLE or key == "evaluator":
        return True
    return any(key == part or key.startswith(f"{part}.") for part in _PARTS)


def _refuse_what_only_a_search_reads(override: str) -> None:
    key = override.partition("=")[0].lstrip("+~")
    if not reads(key):
        raise ConfigError(
            f"'{short(key, 80)}' on the command line: rankitect.train trains one model and does not search. It reads "
            f"{', '.join([MODEL, *_WHOLE, *_PARTS])}."
        )
