"""What a model is of while a recipe runs: an architecture and its space, either of which a stage may change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankitect.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.contracts import JSON
    from rankitect.graph import SearchSpace

__all__ = ["Pair"]


@dataclass(frozen=True)
class Pair:
    """An architecture and the space whose choices it closes.

    Attributes:
        architecture: The closed choices.
        space: The space; None for a model of no graph.
    """

    architecture: Any
    space: SearchSpace | None

    @property
    def identity(self) -> list[JSON]:
        """What distinguishes it from others, as plain data."""
        return ["" if self.space is None else self.space.to_json(), self.architecture.fingerprint]

    def stored(self, given: Pair) -> dict[str, JSON]:
        """As plain data, beside the tensors of its model; empty where it is what the recipe was given."""
        if self.space is None or self == given:
            return {}
        return {"space": json.loads(self.space.to_json()), "architecture": json.loads(self.architecture.to_json())}

    @classmethod
    def restored(cls, stored: Mapping[str, Any], given: Pair, stages: Iterable[type]) -> Pair:
        """The inverse of `stored`.

        Args:
            stored: The data.
            given: What the recipe began with.
            stages: The classes of the recipe's stages, whose packages may hold blocks as those of the given space may.

        Raises:
            SpaceError: The data are no such pair.
        """
        if given.space is None or "space" not in stored:
            return given
        from rankitect.graph import Architecture, SearchSpace

        blocks = {type(node.block) for node in given.space.graph.nodes}
        space = SearchSpace.from_json(json.dumps(stored["space"]), _packages([*blocks, *stages]))
        return cls(space.validate(Architecture.from_data(stored["architecture"])), space)

    def with_tensors(self, model: nn.Module, tensors: Mapping[str, Tensor], given: Pair) -> nn.Module:
        """A model of this pair with tensors by name.

        Args:
            model: One of the given pair, which is changed in place where this pair is the same.
            tensors: As `rankitect.training.loop.model_tensors` gives them.
            given: What the recipe began with.

        Raises:
            TrainingError: The tensors are not those of such a model.
        """
        from rankitect.training.loop import load_tensors

        if self.space is None or self is given:
            load_tensors(model, tensors)
            return model
        return self.rebuilt(tensors)

    def rebuilt(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A new model of this pair, which must have a space.

        Raises:
            TrainingError: The tensors are not those of such a model.
        """
        assert self.space is not None
        from rankitect.models.plan import make_plan
        from rankitect.models.supernet import Standalone
        from rankitect.training.loop import load_tensors
        from rankitect.training.placement import placement

        plan = make_plan(self.space, self.space.validate(self.architecture))
        names = {key: ".".join(key) for key in plan.shapes()}
        if missing := [name for name in names.values() if name not in tensors]:
            raise TrainingError(f"The saved weights do not belong to this model: {missing[0]!r} is missing.")
        rebuilt = Standalone(plan, {key: tensors[name].clone() for key, name in names.items()})
        load_tensors(rebuilt, tensors)  # which checks the shapes
        return placement().place(rebuilt)


def _packages(classes: Iterable[type]) -> tuple[str, ...]:
    return tuple(sorted({"rankitect", *(kind.__module__.partition(".")[0] for kind in classes)}))
