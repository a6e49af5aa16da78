"""Measures of a configuration: their keys, how their metrics are called, and what a function of a user's may give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankitect.config import resolve
from rankitect.config.measures import Measures, notes_of, own_measure
from rankitect.config.resolve import restored
from rankitect.contracts import Metric, MetricSpec, Spent
from rankitect.contracts.measure import Answers, Measured, measure
from rankitect.errors import ConfigError, MeasureError


@measure("min", unit="nat")
def given(model: Any, task: Any, value: Any = 1.0, times: int = 1) -> Any:
    """What its key says."""
    return [one * times if one else one for one in value] if isinstance(value, list) else value


HERE = ["measures.mine.target=tests.config.test_measures.given", "allowed_packages=[rankitect,tests]"]


class Parts:
    task = None


def of(value: Any, **keys: Any) -> Measured:
    plugin = resolve(HERE).plugins["measures.mine"]
    config = plugin.config.model_copy(update={"value": value, **keys})
    own = own_measure(type(plugin)(plugin.name, plugin.target, config), Parts())
    assert own is not None
    return Measures({"mine": own}).measure(None, "test", lambda: None)


def test_a_function_has_its_further_parameters_as_keys_and_survives_a_configuration_file() -> None:
    resolved = resolve([*HERE, "measures.mine.times=3"])
    assert resolved.data["measures"]["mine"] == {
        "measure": "given",
        "target": "tests.config.test_measures.given",
        "value": 1.0,
        "times": 3,
    }
    again = restored(resolved.data).plugins["measures.mine"]
    assert again.target is given
    assert again.data == resolved.plugins["measures.mine"].data
    with pytest.raises(ConfigError, match=r"Unknown key 'measures\.mine\.time'.* Did you mean 'measures\.mine\.times'"):
        resolve([*HERE, "measures.mine.time=3"])
    with pytest.raises(ConfigError, match=r"measures\.mine\.times"):
        resolve([*HERE, "measures.mine.times=many"])


def test_one_number_is_a_metric_and_several_have_an_interval() -> None:
    assert of(2.5).metrics == {"mine": Metric(2.5, "nat")}
    measured = of([1.0, 2.0, 3.0], times=2)
    metric = measured.metrics["mine"]
    assert (metric.value, metric.n) == (4.0, 3)
    assert metric.ci95 is not None
    assert metric.ci95[0] < 4 < metric.ci95[1]
    assert notes_of(measured) == {
        "answers": {"mine": {"direction": "min", "of": "question", "values": [2.0, 4.0, 6.0]}}
    }
    assert of(np.asarray([1.0, 2.0])).metrics["mine"].value == 1.5
    small = [1e-7, 3.25e-9, 1 / 3]
    assert notes_of(of(small))["answers"]["mine"]["values"] == small, "however small, as they were given"


@pytest.mark.parametrize("value", [None, "much", [], [None], {"a": 1}, np.ones((2, 2))])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(
        MeasureError,
        match=r"measures\.mine failed: the measure given gave .*: a number is wanted, or one for each example",
    ):
        of(value)


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")]])
def test_what_is_not_finite_is_refused_with_the_measures_name(value: Any) -> None:
    with pytest.raises(MeasureError, match=r"measures\.mine gave (nan|inf) as mine, which is no finite number"):
        of(value)


class Asks:
    """A measure that asks something on the test split only."""

    def specs(self, split: str) -> list[MetricSpec]:
        return [MetricSpec("acc", "share", "max", "quality")] if split == "test" else []

    def measure(self, model: Any, split: str, check: Any) -> Measured:
        return Measured({"acc": Metric(0.5, "share", 2)}, {"acc": Answers((1.0, 0.0), (0, 0))}, Spent(eval_tokens=7))


def test_metrics_have_the_names_of_their_measures_and_only_those_of_a_split_are_asked() -> None:
    both = Measures({"a": Asks(), "b": Asks()})
    assert [spec.name for spec in both.specs("test")] == ["a_acc", "b_acc"]
    assert both.specs("search") == []
    assert both.measure(None, "search", lambda: None) == Measured({})
    measured = both.measure(None, "test", lambda: None)
    assert measured.spent == Spent(eval_tokens=14)
    values = {"direction": "max", "of": "question", "values": [1, 0], "clusters": [0, 0]}
    assert notes_of(measured) == {"answers": {"a_acc": values, "b_acc": values}}
    assert notes_of(Measured({})) == {}


def test_a_final_evaluator_must_ask_them_all_and_no_two_metrics_have_one_name() -> None:
    one = Measures({"a": Asks()})
    with pytest.raises(
        ConfigError, match=r"evaluator\.final=plain does not measure a_acc: it knows nothing of measures"
    ):
        one.checked([], "plain")
    with pytest.raises(ConfigError, match="two metrics of the name a_acc"):
        one.checked([*one.specs("test"), *one.specs("test")], "plain")
    one.checked(one.specs("test"), "healed")
