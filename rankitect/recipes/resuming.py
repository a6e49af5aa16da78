"""What the state of a killed stage belongs to, where a run folder keeps it under no more than the stage's name."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from rankitect.data.files import write_whole
from rankitect.errors import TrainingError

__all__ = ["begin_again_if_damaged", "begin_again_if_of_another_recipe", "forget_origin"]

_log = logging.getLogger(__name__)


def begin_again_if_of_another_recipe(checkpoint: Path, origin: str) -> None:
    """Delete the state of a stage that was given another model than it is given now, as `resume=force` allows.

    Such a state may fit in every shape (the same bits by another method), and a result that went on from it would be
    kept for everyone as that of the recipe of now. A state of an earlier version, which has no note, is believed.

    Args:
        checkpoint: File of the state, which need not be there. A note of the origin is written beside it.
        origin: Hash of what the stage is given.
    """
    note = _note(checkpoint)
    try:
        noted = note.read_text(encoding="utf-8", errors="replace") if note.exists() else None
        if noted == origin:
            return
        if noted is not None and checkpoint.exists():
            _log.warning(
                "The saved state %s is of a stage that other stages, or other settings of theirs, came before: the "
                "stage begins again.",
                checkpoint.name,
            )
            checkpoint.unlink(missing_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, origin)
    except OSError as error:
        _log.warning("What the state %s belongs to cannot be noted (%s).", checkpoint.name, error)


def begin_again_if_damaged(checkpoint: Path) -> None:
    """Delete a damaged state in the store, which nobody asked for, so that it is no reason to stop."""
    from rankitect.training.checkpoint import load_state

    if not checkpoint.exists():
        return
    try:
        load_state(checkpoint)
    except (TrainingError, OSError) as error:
        _log.warning("A stage begins again: %s", error)
        checkpoint.unlink(missing_ok=True)


def forget_origin(checkpoint: Path) -> None:
    """Delete the note beside the state of a finished stage."""
    with suppress(OSError):  # another process was faster, or nothing could be written there in the first place
        _note(checkpoint).unlink(missing_ok=True)


def _note(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".origin")
