"""What a device can do: predict latencies and, for some devices, write the programs that they run.

Every device of a configuration is a `Device`. What only some can do is a capability: a protocol of methods alone, so
that `isinstance(device, ExportsPrograms)` asks whether the method is there and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rankitect.contracts.records import Metric, MetricSpec
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.space.tables import TabulatedExpr

__all__ = [
    "Device",
    "ExportsClassifiers",
    "ExportsPrograms",
    "ExportsRankers",
    "Interval",
    "Latencies",
    "TimesPrograms",
]


class Interval(Protocol):
    """A predicted latency, in milliseconds, with the ends of its 95% interval."""

    @property
    def ms(self) -> float:
        """The prediction."""
        ...

    @property
    def low(self) -> float:
        """Lower end."""
        ...

    @property
    def high(self) -> float:
        """Upper end."""
        ...


class Latencies(Protocol):
    """Latencies of a space's architectures on one device. A model of each workload is learned at its first use."""

    @property
    def workloads(self) -> Mapping[str, Any]:
        """What is timed, by the names under which latencies are reported."""
        ...

    @property
    def specs(self) -> list[MetricSpec]:
        """The latencies as metrics."""
        ...

    def learn(
        self,
        name: str,
        check: Callable[[], None] = ...,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Any:
        """Measure until the model of a workload is good enough.

        Args:
            name: The workload.
            check: Called between measurements; raises to stop.
            progress: Told measurements made, measurements at most, and a note.
        """
        ...

    def predict(self, architecture: Architecture, name: str) -> Interval:
        """The latency of an architecture under a workload."""
        ...

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """The predicted latencies of an architecture under every workload."""
        ...

    def tables(self, name: str) -> TabulatedExpr:
        """A workload's latency as a cost of the space."""
        ...

    def measured(self, name: str) -> int:
        """How many layers were measured for a workload."""
        ...

    def error(self, name: str) -> float:
        """Cross-validated error of a workload's model, percent."""
        ...


class Device(Protocol):
    """A device as a configuration names it."""

    @property
    def name(self) -> str:
        """The device's name, for people."""
        ...

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that is timed."""
        ...

    @property
    def workloads(self) -> Mapping[str, Any]:
        """What is timed, by the names under which latencies are reported."""
        ...

    def latency(self, space: SearchSpace, seed: int = 0, say: Callable[[str], None] = ...) -> Latencies:
        """Latencies of a space's architectures here.

        Args:
            space: The search space.
            seed: Seed of the draws that enumerate layers.
            say: Told what is measured.
        """
        ...


@runtime_checkable
class ExportsPrograms(Protocol):
    """The capability to write a language model as a program that the device runs, and to time it there."""

    def export(
        self,
        folder: Path,
        model: Any,
        tokenizer: Any,
        predicted: Mapping[str, Any],
        text: Any,
        *,
        judge: Any = None,
        floats: Any = None,
    ) -> dict[str, str]:
        """Write a candidate's program, and its measured latency beside the predicted one.

        `judge` and `floats` are given only where there are such: a device that knows neither exports models of the
        usual kind.

        Args:
            folder: Gets the program, its card, the tokenizer and the latencies.
            model: The candidate, a `Standalone`.
            tokenizer: The model's.
            predicted: Predicted latencies (`Interval`) by workload.
            text: Windows of real text, token ids [W, T], on which the program's quality is compared with the model's.
            judge: Compares them otherwise, where the task has its own way (`rankitect.deploy.artifact.ProgramJudge`).
            floats: The model before it was rounded, where that is known.

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The candidate cannot be exported or run.
        """
        ...


@runtime_checkable
class TimesPrograms(Protocol):
    """The capability to time a program that is there already, such as the one that a recipe ends in."""

    def time_program(self, folder: Path, predicted: Mapping[str, Any]) -> dict[str, str]:
        """Time a program, beside what was predicted where that is of calls of its sizes.

        Args:
            folder: Has the program and its card; gets the latencies.
            predicted: Predicted latencies (`Interval`) by workload.

        Returns:
            Paths of what was written, relative to the folder, by artifact.

        Raises:
            DeployError: The program cannot be run.
        """
        ...


@runtime_checkable
class ExportsRankers(Protocol):
    """The capability to write a ranker's dense part as a program that the device runs, and to time it there."""

    def export_ranker(
        self, folder: Path, model: Any, examples: Sequence[Any], labels: Any | None = None
    ) -> dict[str, str]:
        """Write a ranker's program, and its latency for each batch size.

        Args:
            folder: Gets the program, its card and the latencies.
            model: The ranker, a `Standalone`.
            examples: The model's inputs for real rows, tensors, on which the program's quality is compared with the
                model's.
            labels: 0 or 1 for each row.

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The ranker cannot be exported or run.
        """
        ...


@runtime_checkable
class ExportsClassifiers(Protocol):
    """The capability to write a classifier of images as a program that the device runs, and to time it there."""

    def export_classifier(self, folder: Path, model: Any, images: Any, labels: Any) -> dict[str, str]:
        """Write a classifier's program, and its latency for each batch size.

        Args:
            folder: Gets the program, its card and the latencies.
            model: The classifier, a `Standalone`.
            images: As the model gets them, a tensor, on which the program's quality is compared with the model's.
            labels: The class of each, a tensor.

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The classifier cannot be exported or run.
        """
        ...
