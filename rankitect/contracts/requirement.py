"""Asking a task for a capability, with a message that says what is lacking and what would work instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from rankitect.contracts.capability import missing_members
from rankitect.errors import ConfigError

__all__ = ["LacksCapability", "NeedsCapabilities", "require"]


class NeedsCapabilities(Protocol):
    """A controller or evaluator class that says what it needs of a task, so that others can be named in its stead."""

    @classmethod
    def needs(cls, config: Any) -> Sequence[type]:
        """Capabilities without which it cannot work as configured.

        Args:
            config: An instance of the class's own `Config`.
        """
        ...


class LacksCapability(ConfigError):
    """A task lacks what a part needs of it.

    Attributes:
        capability: The Protocol.
    """

    def __init__(self, task: object, capability: type, who: str, called: str = "", instead: str = "") -> None:
        self.capability = capability
        about = str(capability.__doc__).partition("\n\n")[0].replace("\n", " ").rstrip(".")
        missing = ", ".join(missing_members(task, capability))
        name = f"task={called} ({type(task).__name__})" if called else f"the task ({type(task).__name__})"
        super().__init__(
            f"{who} needs {about[0].lower()}{about[1:]} ({capability.__name__}), which {name} is not: it has no "
            f"{missing}.{f' {instead}' if instead else ''}"
        )


C = TypeVar("C")


def require(task: object, capability: type[C], who: str, *, called: str = "", instead: str = "") -> C:
    """The task, as something that has a capability.

    Args:
        task: The task.
        capability: The Protocol.
        who: What needs it, for the message: "controller=dnas".
        called: Name of the task in the configuration, for the message.
        instead: What to do about it, for the message: a sentence that names what would work.

    Raises:
        LacksCapability: The task lacks a member of it.
    """
    if missing_members(task, capability):
        raise LacksCapability(task, capability, who, called, instead)
    return task  # type: ignore[return-value]  # it has every member of the Protocol
