"""Which settings the saved state of a controller belongs to: a state is used with these, or not at all."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import offers
from rankitect.contracts.hooks import KeepsState
from rankitect.data.files import write_whole
from rankitect.documents import read_json
from rankitect.errors import RunFolderError, brief
from rankitect.study.folder import difference, effective

if TYPE_CHECKING:
    from rankitect.contracts import Controller
    from rankitect.study.folder import RunFolder

__all__ = ["SETTINGS", "settle"]

SETTINGS = "settings.json"
"""File of the settings, beside the states."""
_ELSEWHERE = ("budget", "confirm", "evaluator", "measures", "recipe", "report", "runner")
"""Sections of a configuration that no preparation depends on: they say how candidates are measured, and how many."""


def settle(folder: RunFolder, controller: Controller) -> None:
    """See to it that what is saved in a run folder belongs to these settings, before a controller looks for it.

    A state of other settings is deleted under `resume=force`, so that the controller begins anew. A folder of an
    earlier version does not say what its states belong to: they belong to its configuration.

    Args:
        folder: The accepted run folder.
        controller: The controller that is about to prepare.

    Raises:
        RunFolderError: There is a state of other settings, and `resume=force` was not given; or the note of its
            settings is damaged.
    """
    place, stays = folder.state_dir, controller.independent if offers(controller, KeepsState) else ()
    note, now = place / SETTINGS, _settings(folder.config, stays)
    states = [path for path in sorted(place.iterdir()) if path != note]
    if states and (changes := difference(_noted(note, folder, stays), now)):
        told = f"{brief(changes[0], 200)}{f', and {len(changes) - 1} more' if len(changes) > 1 else ''}"
        if not folder.force:
            raise RunFolderError(
                f"What is saved in {brief(place, 90)} belongs to other settings ({told}). Undo the change, or go "
                "on with resume=force, which begins the controller's preparation anew."
            )
        for path in states:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        logging.getLogger("rankitect").warning(
            "The saved state of the controller was deleted, and its preparation begins anew: %s", told
        )
    elif states and folder.changes:
        logging.getLogger("rankitect").info("The saved state of the controller is kept: what changed is nothing to it.")
    write_whole(note, json.dumps(now, indent=1) + "\n")


def _settings(config: Mapping[str, Any], stays: Collection[str]) -> dict[str, Any]:
    """The values of a configuration that a saved state may depend on, by dotted path, as JSON gives them back."""
    without = (*_ELSEWHERE, *(f"controller.{key}" for key in stays))
    values = {
        path: value
        for path, value in effective(config).items()
        if not any(path == name or path.startswith(f"{name}.") for name in without)
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _noted(note: Path, folder: RunFolder, stays: Collection[str]) -> dict[str, Any]:
    """The settings that the states belong to."""
    if not note.exists():
        return _settings(folder.earlier, stays)
    advice = "Go on with resume=force, which does again what the states beside it save."
    try:
        return read_json(note, dict[str, Any], RunFolderError, advice=advice)
    except RunFolderError:
        if not folder.force:
            raise
        return {}  # nothing that could be relied on
