"""What `--help` says of a configuration: the groups with their options, and every key with its meaning.

All of it is read from where it is used: the files of the groups, the models that check the keys, and the tasks' costs.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rankitect.config.compose import configs_folder, groups
from rankitect.config.plugins import config_model
from rankitect.config.resolve import resolve
from rankitect.config.schema import PluginConfig, SearchConfig
from rankitect.contracts import NamesCosts, offers
from rankitect.documents import YAML_BYTES, read_text
from rankitect.errors import ConfigError

__all__ = ["help_text"]

_WIDTH = 110
_PRESETS = "preset_"  # groups that a preset chooses from, and no user


def help_text(
    overrides: Sequence[str] = (), extra_folder: Path | None = None, reads: Callable[[str], bool] = lambda key: True
) -> str:
    """The groups and their options, the keys of the core, and the keys of the plug-ins that are chosen.

    Args:
        overrides: The command line's choices; without any, plug-ins are left out, whose modules need not be imported
            then.
        extra_folder: A folder of the user's own groups.
        reads: Whether the command reads a key, or an option of a group.

    Raises:
        ConfigError: The overrides choose what there is not.
    """
    folders = [configs_folder(), *([extra_folder] if extra_folder else [])]
    keys = _rows({name: text for name, text in _described(SearchConfig) if reads(name)})
    parts = ["groups (group=option):", *_groups(folders, reads), "", "keys (key=value):", *keys]
    if not overrides:
        parts += ["", "Put options before --help to see their own keys, and the costs that constraints may name:"]
        return "\n".join([*parts, "  space=mobile_llm --help"])
    for section, plugin in resolve(overrides, extra_folder).plugins.items():
        own = list(_keys(config_model(plugin.target), f"{section}.")) if reads(section) else []
        if own:
            parts += ["", f"keys of {section}={plugin.name}:", *own]
        if offers(plugin.target, NamesCosts) and reads("constraints"):
            parts += ["", f"costs that constraints may name (task={plugin.name}):", *_rows(plugin.target.bounded_costs)]
    return "\n".join(parts)


def _groups(folders: Sequence[Path], reads: Callable[[str], bool]) -> Iterator[str]:
    for group, options in groups(folders).items():
        if not group.startswith(_PRESETS) and reads(group):
            field = SearchConfig.model_fields.get(group)
            yield f"  {group}=" + (f"  {field.description}" if field is not None and field.description else "")
            yield from _rows({option: _about(path) for option, path in options.items()}, "    ")


def _about(path: Path) -> str:
    """The first sentence of the comment at the top of a file; what is wrong with one that cannot be read."""
    comment: list[str] = []
    try:
        text = read_text(path, most=YAML_BYTES)
    except ConfigError as error:
        return f"({error})"
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            comment.append(line.lstrip("# "))
    sentence, _, _ = " ".join(comment).partition(". ")
    return sentence.rstrip(".")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield from _rows({f"{prefix}{name}": text for name, text in _described(model)})


def _described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and meanings of the keys of a model; those of a plug-in are in a model of its own."""
    for name, field in model.model_fields.items():
        kinds = list(_kinds(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is PluginConfig:
            continue
        if inner is None:
            yield f"{prefix}{name}", f"{field.description or ''}{_default(field)}".strip()
            continue
        if dict in kinds:  # a section of sections, each with a name of the user's
            yield f"{prefix}{name}", field.description or ""
        yield from _described(inner, f"{prefix}{name}.<name>." if dict in kinds else f"{prefix}{name}.")


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, however deep."""
    yield get_origin(annotation) or annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ({}, [], ()):  # the text says what these mean
        return ""
    return f" [{json.dumps(value, default=str)}]"


def _rows(rows: Mapping[str, str], indent: str = "  ") -> list[str]:
    """Names and meanings in two columns."""
    column = min(34, max(map(len, rows), default=0)) + len(indent) + 2
    lines = []
    for name, text in rows.items():
        first = f"{indent}{name}".ljust(column - 1) + " "
        lines.append(
            textwrap.fill(text, _WIDTH, initial_indent=first, subsequent_indent=" " * column) or first.rstrip()
        )
    return lines
