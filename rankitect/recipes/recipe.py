"""The run of a recipe: its stages in order, each resumed where it was killed, each output computed once and shared."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.contracts.stage import EndsRecipe, Shortens, StageContext
from rankitect.errors import ConfigError, RankitectError
from rankitect.recipes.asking import Asked, answer_of, spent_on
from rankitect.recipes.earlier import EarlierModels
from rankitect.recipes.pair import Pair
from rankitect.recipes.resuming import begin_again_if_damaged, begin_again_if_of_another_recipe, forget_origin
from rankitect.recipes.store import StageStore

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.contracts import ArchitectureLike
    from rankitect.contracts.stage import Stage, StageMeasure
    from rankitect.graph import SearchSpace

__all__ = ["Recipe", "RecipeResult", "StageResult"]

_FORMAT = 1
"""To be raised when the same settings begin to give other weights: stored outputs of before are then not used."""


_UNUSABLE = (RankitectError, KeyError, TypeError, ValueError)
"""What a stored entry that is not as this version writes it ends in."""


@dataclass(frozen=True)
class StageResult:
    """What became of one stage.

    Attributes:
        name: Of the stage in its recipe.
        spent: What it costs; the same whether it was computed now or before.
        reused: Whether its output was computed before and only read now.
        before: What the model answered before the first stage, by the key of the `StageMeasure`.
        after: The same after this stage.
    """

    name: str
    spent: Spent
    reused: bool
    before: Mapping[str, JSON] = field(default_factory=dict)
    after: Mapping[str, JSON] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        asked = {name: dict(answers) for name, answers in (("before", self.before), ("after", self.after)) if answers}
        return {"name": self.name, "spent": self.spent.to_dict(), "reused": self.reused, **asked}

    @classmethod
    def stored(cls, data: Mapping[str, Any]) -> StageResult:
        """The inverse of `to_dict`, of what was computed before."""
        asked = (data.get("before", {}), data.get("after", {}))
        return cls(data["name"], Spent.from_dict(data["spent"]), True, *asked)


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe gives.

    Attributes:
        model: The model after the last stage, in evaluation mode (a module of torch).
        stages: What became of each stage, in order.
        artifacts: Files that stages left in the folder they were given, by a short name.
        architecture: What the model is made from; None where the recipe was given none.
        space: The space whose choices it closes: that which the recipe was given, unless a stage has changed blocks.
        asked: The part of `asking` that was asked now, and not stored before.
    """

    model: Any
    stages: tuple[StageResult, ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)
    architecture: Any = None
    space: SearchSpace | None = None
    asked: Spent = field(default_factory=Spent)

    @property
    def asking(self) -> Spent:
        """What asking the model between stages costs; the same whether it was asked now or before."""
        answers = [a for stage in self.stages for a in (*stage.before.values(), *stage.after.values())]
        return sum((spent_on(answer) for answer in answers), Spent())

    def answers(self, key: str) -> list[tuple[str, JSON]]:
        """What the model answered when the recipe began (""), and after each stage; None where it was not asked.

        Args:
            key: Of the `StageMeasure`.
        """
        begun = [("", answer_of(stage.before.get(key))) for stage in self.stages[:1]]
        return [*begun, *((stage.name, answer_of(stage.after.get(key))) for stage in self.stages)]

    @property
    def spent(self) -> Spent:
        """What all stages cost."""
        return sum((stage.spent for stage in self.stages), Spent())

    @property
    def reused(self) -> Spent:
        """The part of `spent` that was computed before and only read now."""
        return sum((stage.spent for stage in self.stages if stage.reused), Spent())


class Recipe:
    """An ordered set of named stages.

    Args:
        stages: By name, in the order in which they run.
        store: Where outputs are shared; by default the user's cache.

    Raises:
        ConfigError: A stage is to learn from what is no stage before it.
    """

    def __init__(self, stages: Mapping[str, Stage], store: StageStore | None = None) -> None:
        self.stages = dict(stages)
        self._store = store
        EarlierModels(self.stages)  # which refuses what no stage can learn from

    def shortened(self, tokens: int) -> Recipe:
        """The first stage alone, with so many training tokens: how candidates are compared quickly.

        Raises:
            ConfigError: The recipe is empty, or its first stage cannot be shortened.
        """
        if not self.stages:
            raise ConfigError("The recipe is empty, and a short version of it has nothing to train: choose recipe=.")
        name, first = next(iter(self.stages.items()))
        if not offers(first, Shortens):
            raise ConfigError(f"recipe.{name}: a stage of this kind cannot be run for fewer tokens.")
        return Recipe({name: first.shortened(tokens)}, self._store)

    def run(
        self,
        model: nn.Module,
        architecture: ArchitectureLike,
        *,
        seed: int,
        space: SearchSpace | None = None,
        keep: bool = True,
        folder: Path | None = None,
        checkpoints: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int, str], None] = lambda done, total, note: None,
        spend: Callable[[Spent], None] = lambda spent: None,
        measure: StageMeasure | None = None,
    ) -> RecipeResult:
        """Take a model through all stages, beginning after the last one whose output is stored already.

        Args:
            model: Changed in place.
            architecture: What the model is made from.
            seed: Of every stage.
            space: The space of the architecture, which says what the weights mean; None for a model of no graph.
            keep: Whether outputs are stored for others. What is stored already is used in any case.
            folder: Where stages may leave files.
            checkpoints: Folder of the stages' states; by default they are kept beside the stored outputs.
            should_stop: Whether the user asked to stop.
            progress: Called with (done, total, note).
            spend: Told what was spent so far, while stages run.
            measure: What the model is asked when the recipe begins and after each stage; None for nothing.

        Raises:
            StopRequested: The user asked to stop. The same call goes on from there.
            TrainingError: A stage failed, or its state in `checkpoints` belongs to something else.
        """
        from rankitect.training.loop import model_tensors

        if not self.stages:
            return RecipeResult(model, architecture=architecture, space=space)
        store = self._store or StageStore()
        given = Pair(architecture, space)
        earlier = EarlierModels(self.stages, given)
        keys, origins = self._keys(model, given, seed, earlier)
        asked, artifacts = Asked(measure, progress), dict[str, str]()
        model, pair, results = self._restored(store, keys, model, given, earlier, asked)
        earlier.note(len(results) - 1, model, pair)
        for at, result in enumerate(results):  # what was stored last was stored before it was measured
            last = at == len(results) - 1
            kept = (
                (model, pair) if last else self._stored_model(store, keys, given, at) if asked.lacks(result) else None
            )
            if kept is not None:
                results[at] = replace(result, after=asked.once(result.after, result.name, *kept))
        for position, (name, stage) in enumerate(self.stages.items()):
            if position < len(results):
                continue
            before = sum((result.spent for result in results), Spent())
            context = StageContext(
                pair.architecture,
                seed,
                position,
                folder,
                checkpoints / f"{name}.safetensors" if checkpoints else store.checkpoint(keys[position]),
                should_stop,
                space=pair.space,
            )
            earlier.take(position, context)
            context.progress = partial(_report, context, before, spend, progress, name)
            context.check()
            begun = {} if position else asked.once({}, "", model, pair)
            started = time.monotonic()
            with _named(name):
                model = _run(stage, model, context, origins[position] if checkpoints else None)
            context.check()
            spent = replace(context.spent, seconds=time.monotonic() - started)
            results.append(StageResult(name, spent, reused=False, before=begun))
            artifacts |= context.artifacts
            pair = Pair(context.architecture, context.space)
            missed = earlier.note(position, model, pair)
            spend(before + spent)
            # What cost nothing is made again, unless a stage that is resumed would miss it.
            worth = missed or replace(spent, seconds=0.0) != Spent()
            if keep and worth and not offers(stage, EndsRecipe):
                info = {"stages": [result.to_dict() for result in results], **pair.stored(given)}
                store.save(keys[position], model_tensors(model), info)
            if context.checkpoint is not None:
                store.forget_checkpoint(context.checkpoint)
                forget_origin(context.checkpoint)
            if not offers(stage, EndsRecipe):
                results[-1] = replace(results[-1], after=asked.once({}, name, model, pair))
        return RecipeResult(model, tuple(results), artifacts, pair.architecture, pair.space, asked.spent)

    def _stored_model(
        self, store: StageStore, keys: list[str], given: Pair, position: int
    ) -> tuple[nn.Module, Pair] | None:
        """The model that a stage gave, made anew from what is stored of it; None where nothing is."""
        entry = self._entry(store, keys, given, position)
        if entry is None or entry[1].space is None:
            return None
        tensors, pair = entry
        return pair.rebuilt(tensors), pair

    def _keys(self, model: nn.Module, given: Pair, seed: int, earlier: EarlierModels) -> tuple[list[str], list[str]]:
        """For each stage the hash of all that leads to its output, and that of what it is given, on any machine."""
        import torch

        from rankitect.training.distill import weights_fingerprint

        # The last digits of a sum depend on torch, on the processor's instructions, and on how many threads share it
        # out. A cache may lie in a home folder that machines of several kinds see.
        instructions = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        machine: list[JSON] = [str(torch.__version__), instructions, torch.get_num_threads()]
        origin: list[JSON] = [*given.identity, weights_fingerprint(model), seed]
        chains = []
        for start in ([_FORMAT, *machine, *origin], [_FORMAT, *origin]):
            chain = [_hash(start)]
            for position, stage in enumerate(self.stages.values()):
                kind = type(stage)
                described: list[JSON] = [chain[-1], kind.__module__, kind.__qualname__, dict(stage.provenance())]
                chain.append(_hash([*described, *earlier.identity(position, chain[1:])]))
            chains.append(chain)
        return chains[0][1:], chains[1][:-1]

    def _restored(
        self, store: StageStore, keys: list[str], model: nn.Module, given: Pair, earlier: EarlierModels, asked: Asked
    ) -> tuple[nn.Module, Pair, list[StageResult]]:
        """The model after the last stage that is stored, what it is of, and what that stage and those before it cost.

        The given model is changed in place where it is still of the pair that it was given as; before that it is asked
        what is not known of it yet.
        """
        for position in reversed(range(len(keys))):
            if (entry := store.load(keys[position])) is None:
                continue
            tensors, info = entry
            try:
                first, *others = [StageResult.stored(stage) for stage in info["stages"]]
                pair = self._pair(info, given)
                if not earlier.recall(position, pair, model, partial(self._entry, store, keys, given)):
                    continue
            except _UNUSABLE as error:
                store.reject(keys[position], str(error))
                continue
            begun = asked.once(first.before, "", model, given)
            try:
                model = pair.with_tensors(model, tensors, given)
            except _UNUSABLE as error:
                store.reject(keys[position], str(error))
                continue
            # The names are those of now: a stage means the same under another name.
            named = zip([replace(first, before=begun), *others], self.stages, strict=False)
            return model.eval(), pair, [replace(result, name=name) for result, name in named]
        return model, given, []

    def _pair(self, info: Mapping[str, Any], given: Pair) -> Pair:
        return Pair.restored(info, given, map(type, self.stages.values()))

    def _entry(
        self, store: StageStore, keys: list[str], given: Pair, position: int
    ) -> tuple[Mapping[str, Tensor], Pair] | None:
        """The stored tensors of the stage at a position, with what they are of."""
        entry = store.load(keys[position])
        return None if entry is None else (entry[0], self._pair(entry[1], given))


def _run(stage: Stage, model: nn.Module, context: StageContext, origin: str | None) -> nn.Module:
    """Run a stage. `origin` tells what it is given, where its state is kept by its name alone; a state in the store is
    named after that."""
    if context.checkpoint is not None and origin is None:
        begin_again_if_damaged(context.checkpoint)
    elif context.checkpoint is not None and origin is not None:
        begin_again_if_of_another_recipe(context.checkpoint, origin)
    after: nn.Module = stage.run(model, context)
    return after.eval()


def _report(
    context: StageContext,
    before: Spent,
    spend: Callable[[Spent], None],
    progress: Callable[[int, int, str], None],
    name: str,
    done: int,
    total: int,
    note: str,
) -> None:
    spend(before + context.spent)
    progress(done, total, f"{name}, {note}" if note else name)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts a stage's place in the configuration before the message of what it raises."""
    try:
        yield
    except RankitectError as error:
        raise type(error)(f"recipe.{name}: {error}") from error


def _hash(value: JSON) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
