"""What a task, a space or a controller may add to a study: costs owed, checks, baselines, files, facts, registered
models, and what a saved state depends on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from rankitect.contracts.evaluator import Exporter
    from rankitect.contracts.records import Baseline, Spent

__all__ = [
    "ChecksParts",
    "Exports",
    "ExportsBaselines",
    "HasBaselines",
    "HasRegistry",
    "KeepsState",
    "OwesUpfront",
    "Records",
    "RegisteredModels",
    "TriesModules",
]


class KeepsState(Protocol):
    """A controller that says which of its keys what it saves in `session.state_dir` does not depend on.

    Another value of any other key, or of the space, the task, the device or the seed, makes a saved state useless: with
    `resume=force` it is deleted. Without this capability a state depends on all keys of the controller.
    """

    @property
    def independent(self) -> Collection[str]:
        """Names of keys of the controller's section."""
        ...


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


class ExportsBaselines(Protocol):
    """A task that exports baselines as candidates are exported, so that their latencies can be compared."""

    def baseline_exporter(self, parts: Any) -> Exporter:
        """What writes the program of a trial that measured a baseline, and its latency, into a folder."""
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


class TriesModules(Protocol):
    """A task that compares with modules of somebody else's, and can see whether one runs."""

    def try_module(self, target: str, weights: Path | None, allowed: Sequence[str]) -> Mapping[str, Any]:
        """Make a module and call it on real data.

        Args:
            target: Dotted path of a function (features) -> module.
            weights: Safetensors file with its weights; None where it is to be trained.
            allowed: Packages that it may come from.

        Returns:
            The features that it was made for, as plain data.

        Raises:
            BaselineError: It cannot be made or run, or gives something else than it must.
        """
        ...
