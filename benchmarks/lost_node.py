"""A node of a three-node Ray cluster is killed in the middle of a search: the result is that of `runner=local`.

The cluster is real (three raylets) and on this machine; the node is killed once trials run on all nodes, with SIGKILL.

    python benchmarks/lost_node.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, table

SEARCH = (
    "space=ranking_blocks", "controller=sampled", "task=movielens", "confirm.seeds=1", "runner.threads=1", "seed=1",
    "runner.ahead=2", "runner.baselines=false", "report.page=false", "report.tensorboard=false", "report.registry=null",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=1, trials=12)
    size = ["preset=smoke"] if options.quick else ["task.epochs=1", "task.refit=false"]
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given = [*SEARCH, *size, f"controller.samples={options.trials}"]
        local = finished(start(folder / "local", given), folder / "local")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        try:
            more = ["runner=ray", "runner.workers=3", f"runner.address={cluster.address}"]
            process = start(folder / "ray", [*given, *more])
            before: list[str] = []
            while process.poll() is None and (before.count("DONE") < 3 or before.count("RUNNING") < 3):
                time.sleep(0.1)
                before = states(folder / "ray")
            time.sleep(0.5)
            cluster.remove_node(nodes[0], allow_graceful=False)
            ray = finished(process, folder / "ray")
        finally:
            cluster.shutdown()
        log = (folder / "ray" / "log.txt").read_text()
    same = ray["pareto"] == local["pareto"] and ray["ledger"]["trials"] == local["ledger"]["trials"]
    charged = rows_of(ray) == rows_of(local)
    counts = ray["ledger"]["trials"]
    rows = [
        ("when the node was killed", f"{before.count('DONE')} trials done, {before.count('RUNNING')} running", ""),
        ("trials measured again", str(log.count("is measured again")), ""),
        ("trials in the end", f"{counts['done']} done, {counts['failed']} failed", ""),
        ("front and counts as with runner=local", *agreed(same)),
        ("rows charged as with runner=local", *agreed(charged)),
    ]  # fmt: skip
    table(
        f"{options.trials} rankers on three nodes, one of them killed",
        ("what", "found", "target"),
        rows,
        "",
        timed=False,
    )


def start(path: Path, given: list[str]) -> subprocess.Popen[bytes]:
    """The command."""
    command = [sys.executable, "-m", "rankitect.search", *given, f"output_dir={path}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finished(process: subprocess.Popen[bytes], path: Path) -> dict[str, Any]:
    """The summary, when it is over."""
    if process.wait():
        raise SystemExit(f"the search ended with code {process.returncode}")
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


def agreed(same: bool) -> tuple[str, str]:
    """In words, and whether that is as it has to be."""
    return "the same" if same else "DIFFERENT", "the same: " + ("yes" if same else "NO")


def rows_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What the trials were charged, but for seconds."""
    return {coin: amount for coin, amount in summary["ledger"]["stages"]["trials"].items() if coin != "seconds"}


def states(path: Path) -> list[str]:
    """Of the trials so far."""
    from rankitect.errors import RankitectError
    from rankitect.graph import Architecture
    from rankitect.study.store import Store

    if not (path / "study.db").exists():
        return []
    try:
        with Store(path / "study.db", Architecture.from_json, readonly=True) as store:
            return [trial.state for trial in store.trials]
    except RankitectError:  # nothing is written yet
        return []


if __name__ == "__main__":
    main()
