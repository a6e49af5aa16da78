"""What else would work, for the message where a task or space lacks what a part needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankitect.config.compose import configs_folder, groups
from rankitect.config.plugins import config_model, load_target
from rankitect.contracts import offers
from rankitect.contracts.plugin import ComparesGraphs
from rankitect.contracts.requirement import NeedsCapabilities
from rankitect.documents import read_yaml
from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from rankitect.config.resolve import Plugin

__all__ = ["controllers_for", "refuse_settings"]


def controllers_for(task: object, space: object) -> list[str]:
    """Names of the controllers of the package that, with their defaults, need nothing that a task or space lacks."""
    from pydantic import ValidationError

    names = []
    for name, path in groups([configs_folder()])["controller"].items():
        data = read_yaml(path, dict[str, Any])
        target = data.get("controller", data)["target"]
        controller = load_target(target, ("rankitect",), f"{path}: target")
        try:
            config = config_model(controller)()
        except ValidationError:  # it needs to be told something first
            continue
        needed = controller.needs(config) if offers(controller, NeedsCapabilities) else ()
        if all(offers(task, capability) for capability in needed) and not _is_blind(controller, config, space):
            names.append(name)
    return names


def refuse_settings(controller: Plugin, task: object, space: object, called: str) -> None:
    """Refuse a controller that compares architectures by their graphs alone where a choice shapes no graph.

    Args:
        controller: The controller.
        task: The task, for what would work.
        space: The space.
        called: Name of the space in the configuration.

    Raises:
        ConfigError: Names the controller, the space, one such choice, and the controllers that would work.
    """
    if not _is_blind(controller.target, controller.config, space):
        return
    from rankitect.graph import SearchSpace

    shown = f"'{space.settings[0]}' decides a setting" if isinstance(space, SearchSpace) else "it has no graph"
    raise ConfigError(
        f"controller={controller.name} needs a space whose every choice shapes its graph, which space={called} "
        f"({type(space).__name__}) is not: {shown}. Controllers that work with it: "
        f"{', '.join(controllers_for(task, space)) or 'none'}."
    )


def _is_blind(controller: Any, config: Any, space: object) -> bool:
    """Whether a controller could not see all choices of a space."""
    if not (offers(controller, ComparesGraphs) and controller.by_graph_alone(config)):
        return False
    from rankitect.space.choice_space import ChoiceSpace

    return not (isinstance(space, ChoiceSpace) and space.graph_only)
