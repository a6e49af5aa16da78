"""How the class that a configuration names is made, and what else it may say about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

__all__ = ["FromConfig", "Preloads"]


class FromConfig(Protocol):
    """A plug-in class that is made from its checked configuration and the parts that exist already.

    A class without `from_config` is called with its configuration alone, a function with its keys.
    """

    @classmethod
    def from_config(cls, config: Any, parts: Any) -> Any:
        """Make the plug-in.

        Args:
            config: An instance of the class's own `Config`.
            parts: The parts that are made already (`rankitect.config.parts.Parts`).

        Raises:
            RankitectError: It cannot be made from what the user gave.
        """
        ...


class Preloads(Protocol):
    """A plug-in class that names the heavy modules its workers will need, to be imported while the study starts."""

    preload: ClassVar[Sequence[str]]
    """Dotted names of modules."""
