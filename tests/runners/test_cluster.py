"""Trials on a real Ray cluster of several nodes, one of which is killed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankitect.errors import ConfigError
from rankitect.study.store import Store
from tests.study.test_runners import outcome, search
from tests.study.test_study import stored
from tests.study.toys import Point

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_that_is_killed_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    search(tmp_path / "local", "runner.ahead=2", "evaluator.final.seconds=0")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()

    def kill() -> None:
        """Once all nodes measure."""
        path = tmp_path / "ray" / "study.db"
        while not path.exists() or sum(_states(path).values()) < 4:
            time.sleep(0.2)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = search(
        tmp_path / "ray", "runner=ray", "runner.workers=3", "runner.ahead=2", f"runner.address={cluster.address}",
        "evaluator.final.seconds=1",
    )  # fmt: skip
    killer.join(timeout=60)
    assert not killer.is_alive()
    assert found.ended == "finished"
    assert outcome(tmp_path / "local")["pareto"] == outcome(tmp_path / "ray")["pareto"]
    assert outcome(tmp_path / "local")["trials"] == outcome(tmp_path / "ray")["trials"]
    first = found.summary.pareto[0].artifacts["weights"]
    assert (tmp_path / "ray" / first).read_bytes()


def test_a_trial_takes_as_long_as_it_runs_not_as_it_waits(cluster: Any, tmp_path: Path) -> None:
    """Another job has the only processor for longer than a trial may take; then one trial hangs."""
    paths = os.pathsep.join(p for p in sys.path if p)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    busy = ray.remote(num_cpus=1)(lambda: time.sleep(8)).remote()
    found = search(tmp_path, "runner=ray", "runner.trial_minutes=0.1", "evaluator.final.misbehave={1: hang}")
    ray.get(busy)
    assert found.ended == "finished"
    causes = {t.architecture.choices["x"]: t.cause for t in stored(tmp_path) if not t.ok}
    assert set(causes) == {1}
    assert "runner.trial_minutes=0.1" in causes[1]


def _states(path: Path) -> dict[str, int]:
    try:
        with Store(path, Point.from_json, readonly=True) as store:
            states = [t.state for t in store.trials]
    except Exception:  # not written yet
        return {}
    return {s: states.count(s) for s in ("RUNNING", "DONE")}


def test_an_address_without_a_cluster_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runner\.address=127\.0\.0\.1:1\b.*ray start --head"):
        search(tmp_path, "runner=ray", "runner.address=127.0.0.1:1")
