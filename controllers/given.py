"""Architectures that the user has, measured side by side with one budget each. No search method.

`python -m rankitect.measure a.json b.json space=…` configures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.parts import architecture_from
from rankitect.contracts import Proposal
from rankitect.errors import ConfigError, shown
from rankitect.methods.staged import measured_by

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial

__all__ = ["Given"]


class Given:
    """Proposes the architectures of some files, in their order, each once. Constraints are not asked: they bound what a
    search looks for, and these are wanted as they are."""

    class Config(BaseModel):
        """Keys of `controller`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        architectures: tuple[str, ...] = Field(
            description="files of architectures, as a candidate's architecture.json", min_length=1, max_length=10_000
        )
        by: Literal["screen", "proxy", "final"] = Field("final", description="evaluator of all architectures")

    def __init__(self, architectures: Sequence[tuple[str, Any]], by: str) -> None:
        """Args:
        architectures: Each with the name of its file.
        by: The evaluator.
        """
        self._architectures, self._by, self._asked = list(architectures), by, 0

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Given:
        """Made from its section of the configuration.

        Raises:
            ConfigError: A file cannot be read, or the evaluator is not configured.
            RankitectError: An architecture is not of the space.
        """
        by = measured_by(config.by, parts)
        known: dict[str, str] = {}
        architectures = []
        for name in config.architectures:
            architecture = architecture_from(Path(name), parts, "controller.architectures")
            if (other := known.get(architecture.fingerprint)) is not None:
                parts.say(f"{shown(name)} holds the architecture of {shown(other)}, which is measured once.")
                continue
            known[architecture.fingerprint] = name
            architectures.append((name, architecture))
        return cls(architectures, by)

    @property
    def expected_trials(self) -> int:
        """One for each architecture."""
        return len(self._architectures)

    def prepare(self, session: Session) -> None:
        """Nothing to prepare."""

    def waits(self) -> bool:
        """No architecture depends on what another was measured with."""
        return False

    def ask(self, n: int) -> list[Proposal]:
        """The next architectures, tagged with their files."""
        first, self._asked = self._asked, min(self._asked + n, len(self._architectures))
        return [
            Proposal(architecture, self._by, {"index": index, "file": name})
            for index, (name, architecture) in enumerate(self._architectures[first : self._asked], first)
        ]

    def tell(self, trials: list[Trial]) -> None:
        """Nothing follows from a result."""

    def recover(self, trials: list[Trial]) -> None:
        """Go on after the last architecture that was asked for.

        Raises:
            ConfigError: A file holds another architecture than when the run began.
        """
        self.reopen(trials)

    def reopen(self, trials: list[Trial]) -> None:
        """Count what an earlier process asked for. Arguments and errors are those of `recover`."""
        for trial in trials:
            index = trial.tags.get("index")
            if not isinstance(index, int):
                continue
            if not 0 <= index < len(self._architectures):
                raise ConfigError(
                    f"controller.architectures has {len(self._architectures)} files, but number {index + 1} was "
                    f"measured in this run folder already: choose another output_dir."
                )
            name, architecture = self._architectures[index]
            if architecture.fingerprint != trial.architecture.fingerprint:
                raise ConfigError(
                    f"controller.architectures: {shown(name)} holds another architecture than when this run folder "
                    f"was begun: choose another output_dir."
                )
            self._asked = max(self._asked, index + 1)
