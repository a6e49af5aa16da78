"""A language candidate as a program of the mobile runtime, after the search."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankitect.errors import ConfigError, DataError, brief

if TYPE_CHECKING:
    import torch

    from rankitect.models.candidate import LanguageCandidate
    from rankitect.models.supernet import Standalone

__all__ = ["ProgramSettings", "export_program"]

_PRECISIONS = ("float32", "8da4w")
_PROMPT, _CAPACITY = 64, 256
_MOST = 2**20


@dataclass(frozen=True)
class ProgramSettings:
    """How a candidate becomes a program.

    Attributes:
        precision: "8da4w" gives 4 bits to what has none of its own; None: the bits that the candidate has.
        prompt: Tokens of a prefill; None: 64, or half of a shorter capacity.
        capacity: Tokens of the longest sequence, prompt and answer together; None: 256, or a shorter context.
        text: Where text is that the candidate was not trained on; None: the run's own.
    """

    precision: Literal["float32", "8da4w"] | None = None
    prompt: int | None = None
    capacity: int | None = None
    text: str | None = None

    @classmethod
    def of(cls, precision: str | None, prompt: str | None, capacity: str | None, text: str | None) -> ProgramSettings:
        """From the words of a command line.

        Raises:
            ConfigError: One of them is not allowed; names it and what is.
        """
        kept = next((one for one in ("float32", "8da4w") if one == precision), None)
        if precision is not None and kept is None:
            raise ConfigError(
                f"precision={brief(precision, 80)} is none of {', '.join(_PRECISIONS)} for to=executorch."
            )
        tokens, longest = _whole("prompt", prompt, 1), _whole("capacity", capacity, 2)
        if tokens is not None and tokens >= (longest or _CAPACITY):
            said = f"capacity={longest}" if longest else f"capacity= is missing, which would be {_CAPACITY}"
            raise ConfigError(f"prompt={tokens}, and {said}: it must be more, as it counts prompt and answer together.")
        return cls(kept, tokens, longest, text)

    def sizes(self, context: int) -> tuple[int, int]:
        """Prompt and capacity for a model that was made for so many tokens.

        Raises:
            ConfigError: It was made for fewer.
        """
        capacity = self.capacity or min(_CAPACITY, context)
        prompt = self.prompt or min(_PROMPT, capacity // 2)
        if capacity > context:
            raise ConfigError(f"capacity={capacity}: the backbone was made for sequences of at most {context} tokens.")
        if prompt >= capacity:
            raise ConfigError(
                f"prompt={prompt}: the backbone was made for sequences of at most {context} tokens, prompt and answer "
                "together."
            )
        return prompt, capacity


def _whole(key: str, given: str | None, least: int) -> int | None:
    if given is None:
        return None
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0
    if not least <= number <= _MOST:
        raise ConfigError(f"{key}={brief(given, 80)}: allowed are whole numbers from {least} to {_MOST:,}.")
    return number


def export_program(
    folder: Path,
    place: Path,
    settings: ProgramSettings,
    run: Path | None = None,
    allowed_packages: Sequence[str] = ("rankitect",),
) -> tuple[str, ...]:
    """Write a candidate as a folder that `python -m rankitect.run_pte` runs.

    The folder appears whole or not at all. It holds model.pte, program.json, the tokenizer and all that says how the
    model is used.

    Args:
        folder: The candidate's.
        place: Where to; an older program there is replaced.
        settings: How.
        run: The run folder that the candidate is of, whose text shows the program's quality where settings name none.
        allowed_packages: Where the space's blocks may come from.

    Returns:
        What a user should know of the program: its quality beside the candidate's.

    Raises:
        AssetError: The folder is no language candidate.
        ConfigError: The settings do not fit the candidate, or their text cannot be read.
        DeployError: ExecuTorch is not installed, lacks bits of the candidate, or cannot run it.
        RunFolderError: Files of the run are damaged.
        OSError: The disk is full or cannot be written.
    """
    from rankitect.deploy.artifact import CARD, export
    from rankitect.deploy.held_out import open_given
    from rankitect.deploy.lowering import require_runtime
    from rankitect.deploy.quality import ProgramQuality
    from rankitect.documents import read_json
    from rankitect.models.candidate import load_language_model

    require_runtime()
    source = None if settings.text is None else open_given(settings.text)
    candidate = load_language_model(folder, allowed_packages=allowed_packages)
    prompt, capacity = settings.sizes(candidate.config.context)
    model = _in_precision(settings.precision, candidate)
    text, unmeasured = _text(source, run, candidate, capacity)
    notes = {"candidate": candidate.architecture.fingerprint, "unmeasured": unmeasured}
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        candidate.usage.save(part, candidate.tokenizer)
        export(part, model, candidate.tokenizer, prompt=prompt, capacity=capacity, text=text, notes=notes)
        if place.is_dir():
            shutil.rmtree(place)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    card = read_json(place / CARD, dict[str, Any])
    sizes = f"{card['precision']}, prompts of {prompt} tokens, sequences of {capacity}"
    if unmeasured is not None:
        return sizes, f"its quality was not measured: {unmeasured}; text=FILE names another text"
    return sizes, str(ProgramQuality.from_json(card["quality"]))


def _in_precision(wanted: str | None, candidate: LanguageCandidate) -> Standalone:
    """The model to export.

    Raises:
        ConfigError: It has bits of its own, and others are wanted.
        DeployError: The runtime lacks its bits, or 4 bits fit none of its matrices.
    """
    from rankitect.deploy.precision import in_8da4w, precision_of, require_lowerable

    own = precision_of(candidate.model.plan)
    if wanted == "float32" and own != "float32":
        raise ConfigError(f"precision=float32: the candidate's own weights are {own}. Leave precision= out.")
    model = in_8da4w(candidate.space, candidate.model) if wanted == "8da4w" else candidate.model
    require_lowerable(model.plan)
    return model


def _text(
    source: Any, run: Path | None, candidate: LanguageCandidate, capacity: int
) -> tuple[torch.Tensor | None, str | None]:
    """Windows to compare program and candidate on; or None and why there are none."""
    from rankitect.deploy.held_out import text_of_file, text_of_run

    if source is not None:
        return text_of_file(source, candidate, capacity), None
    if run is None:
        return None, "no text was named"
    try:
        return text_of_run(run, candidate), None
    except DataError as error:
        return None, brief(error, 300).rstrip(".")
