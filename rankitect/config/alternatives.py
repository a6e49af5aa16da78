"""What else would work, for the message where a task lacks what a part needs."""

from __future__ import annotations

from rankitect.config.compose import configs_folder, groups
from rankitect.config.plugins import config_model, load_target
from rankitect.contracts import offers
from rankitect.contracts.requirement import NeedsCapabilities

__all__ = ["controllers_for"]


def controllers_for(task: object) -> list[str]:
    """Names of the controllers of the package that, with their defaults, need nothing that a task lacks."""
    import yaml  # type: ignore[import-untyped]

    names = []
    for name, path in groups([configs_folder()])["controller"].items():
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        target = data.get("controller", data)["target"]
        controller = load_target(target, ("rankitect",), f"{path}: target")
        config = config_model(controller)()
        needed = controller.needs(config) if offers(controller, NeedsCapabilities) else ()
        if all(offers(task, capability) for capability in needed):
            names.append(name)
    return names
