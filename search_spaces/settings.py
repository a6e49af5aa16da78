"""`settings`: how one fixed model is trained. The space has no graph, only the choices of the configuration.

The configuration declares the choices under `choices`, and says which setting each of them decides by writing
`{choice: <name>}` in the place of its value (`rankitect.config.bindings`). The task says which model is trained: for
rankers that is `task.model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rankitect.errors import ConfigError
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.declaring import Choices

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["Settings"]


class Settings:
    """A space without a graph, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`: none, its choices are those under `choices`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> ChoiceSpace:
        """The space, still without choices.

        Raises:
            ConfigError: The configuration has no choices.
        """
        if not parts.config.choices:
            raise ConfigError(
                f"space={parts.names['space']} has no graph, and there is nothing under choices to search: give "
                "choices.lr=[1e-4,1e-3,1e-2] task.optimizer.lr={choice: lr}, for example."
            )
        return ChoiceSpace(Choices("settings"))
