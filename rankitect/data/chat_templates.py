"""Where a model's chat templates (Jinja) stand: in files of their own, or in tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankitect.data.members import place_of
from rankitect.documents import read_text
from rankitect.errors import AssetError, shown

__all__ = ["DEFAULT", "TEMPLATE", "TEMPLATES", "chat_templates", "named_templates", "plain_name"]

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
        AssetError: The settings hold something else, or a file is no text in UTF-8, or a link out of the folder.
    """
    given = settings.get("chat_template")
    where = "tokenizer_config.json" if folder is None else folder / "tokenizer_config.json"
    if given is None or isinstance(given, str):
        templates = {} if given is None else {DEFAULT: given}
    elif isinstance(given, list) and all(isinstance(one, dict) for one in given):
        templates = named_templates(
            [(one.get("name"), one.get("template")) for one in given], f"{where}: chat_template"
        )
    else:
        raise AssetError(
            f"{where}: chat_template is {shown(given)}; it must be a template, or a list of templates with their names."
        )
    return templates if folder is None else templates | _files(folder)


def named_templates(pairs: Sequence[tuple[object, object]], where: str) -> dict[str, str]:
    """Templates by name.

    Args:
        pairs: Names and templates.
        where: What holds them, for errors.

    Raises:
        AssetError: A name or a template is none, or a name is there twice.
    """
    templates = dict[str, str]()
    for name, template in pairs:
        if not isinstance(name, str) or not plain_name(name):
            raise AssetError(f"{where} has the name {shown(name)}; it must be made of letters, digits, _ and -.")
        if not isinstance(template, str) or name in templates:
            wrong = "is there twice" if name in templates else f"is {shown(template)}; it must be a text"
            raise AssetError(f"{where}: {name} {wrong}.")
        templates[name] = template
    return templates


def _files(folder: Path) -> dict[str, str]:
    names = [file.stem for file in sorted((folder / TEMPLATES).glob("*.jinja"))[:_MOST] if plain_name(file.stem)]
    files = {DEFAULT: place_of(folder, TEMPLATE)}
    files |= {name: place_of(folder, f"{TEMPLATES}/{name}.jinja") for name in names}
    again = "Copy it again from where it came."
    return {name: read_text(file, AssetError, advice=again) for name, file in files.items() if file.exists()}


def plain_name(name: str) -> bool:
    """Whether a template's name can be that of a file."""
    return 0 < len(name) <= 60 and all(c.isalnum() or c in "_-" for c in name)
