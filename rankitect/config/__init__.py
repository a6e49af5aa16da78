"""Configuration: Hydra composes, pydantic validates, Python defines."""

from rankitect.config.resolve import Plugin, Resolved, resolve

__all__ = ["Plugin", "Resolved", "resolve"]
