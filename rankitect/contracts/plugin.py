"""How the class that a configuration names is made, and what else it may say about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

__all__ = ["ComparesGraphs", "DecodesArchitectures", "Estimates", "FromConfig", "NamesCosts", "NamesModels", "Preloads"]


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


class NamesModels(Protocol):
    """A space class that knows published models by name."""

    @classmethod
    def named(cls, space: Any) -> Mapping[str, Any]:
        """Those of them that a space holds, as architectures by name."""
        ...


class Preloads(Protocol):
    """A plug-in class that names the heavy modules its workers will need, to be imported while the study starts."""

    preload: ClassVar[Sequence[str]]
    """Dotted names of modules."""


class Estimates(Protocol):
    """The class of a device that says whether it computes latencies instead of timing anything."""

    estimate: ClassVar[bool]
    """True where nothing is timed, so that trials beside each other do not disturb it."""


class NamesCosts(Protocol):
    """The class of a task that says which costs `constraints` may bound, before it is made."""

    bounded_costs: ClassVar[Mapping[str, str]]
    """What each cost is, by its name."""


class ComparesGraphs(Protocol):
    """A controller class that says when it tells architectures apart by nothing but their graphs."""

    @classmethod
    def by_graph_alone(cls, config: Any) -> bool:
        """Whether it does as configured, by weights that architectures share for example. It is then blind to settings,
        the choices that shape no graph, and a space with settings is refused.

        Args:
            config: An instance of the class's own `Config`.
        """
        ...


class DecodesArchitectures(Protocol):
    """A space of the user's own kind, whose architectures are not those of a space of choices."""

    def decode(self, text: str) -> Any:
        """An architecture from what its `to_json` gave."""
        ...
