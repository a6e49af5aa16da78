"""A language candidate in the formats that other tools read, after the search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.errors import ConfigError, SpaceError
from rankitect.models.checkpoints.precisions import PRECISIONS

if TYPE_CHECKING:
    from rankitect.deploy.candidate_program import Judging, ProgramSettings
    from rankitect.models.checkpoints.precisions import GGUFPrecision

__all__ = ["FORMATS", "export_candidate"]

FORMATS = {"gguf": "model.gguf", "huggingface": "hf", "decilm": "decilm", "executorch": "executorch"}
"""The formats, each with the name that is written into the candidate's folder where no other place is given."""


def export_candidate(
    folder: Path,
    form: str,
    out: Path | None = None,
    precision: str | None = None,
    allowed_packages: Sequence[str] = ("rankitect",),
    *,
    program: ProgramSettings | None = None,
    run: Path | None = None,
    judging: Judging | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write a candidate in another format.

    Args:
        folder: The candidate's.
        form: A key of `FORMATS`.
        out: Where to; by default into the candidate's folder. What is there under that name is replaced.
        precision: Of a GGUF file, by default float16; of a program, by default the candidate's own.
        allowed_packages: Where the space's blocks may come from.
        program: Of to=executorch alone: sizes of the program and the text that shows its quality.
        run: The run folder that the candidate is of, whose text is taken where `program` names none.
        judging: Gives what judges the programs of a run, where that is no text.

    Returns:
        What was written, and what a user should know of it.

    Raises:
        ConfigError: The format or the precision is none of those that there are.
        AssetError: The folder is no language candidate, or no such file can hold its tokenizer.
        DeployError: ExecuTorch is not installed, or cannot run the candidate.
        SpaceError: The format cannot express the architecture; says why.
        OSError: The disk is full or cannot be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"to={form} is no format of a candidate: {', '.join(FORMATS)}.")
    if form == "executorch":
        return _program(folder, out or folder / FORMATS[form], precision, program, run, allowed_packages, judging)
    if precision is not None and form != "gguf":
        raise ConfigError(f"precision= is for to=gguf and to=executorch; to={form} is written in float32.")
    kept: GGUFPrecision = _precision(precision)
    from rankitect.models.candidate import load_language_model
    from rankitect.models.candidate.gguf import save_gguf
    from rankitect.models.candidate.huggingface import WholeModel, save_decilm, save_folder

    c = load_language_model(folder, allowed_packages=allowed_packages)
    place = out or folder / FORMATS[form]
    if form == "gguf":
        model = (place, c.space, c.closed, c.model, c.tokenizer)
        return place, save_gguf(*model, config=c.config, usage=c.usage, precision=kept)
    whole = WholeModel(c.space, c.closed, c.model, c.tokenizer, c.config, c.usage)
    if form == "decilm":
        return place, save_decilm(place, whole)
    kind, reason = save_folder(place, whole)
    if kind is None:
        raise SpaceError(f"{c.architecture.fingerprint[:8]} is no model of transformers: {reason}.")
    return place, () if reason is None else (f"written as {kind}, with its own code: {reason}",)


def _program(
    folder: Path,
    place: Path,
    precision: str | None,
    program: ProgramSettings | None,
    run: Path | None,
    allowed_packages: Sequence[str],
    judging: Judging | None,
) -> tuple[Path, tuple[str, ...]]:
    """Write a candidate as a program; arguments and errors as of `export_candidate`."""
    from rankitect.deploy.candidate_program import ProgramSettings, export_program

    settings = program or ProgramSettings.of(precision, None, None, None)
    return place, export_program(folder, place, settings, run, allowed_packages, judging)


def _precision(given: str | None) -> GGUFPrecision:
    """The precision that is meant.

    Raises:
        ConfigError: There is none of this name.
    """
    known = next((one for one in PRECISIONS if one == (given or "float16")), None)
    if known is None:
        raise ConfigError(f"precision={given} is none of {', '.join(PRECISIONS)}.")
    return known
