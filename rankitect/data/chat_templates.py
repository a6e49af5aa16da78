"""Where a model's chat templates (Jinja) stand: in files of their own, or in tokenizer_config.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankitect.data.members import member
from rankitect.documents import read_text
from rankitect.errors import AssetError

__all__ = ["DEFAULT", "TEMPLATE", "TEMPLATES", "chat_templates", "plain_name"]

TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"
DEFAULT = "default"
"""Name of the template that is used where none is asked for."""
_MOST = 100


def chat_templates(settings: Mapping[str, Any], folder: Path | None = None) -> dict[str, str]:
    """The chat templates of a model by name. Those in files of their own count before those in the settings.

    Args:
        settings: Content of tokenizer_config.json, which holds one template, or a list of them with their names.
        folder: Where the files are.

    Raises:
        AssetError: A file is no text in UTF-8, or a link out of the folder.
    """
    given = settings.get("chat_template")
    named = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    pairs = [(DEFAULT, given), *((one.get("name"), one.get("template")) for one in named)]
    templates = {n: t for n, t in pairs if isinstance(n, str) and isinstance(t, str) and plain_name(n)}
    return templates if folder is None else templates | _files(folder)


def _files(folder: Path) -> dict[str, str]:
    names = sorted(file.name for file in (folder / TEMPLATES).glob("*.jinja"))[:_MOST]
    files = {DEFAULT: member(folder, TEMPLATE)}
    if Path(os.path.realpath(folder / TEMPLATES)).is_relative_to(os.path.realpath(folder)):
        stems = [name.removesuffix(".jinja") for name in names]
        files |= {stem: member(folder / TEMPLATES, f"{stem}.jinja") for stem in stems if plain_name(stem)}
    again = "Copy it again from where it came."
    return {name: read_text(file, AssetError, advice=again) for name, file in files.items() if file is not None}


def plain_name(name: str) -> bool:
    """Whether a template's name can be that of a file."""
    return 0 < len(name) <= 60 and all(c.isalnum() or c in "_-" for c in name)
