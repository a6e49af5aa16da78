"""What a configuration file may not do: call programs, allow packages, read the environment, or hold values that no
setting can have.

Files of configurations are passed around, and so may come from anybody; the command line and Python calls are the
user's own. `docs/security.md` has the whole picture.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rankitect.config.bindings import sections_of
from rankitect.errors import ConfigError, short

__all__ = ["ByHand", "check_values", "refuse_from_files", "refuse_resolvers"]

_REFERENCE = re.compile(r"\$\{\.*[A-Za-z_][\w.]*\}")
"""A reference to another key, which is all that `${…}` may be."""
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, halves of pairs, separators of lines and paragraphs."""
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of writing, so that a text reads as another."""
_LONGEST_NAME = 255
"""Bytes between two slashes: what file systems allow, and far more than any other setting needs."""
_LARGEST = 10**18


@dataclass(frozen=True)
class ByHand:
    """Marks a key of a `Config` that counts only on the command line or in a Python call, never in a file: packages
    whose code is run, paths of programs, and a cluster, which exchanges pickles.

        adb: Annotated[str, ByHand()] = "adb"
    """


def refuse_resolvers(value: Any, where: str) -> None:
    """Refuse `${oc.env:HOME}` and its like: only `${key}` may be written, which stands for another key's value.

    What a resolver gives (the environment above all, with its passwords) would be written to config.yaml, the log and
    the report.

    Args:
        value: Plain data, before references are resolved.
        where: Beginning of the message.

    Raises:
        ConfigError: It holds one.
    """
    for key, text in _texts(value):
        if "${" in _REFERENCE.sub("", text):
            raise ConfigError(
                f"{short(where, 120)}{f'{key}: ' if key else ''}{short(repr(text), 120)}: only ${{key}}, the value of "
                "another key, may be referred to. The environment and other resolvers are not read, as their values "
                "would stand in config.yaml and the report: give the value itself on the command line."
            )


def check_values(data: Mapping[str, Any], came_from: Callable[[str], str]) -> None:
    """Refuse values that no setting can have, wherever they stand.

    Args:
        data: The configuration as plain data.
        came_from: Says where a key was set.

    Raises:
        ConfigError: A text has a character that cannot be printed, or a part that no file name can have; a number is
            not finite, or larger than any quantity.
    """
    for key, value in _scalars(data):
        if isinstance(value, str) and (wrong := _wrong_text(value)):
            raise ConfigError(f"'{key}' {came_from(key)} is {short(repr(value), 80)}: {wrong}.")
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= _LARGEST):
            raise ConfigError(
                f"'{key}' {came_from(key)} is {short(repr(value), 40)}: it should be a finite number of at most 10^18."
            )


def _wrong_text(text: str) -> str:
    if len(text) == 1 and text != "\0":
        return ""  # what separates the columns of a table may be any character
    if any(c not in "\n\t" and (unicodedata.category(c) in _UNPRINTABLE or c in _TURNING) for c in text):
        return "it has a character that cannot be printed"
    if any(len(part.encode()) > _LONGEST_NAME for part in text.split("/")):
        return f"it has more than {_LONGEST_NAME} bytes without a slash, which no setting and no file name has"
    return ""


def refuse_from_files(
    section: str, model: type[BaseModel], part: Mapping[str, Any], given: Collection[str], referring: Collection[str]
) -> None:
    """Refuse keys that only the user may set (`ByHand`), where a file sets them.

    Args:
        section: Where the keys stand; "" for the root.
        model: Which keys there are.
        part: What is set.
        given: Dotted keys that the command line sets.
        referring: Dotted keys whose values refer to other keys, and so to whatever sets those.

    Raises:
        ConfigError: Names the key.
    """
    for name, field in model.model_fields.items():
        key = f"{section}.{name}" if section else name
        if name not in part:
            continue
        for inner in sections_of(field.annotation):
            if isinstance(part[name], Mapping):
                refuse_from_files(key, inner, part[name], given, referring)
        if not any(isinstance(mark, ByHand) for mark in field.metadata):
            continue
        by_hand = key in given and key not in referring
        if not by_hand and part[name] != field.get_default(call_default_factory=True):
            raise ConfigError(
                f"'{key}' is {short(repr(part[name]), 80)} in a file, or refers to one: it decides which code is run, "
                f"so it counts only on the command line ({key}=…) or in a Python call."
            )


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """All texts in plain data, the keys of mappings included, with their dotted paths."""
    return ((path, item) for path, item in _scalars(value) if isinstance(item, str))


def _scalars(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield path, str(key)
            yield from _scalars(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item, path)
    elif not isinstance(value, bool):
        yield path, value
