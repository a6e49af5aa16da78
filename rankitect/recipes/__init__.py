"""Recipes: what is done to a model's weights, as an ordered set of named stages; enter through `recipe`.

Here belong the stages that come with the package, one file each, the run of a recipe, and the store in which outputs of
stages are shared. What a stage trains with (the loop, optimisers, objectives) is in `rankitect.training`; what a model
is measured by is in the evaluators.
"""

from rankitect.recipes.recipe import Recipe, RecipeResult, StageResult
from rankitect.recipes.store import StageStore

__all__ = ["Recipe", "RecipeResult", "StageResult", "StageStore"]
