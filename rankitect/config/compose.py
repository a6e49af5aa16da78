"""Composing a configuration from the groups in configs/ and the command line, with Hydra and nothing of its run-time.

Hydra neither changes the working folder, nor makes output folders, nor configures logging here. Where a key came from
is kept, so that a message can name the file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankitect.config.brought import brought
from rankitect.config.presets import fitting_presets
from rankitect.config.trust import check_values, refuse_resolvers
from rankitect.errors import ConfigError, brief, closest, short

__all__ = ["Composed", "compose", "configs_folder", "groups", "quoted"]

_ASSIGNMENT = re.compile(r"^(?P<prefix>~|\+\+|\+)?(?P<key>[A-Za-z_][\w./@]*)(?:=(?P<value>.*))?$", re.DOTALL)
_NEEDED = ("space", "task", "controller", "recipe", "device")
"""Groups that a preset chooses by, of which an option is always chosen."""
_LONGEST_KEY = 250
"""Characters; Hydra looks for a file of this name."""
_HYDRAS_OWN = re.compile(r"\nSee https|\s+Config search path:")
"""What follows in a message of Hydra's helps nobody here."""
_HYDRA_VERSION = "1.3"  # behaviour that Hydra promises to keep


def configs_folder() -> Path:
    """The folder of the configurations that come with the package."""
    return Path(os.path.realpath(__file__)).parent.parent / "configs"


def groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """The files of every group, as {group: {option: file}}; a later folder's file replaces an earlier's."""
    files: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            files.setdefault(path.parent.name, {})[path.stem] = path
    return files


@dataclass(frozen=True)
class Composed:
    """A configuration as plain data, before validation.

    Attributes:
        data: The resolved configuration.
        choices: Option chosen in each group.
        origins: File and line of every key that a file sets, by dotted path ("configs/task/language.yaml:3").
        given: Dotted paths of keys that the command line sets.
        files: The file of every option, by group; see `groups`.
        referring: Dotted paths of keys whose values refer to other keys.
    """

    data: dict[str, Any]
    choices: dict[str, str]
    origins: dict[str, str]
    given: frozenset[str] = field(default_factory=frozenset)
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    referring: frozenset[str] = field(default_factory=frozenset)

    def came_from(self, path: str) -> str:
        """Where a key was set, in words."""
        if any(path == given or given.startswith(f"{path}.") or path.startswith(f"{given}.") for given in self.given):
            return "on the command line"
        while path:
            if path in self.origins:
                return f"in {self.origins[path]}"
            path = path.rpartition(".")[0]
        return "in the configuration"


def compose(overrides: Sequence[str], extra_folder: Path | None = None) -> Composed:
    """Compose the groups that the overrides choose, then set the values that they give.

    Args:
        overrides: Words of the command line, in Hydra's grammar: `group=option`, `key.path=value`.
        extra_folder: A folder of the user's own groups, laid out like configs/.

    Raises:
        ConfigError: An override or a file cannot be read, chooses an option that there is not, or holds what no
            configuration may hold (`rankitect.config.trust`).
    """
    folders = [configs_folder(), *([Path(os.path.realpath(extra_folder))] if extra_folder else [])]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"The folder of configurations {folder} does not exist.")
    known = groups(folders)
    prepared: list[str] = []
    given: set[str] = set()
    for override in overrides:
        text, key = _prepare(override, known)
        if text is None:  # preset=null: takes back an earlier one
            prepared = [p for p in prepared if not p.startswith("preset=")]
            continue
        prepared.append(text)
        if key is not None:
            given.add(key)
    prepared += brought(prepared, known)
    if extra_folder is not None:
        from rankitect.config.source import search_path

        prepared.append(f"hydra.searchpath=[{quoted(search_path(folders[1]))}]")
    raw, data, choices = _compose(folders[0], prepared)
    if presets := list(fitting_presets(data, choices, known)):
        raw, data, choices = _compose(folders[0], [*prepared, *presets])
    origins = dict(_origins(folders, known, choices))
    composed = Composed(data, choices, origins, frozenset(given), known, frozenset(_referring(raw)))
    check_values(data, composed.came_from)
    return composed


def _prepare(override: str, known: dict[str, dict[str, Path]]) -> tuple[str | None, str | None]:
    """The override for Hydra (None if it says nothing), and the key that it sets unless it chooses an option."""
    match = _ASSIGNMENT.match(override)
    if match is None or (match["value"] is None and match["prefix"] != "~"):
        raise ConfigError(
            f"{short(repr(override), 120)} is not understood. Write key=value without blanks, for example "
            "space=mobile_llm budget.minutes=20; text with special characters in quotes, for example "
            "'task.text=\"my file.txt\"'."
        )
    key, value = match["key"], match["value"]
    if len(key) > _LONGEST_KEY:
        raise ConfigError(f"Unknown key '{short(key, 80)}' on the command line.")
    if match["prefix"] == "~" and key == "preset":
        return None, None  # as preset=null
    if key in known and not match["prefix"]:
        option = (value or "").strip("'\"")
        if key == "preset" and option == "null":
            return None, None  # the default
        if option not in known[key]:
            guess = closest(option, known[key])
            hint = f" Did you mean '{guess}'?" if guess else ""
            raise ConfigError(
                f"Unknown {key} {short(repr(option), 80)}.{hint} Allowed: {', '.join(sorted(known[key]))}."
            )
        return override, None
    if match["prefix"] == "~" and key in _NEEDED and value is None:
        raise ConfigError(f"'{override}': {key} cannot be left out. Choose one: {', '.join(sorted(known[key]))}.")
    if key.split(".")[0] == "hydra":
        raise ConfigError(f"'{override}': keys of Hydra itself are not used here.")
    # ++ sets a key whether or not a file has it; that it is a key at all is for the models to say, with better words.
    return (override if match["prefix"] else f"++{override}"), key


def quoted(text: str) -> str:
    """Text in quotes, in Hydra's grammar, in which a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"


def _compose(folder: Path, overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The configuration before and after references are resolved, and the options chosen."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf, open_dict
    from yaml import MarkedYAMLError  # type: ignore[import-untyped]

    before = GlobalHydra.instance().hydra  # a program that uses Hydra itself may call search()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base=_HYDRA_VERSION, job_name="search"):
            config = hydra_compose("config", overrides=overrides, return_hydra_config=True)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        raw = OmegaConf.to_container(config)
        refuse_resolvers(raw, "")
        data = OmegaConf.to_container(config, resolve=True)
    except MarkedYAMLError as error:
        raise ConfigError(_unreadable(error)) from error
    except ConfigError:
        raise
    except Exception as error:  # those of Hydra, OmegaConf and their parsers, which let Python's own through
        raise ConfigError(_uncomposed(overrides, error)) from error
    finally:
        if before is not None:
            GlobalHydra.instance().hydra = before
    chosen = {str(key): str(value) for key, value in dict(choices).items() if value is not None}  # type: ignore[arg-type]
    return raw, data, chosen  # type: ignore[return-value]


def _uncomposed(overrides: list[str], error: Exception) -> str:
    """Why Hydra composes no configuration, in a sentence and what to do: without the places where it looked."""
    said = " ".join(_HYDRAS_OWN.split(str(part))[0].strip() for part in (error, error.__cause__) if part)
    if isinstance(error, OSError) and error.strerror:  # the system's, whose text has such a place; Hydra's have none
        said = f"a file that a list of defaults names cannot be read ({error.strerror})"
    elif isinstance(error, RecursionError):
        said = "a list of defaults leads back to its own file"
    elif isinstance(error, AssertionError):  # Hydra's own check of an entry
        said = "a list of defaults has an entry that names no file"
    words = " ".join(word for word in overrides if not word.startswith("hydra."))
    listed = said.startswith("In ") or "default" in said
    advice = (
        "A list of defaults names files of its own group, without .yaml, or {/group: option}."
        if listed
        else "Lists are written [a,b]; text with special characters needs quotes."
    )
    reason = brief(said.rstrip(".?"), 220)
    return f"The configuration cannot be composed from {brief(words, 120)}: {reason}. {advice}"


def _referring(raw: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of the keys, and of their sections, whose values refer to other keys."""
    if isinstance(raw, dict):
        inner = [list(_referring(value, f"{path}.{key}" if path else str(key))) for key, value in raw.items()]
        yield from (key for keys in inner for key in keys)
        refers = any(inner)
    else:
        refers = "${" in str(raw)
    if refers and path:
        yield path


def _unreadable(error: Any) -> str:
    """What is wrong with a file that is no YAML, or in which a key stands twice (two stages of one name, say)."""
    mark, problem = error.problem_mark or error.context_mark, str(error.problem or error)
    where = f"{mark.name}:{mark.line + 1}" if mark is not None else "A configuration file"
    _, twice, key = problem.partition("found duplicate key ")
    if twice:
        return f"{where}: '{key}' is there twice; each name may be given once."
    return f"{where} cannot be read: {problem}."


def _origins(
    folders: Sequence[Path], known: dict[str, dict[str, Path]], choices: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """File and line of each key of the files in use, later files last, so that a dict keeps what counts."""
    yield from _lines(folders[0] / "config.yaml", "", folders)
    for group, option in choices.items():
        path = known.get(group, {}).get(option)
        if path is not None:
            yield from _lines(path, group, folders)


def _lines(path: Path, group: str, folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    import yaml

    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    prefix = "" if "@package _global_" in text.partition("\n")[0] else group
    folder = next(folder for folder in reversed(folders) if path.is_relative_to(folder))
    shown = f"{'configs' if folder == folders[0] else folder}/{path.relative_to(folder).as_posix()}"

    def walk(node: Any, at: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                where = f"{at}.{key.value}" if at else str(key.value)
                if where != "defaults":
                    yield where, f"{shown}:{key.start_mark.line + 1}"
                    yield from walk(value, where)

    yield from walk(root, prefix)
