"""Small checks and texts around one measurement."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankitect.contracts import Baseline, Measurement, MetricSpec, Trial
from rankitect.errors import LONGEST_MESSAGE, ConfigError, RunFolderError, SpaceError, brief
from rankitect.production.settings import SPECIAL_METRICS, GateConfig
from rankitect.space.choice_space import ChoiceSpace

__all__ = ["gated", "in_words", "named", "one_line", "problem", "refuse_unfit", "resolve_objectives", "seed_everything"]


def resolve_objectives(names: Sequence[str], metrics: Sequence[MetricSpec]) -> list[MetricSpec]:
    """The metrics of these names.

    Raises:
        ConfigError: There are none, or the final evaluator does not measure one.
    """
    known = {metric.name: metric for metric in metrics}
    if not names:
        raise ConfigError(f"evaluator.objectives is empty. The final evaluator measures: {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"evaluator.objectives has '{name}', which the final evaluator does not measure. It measures: "
                f"{', '.join(known)}."
            )
    return [known[name] for name in names]


def refuse_unfit(folder: Path, trials: Sequence[Trial], space: object, *, thorough: bool) -> None:
    """Make sure that a space knows the architectures that were measured in it. Baselines may be of another.

    Args:
        folder: The run folder, for the message.
        trials: All that were recorded.
        space: The space of now.
        thorough: Hold every choice against the space, and not only its name and version. Takes a second for some
            thousand trials.

    Raises:
        RunFolderError: It does not know some of them; says how many.
    """
    if not isinstance(space, ChoiceSpace):  # one of a kind of its own said so when it decoded them
        return
    own = [trial for trial in trials if trial.baseline is None]
    problems = {trial.number: problem for trial in own if (problem := _unfit(trial, space, thorough))}
    if problems:
        first, why = next(iter(problems.items()))
        raise RunFolderError(
            f"{len(problems)} of {len(own)} trials in {brief(folder)} do not fit this space (trial {first}: "
            f"{brief(why)}). Choose another output_dir=, or go on with the space that it was begun with."
        )


def _unfit(trial: Trial, space: ChoiceSpace, thorough: bool) -> str:
    if not thorough and (trial.architecture.space, trial.architecture.version) == (space.name, space.version):
        return ""
    try:
        space.validate(trial.architecture)
    except (SpaceError, TypeError) as error:  # a value that cannot even be compared
        return str(error) or type(error).__name__
    return ""


def gated(gates: Mapping[str, GateConfig | None], metrics: Sequence[MetricSpec]) -> None:
    """Make sure that what the gates are of will be measured: they cannot be changed once the run has begun.

    Raises:
        ConfigError: The final evaluator does not measure it.
    """
    known = [*SPECIAL_METRICS, *(metric.name for metric in metrics)]
    for name, gate in gates.items():
        if gate is not None and gate.metric not in known and not gate.if_measured:
            raise ConfigError(
                f"report.gates.{name}.metric is '{gate.metric}', which is not measured. Allowed: {', '.join(known)}."
            )


def named(baseline: str | None, baselines: Sequence[Baseline]) -> None:
    """Make sure that a model of the name of `report.baseline` exists.

    Args:
        baseline: The name, or None.
        baselines: Known and registered ones; a registered one may be named without its version.

    Raises:
        ConfigError: There is none.
    """
    known = [b.name for b in baselines]
    if baseline is None or baseline in {
        form for n in known for form in (n, n.replace("_", " "), n.rpartition(" v")[0])
    }:
        return
    raise ConfigError(
        f"report.baseline is '{baseline}', and there is no such model: {', '.join(known) or 'there are none'}. Name "
        "one of these, or register it first (python -m rankitect.baseline add)."
    )


def problem(measurement: Measurement, promised: Sequence[MetricSpec]) -> str | None:
    """Why a measurement is no result, or None."""
    known = {*measurement.metrics, *measurement.notes.get("not_known", ())}
    missing = [metric.name for metric in promised if metric.name not in known]
    if missing:
        return f"the evaluator promised {', '.join(missing)} but did not measure it"
    if not_finite := measurement.not_finite():
        values = ", ".join(f"{name} = {measurement.metrics[name].value}" for name in not_finite)
        return f"not a finite number: {values}"
    return None


def one_line(error: BaseException) -> str:
    """An exception in one line, as long as a message may be."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST_MESSAGE] if text else type(error).__name__


def in_words(measurement: Measurement) -> str:
    """The metrics with units, for the log."""
    return ", ".join(
        f"{name} {metric.value:.5g} {metric.unit}".rstrip() for name, metric in measurement.metrics.items()
    )


def seed_everything(seed: int) -> None:
    """Seed the global generators of the libraries that are loaded, so that a trial does not depend on its history."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
