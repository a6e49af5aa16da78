"""Small checks and texts around one measurement."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from rankitect.errors import ConfigError
from rankitect.study.records import Measurement, MetricSpec

__all__ = ["in_words", "objectives", "one_line", "problem", "seed_everything"]


def objectives(names: Sequence[str], metrics: Sequence[MetricSpec]) -> list[MetricSpec]:
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


def problem(measurement: Measurement, promised: Sequence[MetricSpec]) -> str | None:
    """Why a measurement is no result, or None."""
    missing = [metric.name for metric in promised if metric.name not in measurement.metrics]
    if missing:
        return f"the evaluator promised {', '.join(missing)} but did not measure it"
    if not_finite := measurement.not_finite():
        values = ", ".join(f"{name} = {measurement.metrics[name].value}" for name in not_finite)
        return f"not a finite number: {values}"
    return None


def one_line(error: BaseException) -> str:
    """An exception in one line of at most 500 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


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
