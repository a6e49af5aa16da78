"""Asking whether a part offers a capability, without running any of its code."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

__all__ = ["members_of", "missing_members", "offers"]

T = TypeVar("T")
_ABSENT = object()


def offers(part: object, capability: type[T]) -> TypeGuard[T]:
    """Whether `part`, an object or a class, has every member that the Protocol `capability` names.

    `isinstance` with a runtime-checkable Protocol reads each member, and so computes every property it names; some
    properties of a task train a model. Here only the presence of the members is looked up.

    Args:
        part: A task, controller, device, runner or evaluator, or the class of one.
        capability: A Protocol.
    """
    return not missing_members(part, capability)


def missing_members(part: object, capability: type) -> list[str]:
    """The members of a Protocol that `part`, an object or a class, does not have, in alphabetical order."""
    return [name for name in members_of(capability) if inspect.getattr_static(part, name, _ABSENT) is _ABSENT]


@cache
def members_of(capability: type) -> tuple[str, ...]:
    """Public attributes and methods that a Protocol names, those of the Protocols it extends included, in order."""
    bases: list[Any] = [base for base in capability.__mro__ if base not in (object, Protocol, Generic)]
    names = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    return tuple(sorted(name for name in names if not name.startswith("_")))
