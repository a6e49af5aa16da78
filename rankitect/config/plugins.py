"""From a dotted path in a configuration to a class, and to the model that checks its section.

A plug-in is a class with a nested pydantic model `Config`, or a plain function, whose parameters are then its keys.
Only packages that the configuration allows are imported, and only their public names are taken.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from rankitect.config.bindings import with_bindings
from rankitect.errors import ConfigError

__all__ = ["Plugin", "config_model", "load_target"]


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


def load_target(target: str, allowed: Sequence[str], key: str) -> Callable[..., Any]:
    """Import the class or function that a configuration names.

    Args:
        target: Dotted path, "package.module.Name".
        allowed: Packages it may come from.
        key: Where it stands in the configuration, for messages.

    Raises:
        ConfigError: It is no such path, is not allowed, does not exist, or cannot be imported.
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
        names = sorted(n for n, value in vars(module).items() if not n.startswith("_") and _is_plugin(value, module))
        raise ConfigError(f"{key}: module {module_name} has no '{name}'. It has: {', '.join(names) or 'nothing'}.")
    if not callable(plugin) or not _inside(getattr(plugin, "__module__", ""), allowed):
        raise ConfigError(f"{key}: '{target}' is not a class or function of an allowed package.")
    return plugin


def _inside(path: str, allowed: Sequence[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in allowed)


def _is_plugin(value: Any, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__


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
    model = getattr(plugin, "Config", None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        if model.model_config.get("extra") == "forbid":
            return model
        forbid = ConfigDict(**{**model.model_config, "extra": "forbid"})
        return type(model.__name__, (model,), {"model_config": forbid, "__module__": model.__module__})
    fields: dict[str, Any] = {}
    if inspect.isfunction(plugin):
        for name, parameter in inspect.signature(plugin, eval_str=True).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            kind = Any if parameter.annotation is parameter.empty else parameter.annotation
            fields[name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    strict = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model("Config", __config__=strict, **fields)
