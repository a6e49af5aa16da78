"""What every search method promises, whatever it is: each file of configs/controller is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rankitect.tasks.costs import language_costs
from tests.tasks.language.tiny import own_cache, parts_of, proposed, study

CONTROLLERS = sorted(p.stem for p in (Path(__file__).parents[2] / "configs" / "controller").glob("*.yaml"))
CONTROLLERS.remove("given")  # no search method; tests/test_measure.py
if find_spec("botorch") is None:  # an optional part
    CONTROLLERS = [name for name in CONTROLLERS if name not in ("bayesian", "staged")]
COMPUTED = {"staged": ("device=analytic",)}
"""What makes a method repeatable on any machine: latencies that are computed."""
every_controller = pytest.mark.parametrize("controller", CONTROLLERS)


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    def make(controller: str, *overrides: str) -> Any:
        return parts_of(tmp_path, f"controller={controller}", *COMPUTED.get(controller, ()), *overrides)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What an undisturbed run of a controller proposes."""
    known: dict[str, Any] = {}

    def run(controller: str) -> Any:
        if controller not in known:
            folder = tmp_path_factory.mktemp(controller)
            parts = parts_of(folder, f"controller={controller}", *COMPUTED.get(controller, ()))
            study(folder / "run", parts)
            known[controller] = proposed(folder / "run", parts)
        return known[controller]

    return run


def stop_after(calls: int) -> Callable[[], bool]:
    """A user who asks to stop while the study looks for the n-th time."""
    count = iter(range(calls))
    return lambda: next(count, None) is None


@every_controller
def test_proposals_are_distinct_feasible_and_within_constraints(
    controller: str, made: Callable[..., Any], tmp_path: Path
) -> None:
    parts = made(controller)
    outcome = study(tmp_path / "run", parts)
    assert outcome.ended == "finished", "the method ends by itself"
    found = proposed(tmp_path / "run", parts)
    assert found
    assert len({(evaluator, a.fingerprint) for evaluator, a, _, _ in found}) == len(found)
    for _, architecture, _, _ in found:
        assert parts.space.validate(architecture) == architecture
        for key, (low, high) in parts.task.limits().items():
            scope, _, kind = key.rpartition(":")
            assert low <= parts.space.cost(architecture, kind, scope) <= high
    assert any(evaluator == "final" for evaluator, _, _, _ in found)


@every_controller
def test_narrower_constraints_are_kept_together(controller: str, made: Callable[..., Any], tmp_path: Path) -> None:
    shares = {"block_flops": (0.6, 0.95), "kv_cache_bytes": (0.0, 0.7), "decode_flops": (0.0, 0.9)}
    parts = made(controller, *(f"constraints.{name}=[{low},{high}]" for name, (low, high) in shares.items()))
    study(tmp_path / "run", parts)
    found = proposed(tmp_path / "run", parts)
    assert found
    costs = language_costs(parts.space, parts.task.reference, parts.task.context)
    for _, architecture, _, _ in found:
        for name, (low, high) in shares.items():
            assert low <= costs.value(architecture, name) / costs.value(parts.task.reference, name) <= high, name


@every_controller
def test_proposals_are_a_function_of_the_seed(
    controller: str, made: Callable[..., Any], whole: Callable[[str], Any], tmp_path: Path
) -> None:
    parts = made(controller)
    study(tmp_path / "one", parts)
    assert proposed(tmp_path / "one", parts) == whole(controller)
    if controller == "random":
        study(tmp_path / "other", made(controller, "seed=7"))
        assert proposed(tmp_path / "other", parts) != whole(controller)


@pytest.mark.parametrize(("controller", "trials"), [("random", 1), ("dnas", 1), *((c, 2) for c in CONTROLLERS)])
def test_a_fresh_controller_goes_on_where_the_history_ends(
    controller: str, trials: int, made: Callable[..., Any], whole: Callable[[str], Any], tmp_path: Path
) -> None:
    parts = made(controller)
    undisturbed = whole(controller)
    assert study(tmp_path / "run", made(controller), trials=trials).ended == "budget.trials"
    assert len(proposed(tmp_path / "run", parts)) == trials
    assert study(tmp_path / "run", made(controller)).ended == "finished"
    assert proposed(tmp_path / "run", parts) == undisturbed


@pytest.mark.parametrize(
    ("controller", "calls"), [("random", 5), ("dnas", 5), *((c, n) for c in CONTROLLERS for n in (2, 9))]
)
def test_a_stop_at_any_point_changes_nothing(
    controller: str, calls: int, made: Callable[..., Any], whole: Callable[[str], Any], tmp_path: Path
) -> None:
    undisturbed, parts = whole(controller), made(controller)
    first = study(tmp_path / "run", parts, stop=stop_after(calls))
    assert first.ended in ("interrupted", "finished")
    assert study(tmp_path / "run", made(controller)).ended == "finished"
    assert proposed(tmp_path / "run", parts) == undisturbed


@every_controller
def test_a_budget_that_ends_leaves_models_that_were_measured_in_full(
    controller: str, made: Callable[..., Any], tmp_path: Path
) -> None:
    parts = made(controller)
    assert study(tmp_path / "run", made(controller), trials=5).ended in ("finished", "budget.trials")
    found = proposed(tmp_path / "run", parts)
    assert len(found) <= 5
    assert any(evaluator == "final" for evaluator, _, _, _ in found)
    assert study(tmp_path / "run", made(controller)).ended == "finished", "a larger budget goes on"
    more = proposed(tmp_path / "run", parts)
    assert more[: len(found)] == found
    assert len({(evaluator, a.fingerprint) for evaluator, a, _, _ in more}) == len(more)
