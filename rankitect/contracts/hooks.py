"""What a task, or a space, may add to a study: costs owed, checks, baselines, files, facts, registered models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rankitect.contracts.evaluator import Exporter
    from rankitect.contracts.records import Baseline, Spent

__all__ = [
    "ChecksParts",
    "Exports",
    "HasBaselines",
    "HasRegistry",
    "OwesUpfront",
    "Records",
    "RegisteredModels",
]


class OwesUpfront(Protocol):
    """A task that was prepared at a cost which every method is charged."""

    @property
    def upfront(self) -> Spent:
        """That cost."""
        ...


class ChecksParts(Protocol):
    """A task or space that refuses what can be known only when all parts are there."""

    def check(self, parts: Any) -> None:
        """Refuse, before anything is trained.

        Raises:
            RankitectError: A constraint that no architecture meets, too little text …
        """
        ...


class HasBaselines(Protocol):
    """A task or space that brings models to compare with."""

    def baselines(self, parts: Any) -> Sequence[Baseline]:
        """The models."""
        ...


class Exports(Protocol):
    """A task or space that writes more files for each candidate."""

    def exporter(self, parts: Any) -> Exporter:
        """What writes them."""
        ...


class Records(Protocol):
    """A task that leaves facts of its data in the run folder, for reports."""

    def record(self, parts: Any) -> None:
        """Write them; called at the end of every run."""
        ...


class RegisteredModels(Protocol):
    """Registered production models of a task."""

    def baselines(self) -> list[Baseline]:
        """All of them; those that are to be compared with now have `live`."""
        ...

    def left_out(self) -> dict[str, str]:
        """Those that cannot be compared with, and why."""
        ...


class HasRegistry(Protocol):
    """A task that compares with registered production models."""

    @property
    def registered(self) -> RegisteredModels:
        """The models."""
        ...
