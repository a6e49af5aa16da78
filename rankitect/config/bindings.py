"""Settings that a choice decides: written `{choice: <path>}` in the place of a value.

    choices: { lr: { low: 1.0e-4, high: 1.0e-2, values: 9, log: true } }
    task: { optimizer: { lr: { choice: lr } } }

A class says which keys it reads anew for each architecture by marking them in its `Config`; no other may be bound:

    batch: Annotated[int, ByArchitecture()] = 1024

and reads them with `parts.bindings.applied("task", config, architecture)`. A setting keeps its default for
architectures in which its choice has no effect, and for models that are no architecture of the searched space, such as
baselines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rankitect.errors import ConfigError, closest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from rankitect.space.architecture import Architecture
    from rankitect.space.choice_space import ChoiceSpace
    from rankitect.space.choices import Choice, ChoiceValue

__all__ = [
    "Bindings",
    "ByArchitecture",
    "bound",
    "requirement",
    "sections_of",
    "settings_of",
    "with_bindings",
    "without_bindings",
]

Config = TypeVar("Config", bound=BaseModel)

_TYPES = {
    "dict_type": "should be a section, written {key: value}",
    "model_type": "should be a section, written {key: value}",
    "list_type": "should be a list, written [a,b]",
    "tuple_type": "should be a list, written [a,b]",
}
"""What a value should be, in the words of a configuration, where pydantic speaks of Python's types."""


@dataclass(frozen=True)
class ByArchitecture:
    """Marks a key of a `Config` that is read anew for each architecture, and with a section all keys in it."""


def bound(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The bound keys of a section, dotted, with the paths of their choices."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            if set(value) == {"choice"} and isinstance(value["choice"], str):
                yield f"{prefix}{key}", value["choice"]
            else:
                yield from bound(value, f"{prefix}{key}.")


def without_bindings(data: Mapping[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """A section without its bound keys, which then have their defaults."""
    return {
        key: without_bindings(value, keys, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in data.items()
        if f"{prefix}{key}" not in keys
    }


def with_bindings(data: Mapping[str, Any], bindings: Mapping[str, str]) -> dict[str, Any]:
    """A section as `without_bindings` found it, from its checked data."""
    written = dict(data)
    for key, path in bindings.items():
        written = _put(written, key, {"choice": path})
    return written


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a key of this type holds keys of; the names in a dictionary are the user's own."""
    if get_origin(annotation) is dict:
        return []
    kinds = (annotation, *get_args(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def bindable(model: type[BaseModel], prefix: str = "", marked: bool = False) -> Iterator[str]:
    """Dotted keys of a `Config` that a choice may decide.

    Args:
        model: The `Config`.
        prefix: Put before each key.
        marked: Whether all keys may be.
    """
    for name, info in model.model_fields.items():
        here = marked or any(isinstance(mark, ByArchitecture) for mark in info.metadata)
        sections = sections_of(info.annotation)
        if here and not sections:
            yield f"{prefix}{name}"
        for section in sections:
            yield from bindable(section, f"{prefix}{name}.", here)


def settings_of(section: str, model: type[BaseModel]) -> list[str]:
    """Dotted keys of a section that a choice may decide: those that are marked, and every key of a recipe's stages,
    which are made anew for each architecture."""
    return list(bindable(model, marked=section.startswith("recipe.")))


@dataclass(frozen=True)
class Bindings:
    """Which choices decide which settings.

    Attributes:
        sections: For each section, dotted keys and the paths of their choices.
        space: Name of the space that the choices are of, once there is one.
        choices: Its choices by path.
    """

    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    space: str = ""
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def applied(self, section: str, config: Config, architecture: Architecture) -> Config:
        """A section's configuration for one architecture.

        Args:
            section: For example "task".
            config: As it is without choices.
            architecture: Decides the bound settings.

        Raises:
            ConfigError: The values are each allowed, but not together.
        """
        values = {
            key: self.choices[path].setting(architecture.choices[path])
            for key, path in self.sections.get(section, {}).items()
            if architecture.space == self.space and path in architecture.choices
        }
        if not values:
            return config
        try:
            return _with_values(config, values)
        except ValidationError as error:
            shown = ", ".join(f"{section}.{key}={value}" for key, value in values.items())
            raise ConfigError(f"{shown} do not go together: {requirement(error.errors()[0])}.") from None

    def within(self, space: ChoiceSpace, configs: Mapping[str, BaseModel], read: Collection[str] = ()) -> Bindings:
        """The bindings for a space, checked: every bound choice is in it, all of its values are allowed, and every
        choice that shapes no graph is read.

        Args:
            space: The space.
            configs: The sections' configurations.
            read: Choices that the task reads by itself.

        Raises:
            ConfigError: Names the setting or the choice, and what is allowed.
        """
        checked = replace(self, space=space.name, choices=space.choices)
        for section, keys in self.sections.items():
            for key, path in keys.items():
                checked._check(section, key, path, configs[section])
        decided = {path for keys in self.sections.values() for path in keys.values()}
        for path in space.settings:
            if path not in decided and path not in read:
                raise ConfigError(_unread(path, configs))
        return checked

    def _check(self, section: str, key: str, path: str, config: BaseModel) -> None:
        if path not in self.choices:
            known = ", ".join(list(self.choices)[:12]) + (", ..." if len(self.choices) > 12 else "")
            raise ConfigError(
                f"'{section}.{key}' is to be decided by the choice '{path}', which is in no space. Declare it under "
                f"choices, or take one of the space: {known or 'none'}."
            )
        choice = self.choices[path]
        for value in choice.values:
            try:
                _with_values(config, {key: choice.setting(value)})
            except ValidationError as error:
                raise ConfigError(
                    f"'{section}.{key}' is to be decided by the choice '{path}', whose value {value!r} is not allowed "
                    f"there: {requirement(error.errors()[0])}."
                ) from None

    def defaults(self, declared: Mapping[str, Choice], configs: Mapping[str, BaseModel]) -> dict[str, ChoiceValue]:
        """For each of some choices, the value nearest to what the setting that it decides has by default.

        The first value where nothing is near. Known architectures of a space get these.
        """
        usual: dict[str, Any] = {}
        for section, keys in self.sections.items():
            for key, path in keys.items():
                usual.setdefault(path, reduce(getattr, key.split("."), configs[section]))
        return {path: _nearest(choice, usual.get(path)) for path, choice in declared.items()}


def _nearest(choice: Choice, usual: Any) -> ChoiceValue:
    if not choice.ordered or isinstance(usual, bool) or not isinstance(usual, int | float):
        return next((v for v in choice.values if choice.setting(v) == usual), choice.values[0])
    numbers = [v for v in choice.values if isinstance(v, int | float)]
    return min(numbers, key=lambda number: abs(number - usual))


def _unread(path: str, configs: Mapping[str, BaseModel]) -> str:
    possible = [f"{section}.{key}" for section, config in configs.items() for key in settings_of(section, type(config))]
    like = closest(path, possible) or next(iter(possible), None)
    example = f", for example {like}={{choice: {path}}}" if like else ""
    return (
        f"The choice '{path}' decides nothing: it shapes no graph, and no setting is bound to it{example}. Settings "
        f"that a choice may decide: {', '.join(possible) or 'none'}."
    )


def requirement(problem: ErrorDetails) -> str:
    """What a value should be instead, as the end of a sentence."""
    return _TYPES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")


def _with_values(config: Config, values: Mapping[str, Any]) -> Config:
    data = config.model_dump()
    for key, value in values.items():
        data = _put(data, key, value)
    return type(config).model_validate(data)


def _put(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested data with one value changed."""
    head, _, rest = key.partition(".")
    inner = data.get(head)
    return {**data, head: _put(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}
