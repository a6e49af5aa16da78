"""From a dotted path in a configuration to a class, and to the model that checks its section.

A plug-in is a class with a nested pydantic model `Config`, or a plain function, whose parameters are then its keys.
Only allowed packages are imported, and of their public names only those that declare themselves plug-ins
(`rankitect.contracts.plugin`): a configuration may come from anybody, and must not call whatever can be imported.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from rankitect.config.bindings import with_bindings
from rankitect.contracts.measure import declared_measure
from rankitect.contracts.plugin import is_declared
from rankitect.errors import ConfigError

__all__ = ["Plugin", "config_model", "load_target"]

SPACES = ("SearchSpace", "ChoiceSpace")
"""Types that a function of a configuration's section may be annotated to return."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in with its checked keys.

    Attributes:
        name: Name for reports.
        target: The class or function.
        config: Its keys, as its own `Config`; those that a choice decides have their defaults.
        bindings: Dotted keys that a choice decides, with its path.
    """

    name: str
    target: Callable[..., Any]
    config: BaseModel
    bindings: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """Its keys as plain data."""
        return with_bindings(self.config.model_dump(mode="json"), self.bindings)


def load_target(target: str, allowed: Sequence[str], key: str, makes: Collection[str] = SPACES) -> Callable[..., Any]:
    """Import the class or function that a configuration names.

    Args:
        target: Dotted path, "package.module.Name".
        allowed: Packages it may come from.
        key: Where it stands in the configuration, for messages.
        makes: Names of the types that a function may be annotated to return, to be a plug-in without a mark.

    Raises:
        ConfigError: It is no such path, is not allowed, does not exist, cannot be imported, or is no declared plug-in.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise ConfigError(f"{key}: '{target}' is not a dotted path such as package.module.Name.")
    if not _inside(target, allowed):
        raise ConfigError(
            f"{key}: '{target}' is not in an allowed package ({', '.join(allowed)}). If you trust it, add its package "
            f"to allowed_packages, for example allowed_packages=[{','.join([*allowed, parts[0]])}]."
        )
    module_name, _, name = target.rpartition(".")
    module = _import(module_name, target, key)
    plugin = getattr(module, name, None)
    if plugin is None:
        raise ConfigError(f"{key}: module {module_name} has no '{name}'. {_plugins_of(module, makes)}")
    if not callable(plugin) or not _inside(getattr(plugin, "__module__", ""), allowed):
        raise ConfigError(f"{key}: '{target}' is not a class or function of an allowed package.")
    if not is_declared(plugin, makes):
        raise ConfigError(
            f"{key}: '{target}' does not declare itself a plug-in, so nothing may name it. "
            f"{_plugins_of(module, makes)} If it is yours, give it a Config or from_config, annotate that it returns "
            f"{' or '.join(makes) or 'a plug-in'}, or mark it with @rankitect.contracts.plugin."
        )
    return plugin


def _inside(path: str, allowed: Sequence[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in allowed)


def _plugins_of(module: ModuleType, makes: Collection[str]) -> str:
    """What of a module may be named instead, for messages."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and callable(value)}
    own = {name: value for name, value in public.items() if getattr(value, "__module__", "") == module.__name__}
    names = sorted(name for name, value in own.items() if is_declared(value, makes))
    return f"Plug-ins in it: {', '.join(names) or 'none'}."


def _import(module_name: str, target: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (module_name == missing or module_name.startswith(f"{missing}.")):
            raise ConfigError(
                f"{key}: '{target}' needs the package '{missing}', which is not installed. Run python -m "
                "rankitect.doctor to see what is missing."
            ) from error
        raise ConfigError(f"{key}: there is no module '{missing}' for '{target}'.{_siblings(missing)}") from error
    except Exception as error:
        raise ConfigError(f"{key}: '{target}' cannot be imported: {type(error).__name__}: {error}") from error


def _siblings(missing: str) -> str:
    """The modules beside a missing one, for the message."""
    parent = missing.rpartition(".")[0]
    if not parent:
        return " Is its folder on PYTHONPATH, or its package installed?"
    try:
        names = sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(parent).__path__))
    except (ImportError, AttributeError):
        return ""
    return f" {parent} has: {', '.join(names) or 'nothing'}."


def config_model(plugin: Callable[..., Any]) -> type[BaseModel]:
    """The model of a plug-in's keys: its `Config`, or one made from a function's parameters; unknown keys forbidden."""
    given = 0 if declared_measure(plugin) is None else 2  # the model and the task are no keys of a measure
    model = getattr(plugin, "Config", None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        if own := sorted({"name", "target"} & model.model_fields.keys()):
            raise ConfigError(f"{plugin.__qualname__}.Config has the key '{own[0]}', which every section has already.")
        if model.model_config.get("extra") == "forbid":
            return model
        forbid = ConfigDict(**{**model.model_config, "extra": "forbid"})
        return type(model.__name__, (model,), {"model_config": forbid, "__module__": model.__module__})
    fields: dict[str, Any] = {}
    if inspect.isfunction(plugin):
        for name, parameter in list(inspect.signature(plugin, eval_str=True).parameters.items())[given:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            kind = Any if parameter.annotation is parameter.empty else parameter.annotation
            fields[name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    strict = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model("Config", __config__=strict, **fields)
