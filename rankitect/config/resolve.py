"""From the command line to a checked configuration, with every mistake explained before work starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rankitect.config.bindings import (
    Bindings,
    bound,
    requirement,
    sections_of,
    settings_of,
    without_bindings,
)
from rankitect.config.compose import Composed, compose
from rankitect.config.measures import measure_section
from rankitect.config.plugins import Plugin, config_model, load_target
from rankitect.config.schema import SearchConfig
from rankitect.config.stages import misplaced_stages, stage_section, without_stage
from rankitect.config.trust import refuse_from_files
from rankitect.contracts import NamesCosts, offers
from rankitect.errors import ConfigError, closest, short

__all__ = ["Resolved", "checked", "resolve", "restored"]

_RENAMED = {
    "heal": "recipe.heal",
    "evaluator.screen.windows": "evaluator.screen.sample",
    "evaluator.screen.rows": "evaluator.screen.sample",
}
"""Keys and sections of earlier versions, and where they are now."""
_LONGEST = 450
"""Characters of several mistakes together, so that the last line of a message is whole."""
_SECTIONS = ("space", "task", "controller", "evaluator.final", "evaluator.screen", "evaluator.proxy", "device")


@dataclass(frozen=True)
class Resolved:
    """A configuration that has passed every check that needs no data.

    Attributes:
        config: The core's keys.
        plugins: Plug-ins by section: "space", "task", "controller", "evaluator.final", and "evaluator.screen",
            "evaluator.proxy" and "device" if any; then the stages of the recipe in order, as "recipe.heal", and the
            measures, as "measures.arc".
        data: All of it as plain data, defaults filled in; what config.yaml holds and the hash is taken of.
    """

    config: SearchConfig
    plugins: dict[str, Plugin]
    data: dict[str, Any]

    @property
    def bindings(self) -> Bindings:
        """The settings that choices decide."""
        return Bindings({section: plugin.bindings for section, plugin in self.plugins.items() if plugin.bindings})


def resolve(overrides: Sequence[str], extra_folder: Path | None = None) -> Resolved:
    """Compose and check a configuration.

    Args:
        overrides: Words of the command line, in Hydra's grammar.
        extra_folder: A folder of the user's own groups.

    Raises:
        ConfigError: With one line for each mistake.
    """
    return checked(compose(overrides, extra_folder))


def checked(composed: Composed) -> Resolved:
    """Check a composed configuration. Imports the plug-ins' modules, which import no heavy package.

    Raises:
        ConfigError: With one line for each mistake.
    """
    preset = composed.choices.get("preset")
    raw = {**composed.data, "preset": None if preset in (None, "None", "null") else preset}
    recipe = raw.get("recipe") or {}
    if not isinstance(recipe, Mapping):
        raise ConfigError(
            f"'recipe' {composed.came_from('recipe')} is {recipe!r}: it must be a mapping of names to stages, such as "
            "heal: {stage: distil}."
        )
    raw["recipe"] = {name: stage for name, stage in recipe.items() if stage is not None}
    if isinstance(raw.get("measures"), Mapping):
        raw["measures"] = {name: measure for name, measure in raw["measures"].items() if measure is not None}
    try:
        config = SearchConfig.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, "", raw, composed, [*_known_keys(SearchConfig), *_recipe_keys(raw, composed)]) from None
    refuse_from_files("", SearchConfig, raw, composed.given, composed.referring)
    data = config.model_dump(mode="json")
    if data["runner"]["ahead"] is None:  # what is found depends on it: the hash must know it
        data["runner"]["ahead"] = data["runner"]["workers"] - 1
    plugins, mistakes = {}, []
    for section in _SECTIONS:
        part = _at(raw, section)
        if part is None:
            continue
        name = part.get("name") or composed.choices.get(section, "") or str(part["target"]).rpartition(".")[2]
        try:
            plugins[section] = _plugin(section, name, part, config.allowed_packages, composed)
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        _put(data, section, {"name": name, "target": part["target"], **plugins[section].data})
    for name in config.recipe:
        try:
            stage, section = raw["recipe"][name]["stage"], f"recipe.{name}"
            part = stage_section(name, raw["recipe"][name], composed)
            plugins[section] = _plugin(section, stage, part, config.allowed_packages, composed)
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        data["recipe"][name] = {"stage": stage, "target": part["target"], **plugins[section].data}
    for name in config.measures:
        section, given = f"measures.{name}", raw["measures"][name]
        try:
            part = measure_section(name, given, composed)
            kind = str(given.get("measure") or str(part["target"]).rpartition(".")[2])
            plugins[section] = _plugin(section, kind, part, config.allowed_packages, composed)
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        data["measures"][name] = {"measure": kind, "target": part["target"], **plugins[section].data}
    mistakes += misplaced_stages(plugins)
    mistakes += _unknown_costs(config.constraints, plugins.get("task"), composed)
    if mistakes:
        raise _together(mistakes)
    return Resolved(config, plugins, data)


def _unknown_costs(constraints: Mapping[str, Any], task: Plugin | None, composed: Composed) -> Iterator[str]:
    """A message for each constraint on what is no cost of the task, where the task's class says which there are."""
    if task is None or not offers(task.target, NamesCosts):
        return
    costs = task.target.bounded_costs
    for name in constraints:
        if name not in costs and not name.endswith("_ms"):  # of latencies, the device says which there are
            guess = closest(name, costs)
            yield (
                f"'constraints.{name}' {composed.came_from(f'constraints.{name}')}: there is no cost {name!r} of "
                f"task={task.name}.{f' Did you mean {guess!r}?' if guess else ''} Allowed: {', '.join(costs)}."
            )


def restored(data: Mapping[str, Any]) -> Resolved:
    """A configuration from its plain data, as `Resolved.data` has it: on a worker, or from a run folder's config.yaml.

    Raises:
        ConfigError: The data are of another version.
    """
    try:
        config = SearchConfig.model_validate(dict(data))
        plugins = {}
        for section in _SECTIONS:
            part = _at(data, section)
            if part is not None:
                target = load_target(part["target"], config.allowed_packages, f"{section}.target")
                plugins[section] = _own_keys(part["name"], target, part)
        for name, part in data.get("recipe", {}).items():
            target = load_target(part["target"], config.allowed_packages, f"recipe.{name}.target")
            own = {key: value for key, value in part.items() if key != "stage"}
            plugins[f"recipe.{name}"] = _own_keys(part["stage"], target, own)
        for name, part in data.get("measures", {}).items():
            target = load_target(part["target"], config.allowed_packages, f"measures.{name}.target")
            own = {key: value for key, value in part.items() if key != "measure"}
            plugins[f"measures.{name}"] = _own_keys(part["measure"], target, own)
    except (ValidationError, KeyError, TypeError) as error:
        raise ConfigError(f"This is no configuration of this version: {error}") from None
    return Resolved(config, plugins, dict(data))


def _plugin(section: str, name: str, part: Mapping[str, Any], allowed: Sequence[str], composed: Composed) -> Plugin:
    target = load_target(part["target"], allowed, f"{section}.target")
    model = config_model(target)
    known = [f"{section}.{key}" for key in _known_keys(model)]
    refuse_from_files(section, model, part, composed.given, composed.referring)
    try:
        plugin = _own_keys(name, target, part)
    except ValidationError as error:
        raise _explain(error, section, part, composed, known) from None
    allowed_keys = settings_of(section, model)
    for key in plugin.bindings:
        if f"{section}.{key}" not in known:
            raise ConfigError(_unknown_key(f"{section}.{key}", composed, known))
        if key not in allowed_keys:
            shown = ", ".join(f"{section}.{possible}" for possible in allowed_keys) or "none"
            raise ConfigError(
                f"'{section}.{key}' {composed.came_from(f'{section}.{key}')} cannot be decided by a choice: it is read "
                f"once for all architectures. Settings of '{section}' that can: {shown}."
            )
    return plugin


def _own_keys(name: str, target: Callable[..., Any], part: Mapping[str, Any]) -> Plugin:
    """A plug-in from its section.

    Raises:
        ValidationError: A key is unknown, missing or wrong.
    """
    own = {key: value for key, value in part.items() if key not in ("name", "target")}
    bindings = dict(bound(own))
    return Plugin(name, target, config_model(target).model_validate(without_bindings(own, bindings)), bindings)


def _at(data: Mapping[str, Any], path: str) -> Any:
    value: Any = data
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _put(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        data = data[part]
    data[last] = value


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted paths of all keys of a model and the models in it."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for section in sections_of(info.annotation):
            keys += _known_keys(section, f"{prefix}{name}.")
    return keys


def _recipe_keys(raw: Mapping[str, Any], composed: Composed) -> list[str]:
    """Dotted paths of all keys of a recipe's stages, as far as they can be known, to suggest one of them."""
    keys: list[str] = []
    for name, section in raw["recipe"].items():
        if not isinstance(section, Mapping) or not isinstance(section.get("stage"), str):
            continue
        with suppress(ConfigError):
            part = stage_section(name, section, composed)
            packages = raw["allowed_packages"] if isinstance(raw["allowed_packages"], list) else []
            target = load_target(part["target"], list(map(str, packages)), f"recipe.{name}")
            keys += [f"recipe.{name}.{key}" for key in _known_keys(config_model(target))]
    return keys


def _explain(
    error: ValidationError, section: str, raw: Mapping[str, Any], composed: Composed, known: Sequence[str]
) -> ConfigError:
    problems = error.errors()
    lines, told = _meant_for_another(problems, section, composed)
    for problem in problems:
        inner = ".".join(str(part) for part in problem["loc"])
        path = f"{section}.{inner}" if section and inner else section or inner
        if path in told:
            continue
        if problem["type"] == "extra_forbidden":
            lines += _renamed(path, problem["input"], composed) or [_unknown_key(path, composed, known)]
        elif problem["type"] in ("missing", "model_type") and problem["loc"][:1] == ("recipe",):
            lines.append(without_stage(path, problem["input"], composed))
        elif problem["type"] == "missing":
            lines.append(f"'{path}' is missing. Give it on the command line: {path}=...")
        else:
            lines.append(_wrong_value(path, problem, composed))
    return _together(list(dict.fromkeys(lines)))


def _together(mistakes: Sequence[str]) -> ConfigError:
    """All mistakes, a line each, as far as they go into one message."""
    lines: list[str] = []
    for mistake in mistakes:
        if lines and sum(map(len, lines)) + len(mistake) > _LONGEST:
            return ConfigError("\n".join([*lines, f"… and {len(mistakes) - len(lines)} more."]))
        lines.append(mistake)
    return ConfigError("\n".join(lines))


def _meant_for_another(
    problems: Sequence[ErrorDetails], section: str, composed: Composed
) -> tuple[list[str], set[str]]:
    """A sentence where the file of another group sets keys that the plug-in of a section does not have, such as a space
    that is made for another task; and these keys."""
    unknown = [f"{section}.{problem['loc'][0]}" for problem in problems if problem["type"] == "extra_forbidden"]
    files = {path: Path(composed.origins.get(path, "").rpartition(":")[0]) for path in unknown}
    others = {path: file for path, file in files.items() if file.parent.name in composed.choices and section}
    others = {path: file for path, file in others.items() if file.parent.name != section.partition(".")[0]}
    if not others:
        return [], set()
    file = next(iter(others.values()))
    return [
        f"{file.parent.name}={file.stem} is not made for {section}={composed.choices.get(section)}: it sets "
        f"{', '.join(others)}. Leave {section}= out, and the one that goes with it is taken."
    ], set(others)


def _renamed(path: str, value: Any, composed: Composed) -> list[str]:
    """For each key in a section of an earlier version, a sentence that names the key of now; none for other keys."""
    if (now := _RENAMED.get(path)) is None:
        return []
    keys = list(value) if isinstance(value, Mapping) else []
    return [
        f"Unknown key '{path}{key}' {composed.came_from(f'{path}{key}')}: it is '{now}{key}' now."
        for key in ([f".{key}" for key in keys] or [""])
    ]


def _unknown_key(path: str, composed: Composed, known: Sequence[str]) -> str:
    parent, _, _ = path.rpartition(".")
    beside = [key for key in known if key.rpartition(".")[0] == parent]
    # Keys of plug-ins are known here by the files that set them.
    guess = closest(path, dict.fromkeys([*beside, *known, *(key for key in composed.origins if key != path)]))
    text = f"Unknown key '{path}' {composed.came_from(path)}."
    if guess is not None:
        file = composed.origins.get(guess) or _file_of(guess, composed)
        return f"{text} Did you mean '{guess}'{f' ({file})' if file else ''}?"
    where = f"'{parent}'" if parent else "the configuration"
    return f"{text} Keys of {where}: {', '.join(sorted(key.rpartition('.')[2] for key in beside)) or 'none'}."


def _file_of(key: str, composed: Composed) -> str | None:
    """The file that a key without a line of its own would belong in."""
    group = key.split(".")[0]
    if group in composed.choices and group in composed.origins:
        return composed.origins[group].rpartition(":")[0]
    inside = next((origin for path, origin in composed.origins.items() if path.startswith(f"{group}.")), None)
    return inside.rpartition(":")[0] if inside else "configs/config.yaml"


def _wrong_value(path: str, problem: ErrorDetails, composed: Composed) -> str:
    value = problem["input"]
    if isinstance(value, Mapping) and problem["type"] == "value_error":  # the keys in it are each allowed, not together
        return f"'{path}' {composed.came_from(path)}: {requirement(problem)}."
    if isinstance(value, Mapping):
        shown = "a section"
    elif value is None or isinstance(value, bool):
        shown = json.dumps(value)  # null, true and false, as the user writes them
    else:
        shown = repr(value)
    return f"'{path}' {composed.came_from(path)} is {short(shown, 100)}: {requirement(problem)}."
