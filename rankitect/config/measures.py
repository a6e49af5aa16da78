"""The measures of a configuration: from their names to checked plug-ins, and all of them as one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rankitect.config.stages import part_of_file
from rankitect.contracts.capability import offers
from rankitect.contracts.evaluator import StopRequested
from rankitect.contracts.measure import Answers, GivesAnswers, Measure, Measured, declared_measure
from rankitect.contracts.records import Metric, MetricSpec, Spent
from rankitect.errors import ConfigError, MeasureError, RankitectError, short

if TYPE_CHECKING:
    from rankitect.config.compose import Composed
    from rankitect.config.parts import Parts
    from rankitect.config.plugins import Plugin

__all__ = ["Measures", "measure_section", "notes_of", "own_measure"]

_GIVEN = 2
"""Parameters of a declared function that are no keys: the model and the task."""


def measure_section(name: str, section: Mapping[str, Any], composed: Composed) -> dict[str, Any]:
    """A measure's keys, over those of its file in configs/measure if it names one.

    Args:
        name: Of the measure.
        section: Its keys.
        composed: Says which files there are, and where keys came from.

    Raises:
        ConfigError: It names neither a file nor a class, or both, or a file that there is not.
    """
    if section.get("measure") is not None:
        return part_of_file("measures", "measure", name, section, composed)
    if not isinstance(section.get("target"), str):
        files = ", ".join(sorted(composed.files.get("measure", {})))
        raise ConfigError(
            f"'measures.{name}' {composed.came_from(f'measures.{name}')} does not say what measures: "
            f"measures.{name}.measure=, one of {files}, or measures.{name}.target=, a class or function of your own."
        )
    return {key: value for key, value in section.items() if key != "measure"}


@dataclass(frozen=True)
class Measures:
    """All measures of a configuration as one, whose metrics have the measures' names before their own.

    Attributes:
        by_name: The measures by the name that the configuration gives them.
    """

    by_name: Mapping[str, Measure] = field(default_factory=dict)

    def specs(self, split: str) -> list[MetricSpec]:
        """The metrics that are measured on a split."""
        return [
            replace(spec, name=_named(name, spec.name), held_out=None)
            for name, one in self.by_name.items()
            for spec in one.specs(split)
        ]

    def measure(self, model: Any, split: str, check: Callable[[], None]) -> Measured:
        """Measure a model, with every measure that asks something on the split.

        Raises:
            StopRequested: The user asked to stop.
            MeasureError: A measure raised, or gave a number that is not finite.
        """
        metrics: dict[str, Metric] = {}
        answers: dict[str, Answers] = {}
        spent = Spent()
        for name, one in self.by_name.items():
            if not one.specs(split):
                continue
            measured = _finite(name, one, model, split, check)
            metrics |= {_named(name, own): metric for own, metric in measured.metrics.items()}
            answers |= {_named(name, own): values for own, values in measured.answers.items()}
            spent += measured.spent
        return Measured(metrics, answers, spent)

    def checked(self, known: Sequence[MetricSpec], evaluator: str) -> None:
        """Make sure that the final evaluator measures them all.

        Args:
            known: The metrics of that evaluator.
            evaluator: Its name, for the message.

        Raises:
            ConfigError: It does not, or two of its metrics have one name.
        """
        names = [spec.name for spec in known]
        missing = [spec.name for spec in self.specs("test") if spec.name not in names]
        if missing:
            raise ConfigError(
                f"measures: evaluator.final={evaluator} does not measure {', '.join(missing)}: it knows nothing of "
                "measures. Take one of Rankitect's, or leave the measures out."
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"measures: there are two metrics of the name {twice[0]}. Give the measure another name.")


def _finite(name: str, one: Measure, model: Any, split: str, check: Callable[[], None]) -> Measured:
    """What a measure gives of a model.

    Raises:
        StopRequested: The user asked to stop.
        MeasureError: It raised, or gave a number that is not finite.
    """
    try:
        measured = one.measure(model, split, check)
    except StopRequested:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, RankitectError) else f"{type(error).__name__}: {error}"
        raise MeasureError(f"measures.{name} failed: {short(' '.join(said.split()), 350)}") from error
    for own, metric in measured.metrics.items():
        wrong = [value for value in (metric.value, *(metric.ci95 or ())) if not math.isfinite(value)]
        if wrong:
            raise MeasureError(f"measures.{name} gave {wrong[0]} as {_named(name, own)}, which is no finite number.")
    return measured


def notes_of(measured: Measured, quality: object = None) -> dict[str, Any]:
    """The answers as a measurement's note, for comparisons in pairs; nothing where there are none.

    Args:
        measured: What measures gave.
        quality: The task's own quality, which may know what each example gave to it (`GivesAnswers`).
    """
    answers = {**(quality.answers if offers(quality, GivesAnswers) else {}), **measured.answers}
    return {"answers": {name: _plain(each) for name, each in answers.items()}} if answers else {}


def own_measure(plugin: Plugin, parts: Parts) -> Measure | None:
    """A function that `rankitect.contracts.measure.measure` declares, as a measure; None for another plug-in."""
    declared = declared_measure(plugin.target)
    if declared is None:
        return None
    keys = list(inspect.signature(plugin.target).parameters)[_GIVEN:]
    given = {name: vars(plugin.config)[name] for name in keys}
    spec = MetricSpec("", declared.unit, declared.direction, declared.role)
    return _Function(plugin.name, plugin.target, given, spec, parts.task)


@dataclass(frozen=True)
class _Function:
    """A function of the model and the task as a measure."""

    name: str
    function: Callable[..., Any]
    given: Mapping[str, Any]
    spec: MetricSpec
    task: object

    def specs(self, split: str) -> list[MetricSpec]:
        """Its one metric, on every split: what it is measured on is its own affair."""
        return [self.spec]

    def measure(self, model: Any, split: str, check: Callable[[], None]) -> Measured:
        """Call the function.

        Raises:
            ConfigError: It gives neither a number nor numbers.
        """
        check()
        value = self.function(model, self.task, **self.given)
        try:
            values = [float(one) for one in ([value] if not _several(value) else value)]
        except (TypeError, ValueError):
            values = []
        if not values:
            given = short(" ".join(repr(value).split()), 80)
            raise ConfigError(f"the measure {self.name} gave {given}: a number is wanted, or one for each example.")
        if not _several(value):
            return Measured({"": Metric(values[0], self.spec.unit)})
        from rankitect.metrics.intervals import mean_estimate

        estimate = mean_estimate(values)
        ends = estimate.interval() if len(values) > 1 else None
        metric = Metric(estimate.value, self.spec.unit, len(values), ends)
        return Measured({"": metric}, {"": Answers(tuple(values), direction=self.spec.direction)})


def _several(value: object) -> bool:
    """Whether a value is one of several numbers: a list, a tuple, an array or a tensor of one axis."""
    if isinstance(value, list | tuple):
        return True
    import numpy as np

    return np.ndim(value) == 1  # type: ignore[arg-type]  # a tensor is an array to it


def _named(measure: str, metric: str) -> str:
    return f"{measure}_{metric}" if metric else measure


def _plain(answers: Answers) -> dict[str, Any]:
    values = [int(value) if value in (0, 1) else value for value in answers.values]
    clusters = {} if answers.clusters is None else {"clusters": list(answers.clusters)}
    return {"direction": answers.direction, "of": answers.of, "values": values, **clusters}
