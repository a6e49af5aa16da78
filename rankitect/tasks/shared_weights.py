"""Weights that a search has trained, on their way to the processes that measure candidates with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Calibrates, require
from rankitect.training.placement import placement

if TYPE_CHECKING:
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

    def supernet(self, space: SearchSpace) -> Supernet:
        """Weights of a space for a search to train."""
        raise NotImplementedError

    def adopt(self, supernet: Supernet | None) -> None:
        """Let candidates inherit from these weights from now on; None: as before any search."""
        self._adopted = supernet

    _taking: int | None = None

    @contextmanager
    def taking(self, examples: int) -> Iterator[None]:
        """A context in which candidates are measured as they are taken from adopted weights.

        Args:
            examples: Of which statistics of a model are taken, where it has any.
        """
        before, self._taking = self._taking, examples
        try:
            yield
        finally:
            self._taking = before

    def taken(self, architecture: Architecture) -> Standalone | None:
        """A candidate as it is taken from adopted weights, within `taking`, with statistics of its own; None outside of
        it."""
        from rankitect.models.statistics import has_statistics, recalibrate

        if self._taking is None or self._adopted is None:
            return None
        model = placement().place(self._adopted.extract(architecture))
        if has_statistics(self._adopted.space):
            task = require(self, Calibrates, f"space {self._adopted.space.name!r}, whose blocks hold statistics,")
            recalibrate(model, task.calibration_batches(self._taking))
        return model

    def shared(self) -> dict[str, bytes]:
        """What processes that measure candidates need of this one."""
        return sent(self._adopted, self.space)

    def receive(self, shared: Mapping[str, bytes]) -> None:
        """Take what `shared` gave in the process of the search."""
        self.adopt(received(shared, self.space, self.supernet))
