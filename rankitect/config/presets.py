"""Presets for options that have no preset of their own name: a user's own task, space or recipe.

`preset=smoke task=shop` looks for `preset_task/smoke_shop.yaml`. Where there is none, a file of the preset counts that
says in its head what it is for, in the manner of Hydra's own `@package`:

    # @when task.target=<dotted path of the class>,task.backbone=none
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rankitect.documents import YAML_BYTES, read_text

__all__ = ["fitting_presets"]

_WHEN = re.compile(r"^# @when (\S+)$", re.MULTILINE)
_GROUP = "preset_"


def fitting_presets(
    data: Mapping[str, Any], choices: Mapping[str, str], known: Mapping[str, Mapping[str, Path]]
) -> Iterator[str]:
    """Overrides that choose a preset for each option that has none of its own name, but whose keys one is made for.

    Where several are, the one that asks for most is chosen.

    Args:
        data: The configuration as composed without them.
        choices: Option chosen in each group.
        known: The files of every group.
    """
    preset = choices.get("preset")
    for group, files in known.items():
        option = choices.get(group.removeprefix(_GROUP))
        if not group.startswith(_GROUP) or option is None or f"{preset}_{option}" in files:
            continue
        fitting = [
            (len(conditions), name)
            for name, path in files.items()
            if name.startswith(f"{preset}_") and (conditions := _conditions(path)) and _hold(conditions, data)
        ]
        if fitting:
            yield f"{group}={max(fitting)[1]}"


def _conditions(path: Path) -> dict[str, str]:
    head = _WHEN.search(read_text(path, most=YAML_BYTES))
    pairs = head[1].split(",") if head else []
    return dict(pair.partition("=")[::2] for pair in pairs)


def _hold(conditions: Mapping[str, str], data: Mapping[str, Any]) -> bool:
    for path, wanted in conditions.items():
        value: Any = data
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if str(value) != wanted:
            return False
    return True
