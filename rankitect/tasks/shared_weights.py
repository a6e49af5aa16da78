"""Weights that a search has trained, on their way to the processes that measure candidates with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rankitect.methods.calibrated import calibrated
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from rankitect.contracts import Spent, Unit
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone, Supernet

__all__ = ["SharedWeights", "received", "sent"]

_WEIGHTS, _BASE = "weights", "base"


def sent(adopted: Supernet | None, space: SearchSpace) -> dict[str, bytes]:
    """A supernet that candidates inherit from, as bytes (safetensors); empty where there is none.

    Args:
        adopted: Of the space, or of its base.
        space: The space that is searched.
    """
    if adopted is None:
        return {}
    from safetensors.torch import save

    weights = {name: tensor.detach().contiguous() for name, tensor in adopted.state_dict().items()}
    return {_WEIGHTS: save(weights), _BASE: b"" if adopted.space is space else b"1"}


def received(shared: Mapping[str, bytes], space: SearchSpace, make: Callable[[SearchSpace], Supernet]) -> Supernet:
    """The inverse of `sent`.

    Args:
        shared: What was sent.
        space: The space that is searched.
        make: Makes a supernet of a space.
    """
    from safetensors.torch import load

    supernet = make(space.base if shared[_BASE] and space.base is not None else space)
    supernet.load_state_dict(load(shared[_WEIGHTS]))
    return supernet


class SharedWeights:
    """Base of a task whose candidates may inherit from weights that a search has trained."""

    _adopted: Supernet | None = None
    space: Any
    unit: Unit

    def supernet(self, space: SearchSpace) -> Supernet:
        """Weights of a space for a search to train."""
        raise NotImplementedError

    def adopt(self, supernet: Supernet | None) -> None:
        """Let candidates inherit from these weights from now on; None: as before any search."""
        self._adopted = supernet

    _taking: tuple[int, list[Spent]] | None = None

    @contextmanager
    def taking(self, examples: int) -> Iterator[list[Spent]]:
        """A context in which candidates are measured as they are taken from adopted weights; gives what that cost.

        Args:
            examples: Of which statistics of a model are taken, where it has any.
        """
        before, self._taking = self._taking, (examples, [])
        try:
            yield self._taking[1]
        finally:
            self._taking = before

    def taken(self, architecture: Architecture) -> Standalone | None:
        """A candidate as it is taken from adopted weights, within `taking`, with statistics of its own; None outside of
        it."""
        if self._taking is None or self._adopted is None:
            return None
        examples, spent = self._taking
        model = placement().place(self._adopted.extract(architecture))
        spent.append(calibrated(model, self, self.unit, examples))
        return model

    def shared(self) -> dict[str, bytes]:
        """What processes that measure candidates need of this one."""
        return sent(self._adopted, self.space)

    def receive(self, shared: Mapping[str, bytes]) -> None:
        """Take what `shared` gave in the process of the search."""
        self.adopt(received(shared, self.space, self.supernet))
