"""The stages of a recipe: from their names in a configuration to checked plug-ins, in the right order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.config.compose import Composed
from rankitect.contracts.capability import offers
from rankitect.contracts.stage import EndsRecipe, WorksOnSpaces
from rankitect.documents import read_yaml
from rankitect.errors import ConfigError, RankitectError, brief, closest

if TYPE_CHECKING:
    from rankitect.config.bindings import Bindings
    from rankitect.config.plugins import Plugin
    from rankitect.contracts.stage import Stage
    from rankitect.space.architecture import Architecture

__all__ = ["check_choices", "check_spaces", "misplaced_stages", "part_of_file", "stage_section", "without_stage"]


_COMBINATIONS = 32
"""Combinations of values that are tried before any work, at most: each makes the stages of a recipe."""


def stage_section(name: str, section: Mapping[str, Any], composed: Composed) -> dict[str, Any]:
    """A stage's keys over those of its file in configs/stage, where its class is named.

    Args:
        name: Of the stage in its recipe.
        section: Its keys; `stage` names the file.
        composed: Says which files there are, and where keys came from.

    Raises:
        ConfigError: There is no such stage, or the keys name a class of their own.
    """
    return part_of_file("recipe", "stage", name, section, composed)


def part_of_file(root: str, group: str, name: str, section: Mapping[str, Any], composed: Composed) -> dict[str, Any]:
    """A section's keys over those of a file that it names, where its class is named.

    Args:
        root: The section that it is one of: "recipe".
        group: The folder of the files, and the key that names one of them: "stage".
        name: Of the section in its root.
        section: Its keys.
        composed: Says which files there are, and where keys came from.

    Raises:
        ConfigError: There is no such file, or the keys name a class of their own.
    """
    kind, files, at = section[group], composed.files.get(group, {}), f"{root}.{name}"
    if kind not in files:
        guess = closest(str(kind), files)
        raise ConfigError(
            f"'{at}.{group}' {composed.came_from(f'{at}.{group}')} is {kind!r}, which is no {group}."
            f"{f' Did you mean {chr(39)}{guess}{chr(39)}?' if guess else ''} "
            f"{group.capitalize()}s: {', '.join(sorted(files))}."
        )
    if section.get("target") is not None:
        raise ConfigError(
            f"'{at}.target' {composed.came_from(f'{at}.target')}: the class of a {group} is named in its file, "
            f"{group}/<name>.yaml of a folder of configurations."
        )
    return {**_read(files[kind], group), **{key: value for key, value in section.items() if key != group}}


def _read(path: Path, group: str) -> dict[str, Any]:
    content: object = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("target"), str):
        raise ConfigError(f"{path} must have a line target: package.module.Class, the class of the {group}.")
    return content


def without_stage(path: str, value: object, composed: Composed) -> str:
    """The message for a section of a recipe that does not say which stage it is, such as one with a misspelt name."""
    _, name, *_ = path.split(".")
    named = {key.split(".")[1] for key in composed.origins if key.startswith("recipe.") and key.count(".") >= 1}
    guess = closest(name, named - {name})
    hint = f" Did you mean 'recipe.{guess}'?" if guess else ""
    stages = ", ".join(sorted(composed.files.get("stage", {})))
    said = "" if isinstance(value, Mapping) else f"is {value!r}, which "
    return (
        f"'recipe.{name}' {composed.came_from(f'recipe.{name}')} {said}does not say which stage it is.{hint} "
        f"A stage of its own needs recipe.{name}.stage=, one of {stages}."
    )


def misplaced_stages(plugins: Mapping[str, Plugin]) -> Iterator[str]:
    """A message for each stage that comes after one whose result is no model.

    Args:
        plugins: Of a configuration by section, a recipe's stages in their order.
    """
    end: str | None = None
    for section, plugin in plugins.items():
        if not section.startswith("recipe."):
            continue
        if end is not None:
            yield (
                f"'{section}' comes after '{end}', whose stage {plugins[end].name!r} gives files and no model: that "
                "stage must be the last of its recipe."
            )
        elif offers(plugin.target, EndsRecipe) and plugin.target.ends_recipe:
            end = section


def check_spaces(stages: Mapping[str, Stage], space: object) -> None:
    """Ask each stage that depends on the graph about the space as the stages before it leave it.

    Args:
        stages: Of a recipe by name, in their order.
        space: What the models are from that the recipe begins with.

    Raises:
        RankitectError: A stage cannot work on it; names the stage.
    """
    from rankitect.graph import SearchSpace

    for name, stage in stages.items():
        if isinstance(space, SearchSpace) and offers(stage, WorksOnSpaces):
            try:
                space = stage.space_after(space)
            except RankitectError as error:
                raise type(error)(f"recipe.{name}: {error}") from error


def check_choices(bindings: Bindings, stages_for: Callable[[Architecture], object]) -> None:
    """Refuse a value of a choice that decides a setting of the recipe, where the recipe can run with no combination
    that has it. Where there are very many combinations, each is looked at when an architecture has it.

    Args:
        bindings: Which choices decide which settings.
        stages_for: Makes the checked stages of an architecture.

    Raises:
        ConfigError: Names the choice, the value and what is in its way.
    """
    from rankitect.space.architecture import Architecture

    sections = (keys for section, keys in bindings.sections.items() if section.startswith("recipe."))
    paths = sorted({path for keys in sections for path in keys.values()})
    values = [bindings.choices[path].values for path in paths]
    if not paths or prod(map(len, values)) > _COMBINATIONS:
        return
    works: set[tuple[int, object]] = set()
    refused: dict[tuple[int, object], RankitectError] = {}
    for combination in product(*values):
        try:
            stages_for(Architecture(bindings.space, "", dict(zip(paths, combination, strict=True))))
        except RankitectError as error:
            for place in enumerate(combination):
                refused.setdefault(place, error)
        else:
            works.update(enumerate(combination))
    for (at, value), reason in refused.items():
        if (at, value) not in works:
            raise ConfigError(
                f"choices: with {brief(paths[at], 60)}={brief(value, 40)} the recipe cannot run: {brief(reason, 330)}"
            ) from reason
