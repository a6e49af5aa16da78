"""How the class that a configuration names is made, what declares it as one, and what else it may say about itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from rankitect.contracts.capability import offers

__all__ = [
    "ComparesGraphs",
    "DecodesArchitectures",
    "Estimates",
    "FromConfig",
    "NamesCosts",
    "NamesModels",
    "Preloads",
    "is_declared",
    "plugin",
]

F = TypeVar("F", bound=Callable[..., Any])
_DECLARED: set[Callable[..., Any]] = set()


def plugin(target: F) -> F:
    """Declare a function or class as one that configurations may name in `target`.

    A configuration may come from anybody, and most functions are not meant to be called with whatever it says. What
    declares itself in another way needs no mark: see `is_declared`.

    >>> @plugin
    ... def task(steps: int = 80) -> int:
    ...     return steps

    Args:
        target: The function or class.

    Returns:
        The same.
    """
    _DECLARED.add(target)
    return target


def is_declared(target: Callable[..., Any], makes: Collection[str]) -> bool:
    """Whether a configuration may name a class or function as a plug-in.

    That is: what `plugin` marks; a class with `from_config` (the contract `FromConfig`) or with a pydantic model
    `Config` of its own; a class derived from what is wanted, and a function annotated to return it.

    Args:
        target: The class or function.
        makes: Names of the types that a function may be annotated to return.
    """
    if isinstance(target, Hashable) and target in _DECLARED:
        return True
    if isinstance(target, type):
        return offers(target, FromConfig) or offers(target, _HasConfig) or _is_one_of(target, makes)
    return inspect.isfunction(target) and _is_one_of(inspect.signature(target).return_annotation, makes)


def _is_one_of(annotation: object, names: Collection[str]) -> bool:
    """Whether an annotation, as a type or as text, is one of the named types."""
    if isinstance(annotation, type):
        return any(base.__name__ in names for base in annotation.__mro__)
    return isinstance(annotation, str) and annotation.rpartition(".")[2] in names


class _HasConfig(Protocol):
    """A class that declares the keys of its section."""

    Config: ClassVar[type]


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
