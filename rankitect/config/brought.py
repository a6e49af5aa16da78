"""What an option brings of another group: a recipe that is made for one task names it in its file.

    # @task moderation

Hydra cannot say so, as a task itself brings a recipe, and of two groups only the later can choose for the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankitect.errors import ConfigError, short

__all__ = ["brought"]

_TASK = re.compile(r"^#\s*@task\s+(?P<task>[\w-]+)\s*$", re.MULTILINE)
_HEAD = 1000
"""Characters of a file in which its first comments stand."""


def brought(overrides: Sequence[str], known: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """The overrides that others bring.

    Args:
        overrides: Those that were given.
        known: The file of each option of each group.

    Raises:
        ConfigError: A recipe names a task that there is not.
    """
    chosen = dict(one.split("=", 1) for one in overrides if "=" in one)
    recipe = known.get("recipe", {}).get(chosen.get("recipe", "").strip("'\""))
    if recipe is None or "task" in chosen:
        return []
    match = _TASK.search(recipe.read_text(encoding="utf-8", errors="replace")[:_HEAD])
    if match is None:
        return []
    if match["task"] not in known["task"]:
        raise ConfigError(f"{short(str(recipe), 160)}: there is no task {match['task']!r}, which it is made for.")
    return [f"task={match['task']}"]
