"""Models as they were earlier in a recipe, for the stages that learn from them: teachers of self-distillation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rankitect.contracts.capability import offers
from rankitect.contracts.stage import LearnsFromEarlier
from rankitect.errors import ConfigError, brief

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.contracts import JSON
    from rankitect.contracts.stage import Stage, StageContext
    from rankitect.graph import SearchSpace
    from rankitect.recipes.pair import Pair

__all__ = ["FLOAT", "EarlierModels"]

FLOAT = "float"
"""The model after the last stage that left it in floats, or, where the recipe was given a model of few bits, in those:
of such a model the weights before they are rounded, which training with rounded weights has made to fit."""

Entry = Callable[[int], "tuple[Mapping[str, Tensor], Pair] | None"]


class EarlierModels:
    """What stages of a recipe ask for, and copies of it, each kept until the last stage that needs it has run.

    Args:
        stages: By name, in their order.
        given: What the model is of that the recipe is given; None where the recipe is not run.

    Raises:
        ConfigError: A stage asks for what is no stage before it.
    """

    def __init__(self, stages: Mapping[str, Stage], given: Pair | None = None) -> None:
        self._names = list(stages)
        self._given = given
        self._asked: dict[int, str] = {}
        self._kept: dict[str, tuple[nn.Module, Pair]] = {}
        for position, (name, stage) in enumerate(stages.items()):
            if not offers(stage, LearnsFromEarlier) or stage.earlier is None:
                continue
            if stage.earlier not in (FLOAT, *self._names[:position]):
                allowed = ", ".join(["backbone", FLOAT, *self._names[:position]])
                raise ConfigError(
                    f"recipe.{name}: teacher={brief(stage.earlier)} is no stage before it; allowed: {allowed}."
                )
            self._asked[position] = stage.earlier

    def identity(self, position: int, keys: Sequence[str]) -> list[JSON]:
        """What the stage at a position learns from, as far as its settings and the stages before it do not tell.

        Args:
            position: Of the stage.
            keys: Of the outputs of the stages before it.
        """
        name = self._asked.get(position)
        if name is None:
            return []
        if name != FLOAT:  # which may be another stage's name elsewhere
            return [keys[self._names.index(name)]]
        # Earlier versions took what a recipe of rounded models was given, whatever had been trained since.
        return [] if self._given is None or _is_float(self._given) else ["floats as they were trained"]

    def note(self, position: int, model: nn.Module, pair: Pair) -> bool:
        """Copy a model, if a later stage may ask for it.

        Args:
            position: Of the stage that has given it; -1 for what the recipe was given.
            model: The model.
            pair: What it is of.

        Returns:
            Whether `recall` would miss it: it is asked for, or looked at for the last model in floats.
        """
        wanted = self._wanted_after(position)
        named = position >= 0 and self._names[position] in wanted
        if named:
            self._keep(self._names[position], copy.deepcopy(model), pair)
        if FLOAT in wanted and self._in_floats_at(position, pair):
            self._keep(FLOAT, copy.deepcopy(_in_floats(model)), pair)
        return named or FLOAT in wanted

    def take(self, position: int, context: StageContext) -> None:
        """Give the stage at a position what it asks for; forgets what no later one does."""
        if (name := self._asked.get(position)) is not None:
            context.earlier, pair = self._kept[name]
            context.earlier_architecture, context.earlier_space = pair.architecture, pair.space
        self._kept = {key: kept for key, kept in self._kept.items() if key in self._wanted_after(position)}

    def recall(self, position: int, restored: Pair, given: nn.Module, entry: Entry) -> bool:
        """Restore what stages after a position ask for of those before it.

        Args:
            position: Of the last stage whose result is restored; `note` is told of it afterwards.
            restored: What that result is of.
            given: What the recipe was given; not changed.
            entry: The stored result of a stage at a position; None where there is none.

        Returns:
            Whether all of it is there.
        """
        self._kept = {}
        assert self._given is not None  # the recipe is run
        for name in self._wanted_after(position):
            places: Sequence[int] = range(position - 1, -1, -1)
            if name != FLOAT:
                places = [self._names.index(name)]
            noted = self._in_floats_at(position, restored) if name == FLOAT else places[0] >= position
            if noted:  # when it is restored, or has run
                continue
            for at in places:
                if (stored := entry(at)) is None:
                    return False
                tensors, of = stored
                if name != FLOAT or self._in_floats_at(at, of):
                    stored_model = of.with_tensors(copy.deepcopy(given), tensors, self._given)
                    self._keep(name, _in_floats(stored_model) if name == FLOAT else stored_model, of)
                    break
            else:
                self._keep(name, copy.deepcopy(_in_floats(given)), self._given)
        return True

    def _in_floats_at(self, position: int, pair: Pair) -> bool:
        """Whether the model after a position, in floats, is what "float" means from there on.

        A model of few bits is, as long as no stage has given it others and none has learned from "float" itself: what
        such a stage trains is to be compared with that.
        """
        if position < 0 or _is_float(pair):
            return True
        learned = any(name == FLOAT and at <= position for at, name in self._asked.items())
        return not learned and self._given is not None and _numerics(pair.space) == _numerics(self._given.space)

    def _wanted_after(self, position: int) -> set[str]:
        return {name for at, name in self._asked.items() if at > position}

    def _keep(self, name: str, model: nn.Module, pair: Pair) -> None:
        self._kept[name] = model.eval().requires_grad_(False), pair


def _is_float(pair: Pair) -> bool:
    from rankitect.models.plan import make_plan

    return pair.space is None or make_plan(pair.space, pair.architecture).is_float


def _numerics(space: SearchSpace | None) -> Mapping[str, Mapping[str, object]]:
    """The bits of each block by its node, as it states them."""
    from rankitect.graph.quantized import Quantized

    nodes = () if space is None else space.graph.nodes
    return {node.path: node.block.numerics() for node in nodes if isinstance(node.block, Quantized)}


def _in_floats(model: nn.Module) -> nn.Module:
    """The same weights, none of them rounded."""
    from rankitect.models.supernet import Standalone

    return model.in_floats() if isinstance(model, Standalone) else model
