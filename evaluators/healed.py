"""Perplexity of a model measured in full: made, trained by every stage of the recipe, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.measures import notes_of
from rankitect.contracts import Measurement, MetricSpec, Spent, offers
from rankitect.contracts.task import MeasuresStages
from rankitect.documents import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.contracts.stage import Stage, StageMeasure
    from rankitect.graph import Architecture
    from rankitect.recipes import Recipe, RecipeResult
    from rankitect.tasks.language.models import LanguageModels

__all__ = ["Healed"]


class Healed:
    """Perplexity and bits per byte on the test split after the whole recipe, with the weights as an artifact.

    A recipe that begins with healing leaves the backbone itself as it is: it is what healing aims at.
    """

    name = "perplexity after healing"
    follows_recipe = True
    """Of what it measures the whole recipe is run."""

    class Config(BaseModel):
        """Keys of `evaluator.final`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        save: bool = Field(True, description="keep each candidate's weights")
        tokens: int | None = Field(
            None,
            ge=1,
            le=10**12,
            description="the recipe's first stage alone, with so many tokens; null: the whole recipe",
        )
        split: Literal["search", "test"] = Field("test", description="text that the perplexity is of")

    def __init__(self, config: Config, task: LanguageModels, parts: Parts) -> None:
        self._config, self._task, self._parts = config, task, parts
        self._recipe(parts.stages)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Healed:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task is none of language models, or a short version of a recipe is asked for that has none.
        """
        from rankitect.tasks.language.models import LanguageModels

        return cls(config, parts.require(LanguageModels, "evaluator.final"), parts)

    def _recipe(self, stages: Mapping[str, Stage]) -> Recipe:
        from rankitect.recipes import Recipe

        recipe, tokens = Recipe(stages), self._config.tokens
        return recipe if tokens is None else recipe.shortened(tokens)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Perplexity, bits per byte, what the measures give, and all costs."""
        task, split = self._task, self._split
        return [*task.quality_specs("test"), *self._parts.measures.specs(split), *task.cost_specs]

    @property
    def _split(self) -> str:
        return self._task.search_split if self._config.split == "search" else "test"

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Inherit, train as the recipe says, measure, save."""
        task = self._task
        task.learn_latency(context.check, context.progress)
        measure = self._stage_measure(context)
        trained = self._trained(architecture, context, measure)
        quality = task.quality(trained.model, self._config.split, check=context.check)
        asked = self._parts.measures.measure(trained.model, self._split, context.check)
        metrics = {**quality.metrics, **asked.metrics, **task.costs(trained.architecture, trained.space)}
        artifacts = {name: context.artifact(context.folder / path) for name, path in trained.artifacts.items()}
        if self._config.save:
            notes = task.candidate_notes(quality)
            saved = task.save_candidate(context.folder, architecture, trained.model, trained.space, notes)
            if measure is not None:
                saved |= self._stages(trained, measure, context.folder)
            artifacts |= {name: context.artifact(context.folder / path) for name, path in saved.items()}
        spent = trained.spent + trained.asking + Spent.evaluation(quality.amount, task.unit) + asked.spent
        notes = {**({"examples": dict(quality.examples)} if quality.examples else {}), **notes_of(asked)}
        return Measurement(metrics, spent, artifacts, notes, trained.reused + trained.asking + -trained.asked)

    def _stage_measure(self, context: TrialContext) -> StageMeasure | None:
        """What is asked after each stage of a recipe that is measured in full."""
        task, c = self._task, self._config
        if not c.save or c.split == "search" or not self._parts.stages or not offers(task, MeasuresStages):
            return None
        return task.stage_measure(context.check)

    def _stages(self, trained: RecipeResult, measure: StageMeasure, folder: Path) -> dict[str, str]:
        """The card of the stages, in the candidate's folder."""
        assert offers(self._task, MeasuresStages)
        card = trained.artifacts.get("program_card")
        program = None if card is None else read_json(folder / card, dict[str, Any])
        return self._task.write_stages(folder, trained.answers(measure.key), program)

    def _trained(self, architecture: Architecture, context: TrialContext, measure: StageMeasure | None) -> RecipeResult:
        """The model after the recipe."""
        from rankitect.recipes import Recipe

        def spend(spent: Spent) -> None:
            context.spent = spent

        taken = self._task.taken(architecture)  # a search has trained it already
        recipe = self._recipe(self._parts.stages_for(architecture)) if taken is None else Recipe({})
        return recipe.run(
            self._task.initial(architecture, context.seed) if taken is None else taken,
            architecture,
            seed=context.seed,
            space=self._task.space,
            keep=self._config.save,
            folder=context.folder if self._config.save else None,
            checkpoints=context.state,
            should_stop=context.should_stop,
            progress=context.progress,
            spend=spend,
            measure=measure,
        )
