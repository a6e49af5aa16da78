"""What a task may do with weights that a search has trained: send them to other processes, let candidates be taken from
them. Capabilities, as those of `rankitect.contracts.task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rankitect.contracts.records import Spent
    from rankitect.graph import Architecture

__all__ = ["SendsWeights", "TakesWeights"]


class TakesWeights(Protocol):
    """A task whose candidates may be measured in full as they are taken from shared weights."""

    def taking(self, examples: int) -> AbstractContextManager[Sequence[Spent]]:
        """A context in which candidates need no training: what trains them before it measures gets them as `taken`.
        It gives what that cost, one after another.

        Args:
            examples: Of which statistics of a model are taken, where it has any.
        """
        ...

    def taken(self, architecture: Architecture) -> Any:
        """The model of an architecture (`rankitect.models.supernet.Standalone`) as it is taken from shared weights,
        within `taking`; None outside of it.

        Args:
            architecture: One of the space that the weights are shared in.
        """
        ...


class SendsWeights(Protocol):
    """A task that can hand the weights of a search to processes that measure candidates elsewhere."""

    def shared(self) -> dict[str, bytes]:
        """What processes that measure candidates need of this one."""
        ...

    def receive(self, shared: Mapping[str, bytes]) -> None:
        """Take what `shared` gave in the process of the search."""
        ...
