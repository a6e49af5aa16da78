"""A language candidate as a program of the mobile runtime, after the search."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from rankitect.errors import ConfigError, DataError, brief

if TYPE_CHECKING:
    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.models.candidate import LanguageCandidate
    from rankitect.models.supernet import Standalone

__all__ = ["CAPACITY", "PROMPT", "Judging", "Precision", "ProgramSettings", "export_program"]

Precision = Literal["float32", "8da4w"]
"""What a program's precision is asked for as; 8da4w gives bits to what has none of its own."""
_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROMPT, CAPACITY = 64, 256
"""Tokens of a prefill, and of the longest sequence, where nobody says."""
Judging: TypeAlias = "Callable[[Path, LanguageCandidate, int], ProgramJudge | None]"
"""Gives what judges the programs of a run's candidate, of so many tokens; None for text. Raises `DataError` where it
cannot."""
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

    precision: Precision | None = None
    prompt: int | None = None
    capacity: int | None = None
    text: str | None = None

    @classmethod
    def of(cls, precision: str | None, prompt: str | None, capacity: str | None, text: str | None) -> ProgramSettings:
        """From the words of a command line.

        Raises:
            ConfigError: One of them is not allowed; names it and what is.
        """
        kept = next((one for one in _PRECISIONS if one == precision), None)
        if precision is not None and kept is None:
            raise ConfigError(
                f"precision={brief(precision, 80)} is none of {', '.join(_PRECISIONS)} for to=executorch."
            )
        tokens, longest = _whole("prompt", prompt, 1), _whole("capacity", capacity, 2)
        if tokens is not None and tokens >= (longest or CAPACITY):
            said = f"capacity={longest}" if longest else f"capacity= is missing, which would be {CAPACITY}"
            raise ConfigError(f"prompt={tokens}, and {said}: it must be more, as it counts prompt and answer together.")
        return cls(kept, tokens, longest, text)

    def sizes(self, context: int) -> tuple[int, int]:
        """Prompt and capacity for a model that was made for so many tokens.

        Raises:
            ConfigError: It was made for fewer.
        """
        capacity = self.capacity or min(CAPACITY, context)
        prompt = self.prompt or min(PROMPT, capacity // 2)
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
    judging: Judging | None = None,
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
        judging: Gives what judges the programs of a run, where that is no text.

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
    from rankitect.deploy.guards import GuardNotes
    from rankitect.deploy.held_out import open_given, text_of_file, text_of_run
    from rankitect.deploy.lowering import require_runtime
    from rankitect.deploy.quality import ProgramQuality
    from rankitect.documents import read_json
    from rankitect.models.candidate import CARD as CANDIDATE
    from rankitect.models.candidate import load_language_model

    require_runtime()
    source = None if settings.text is None else open_given(settings.text)
    candidate = load_language_model(folder, allowed_packages=allowed_packages)
    prompt, capacity = settings.sizes(candidate.config.context)
    model = _in_precision(settings.precision, candidate)
    guard = GuardNotes.of_candidate(candidate.card, folder / CANDIDATE)
    judge, text, unmeasured = None, None, None
    try:
        if source is not None:
            text = text_of_file(source, candidate, capacity)
        elif run is None:
            unmeasured = "no text was named"
        else:
            judge = None if judging is None else judging(run, candidate, capacity)
            text = text_of_run(run, candidate) if judge is None else None
    except DataError as error:
        unmeasured = brief(error, 300).rstrip(".")
    notes = {"candidate": candidate.architecture.fingerprint, "unmeasured": unmeasured, **(guard[1] if guard else {})}
    floats = candidate.model if candidate.model.plan.is_float else None
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        candidate.usage.save(part, candidate.tokenizer)
        how = {"prompt": prompt, "capacity": capacity}
        export(part, model, candidate.tokenizer, **how, text=text, floats=floats, judge=judge, notes=notes)
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

    if wanted == "float32" and not candidate.model.plan.is_float:
        own = precision_of(candidate.model.plan)
        raise ConfigError(f"precision=float32: the candidate's own weights are {own}. Leave precision= out.")
    model = in_8da4w(candidate.space, candidate.model) if wanted == "8da4w" else candidate.model
    require_lowerable(model.plan)
    return model
