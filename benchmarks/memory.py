"""What a search on a backbone takes: seconds to its first calibration batch, and the peak of memory in each phase.

    python benchmarks/memory.py --threads 2

Every measurement is a process of its own. Memory is the peak of its resident pages as Linux counts them (VmHWM), set
back at the beginning of each phase, so that each phase has its own; those of mapped files and of Python and its
libraries are among them. A search is short, as its memory does not depend on how long it is. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, arguments, table, verdict

LOADING, SEARCH = 3.0, 3.0
"""Targets: seconds to the first calibration batch without imports, and times the weights in float32."""
KEYS = ("space=mobile_llm", "controller=dnas", "report.tensorboard=false")
SHORT = (
    "controller.steps=2", "controller.weight_steps=1", "controller.targets=[0.6]", "task.calibration_tokens=1024",
    "task.slope_tokens=1024", "task.test_windows=4", "task.search_windows=4", "recipe.heal.tokens=1024",
    "runner.baselines=false",
)  # fmt: skip
SEARCHES: Mapping[str, Sequence[str]] = {
    "as it is": (),
    "a batch in four parts, activations computed again": ("placement.accumulate=4", "placement.checkpointing=true"),
    "shared weights kept as they are": ("controller.weight_lr=0",),
}


def main() -> None:
    """Print the tables."""
    options = arguments(__doc__ or "", rounds=3, only="")
    with tempfile.TemporaryDirectory() as place:
        runs = Runs(Path(place), options.quick, options.threads)
        if options.only in ("", "loading"):
            loading(runs, options.rounds)
        for name, keys in SEARCHES.items():
            if options.only in ("", name) and not (options.quick and keys):
                search(runs, name, keys)


class Runs:
    """Starts measured processes.

    Args:
        place: A folder for what they write. Their cache is there, so that nothing is taken from an earlier run but the
            asset.
        quick: Whether the backbone is tiny.
        threads: Of each; None: all cores.
    """

    def __init__(self, place: Path, quick: bool, threads: int | None) -> None:
        from rankitect.data.assets import cache_root

        self.place, self.quick = place, quick
        self._cache, self._count = place / "cache", 0
        self._cache.mkdir()
        (self._cache / "assets").symlink_to(cache_root() / "assets")
        self._more = [f"runner.threads={threads}"] if threads else []
        if quick:
            self._more.append("preset=smoke")

    def run(self, what: str, *keys: str) -> dict[str, Any]:
        """What `_memory_runs.py` measured."""
        self._count += 1
        script, out = str(ROOT / "benchmarks" / "_memory_runs.py"), f"output_dir={self.place / f'run{self._count}'}"
        environment = {**os.environ, "RANKITECT_CACHE": str(self._cache), "PYTHONPATH": str(ROOT)}
        given = [repr(time.time())] if what == "loading" else []
        command = [sys.executable, script, what, *given, *KEYS, *keys, *self._more, out]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=self.place)
        if done.returncode:
            raise SystemExit(done.stderr)
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return measured

    def backbones(self) -> dict[str, str]:
        """Values of `task.backbone`: the asset, and folders made from it."""
        import torch

        from rankitect.models.checkpoints import load_checkpoint, save_huggingface

        if self.quick:
            return {"random": "random"}
        asset, kinds = "smollm2-135m", {"float32": torch.float32, "bf16": torch.bfloat16}
        checkpoint = load_checkpoint(asset)
        for name, kind in kinds.items():
            tensors = {key: tensor.to(kind) for key, tensor in checkpoint.tensors.items()}
            save_huggingface(self.place / name, checkpoint.config, tensors, checkpoint.tokenizer, checkpoint.usage)
        return {"GGUF (Q4_1)": asset, **{f"folder in {name}": str(self.place / name) for name in kinds}}

    @property
    def weights(self) -> int:
        """Bytes of the backbone's weights in float32."""
        from rankitect.models.checkpoints import load_checkpoint, random_checkpoint

        if not self.quick:
            return 4 * load_checkpoint("smollm2-135m").n_params
        from common import smollm2

        return 4 * random_checkpoint(smollm2(quick=True), 0).n_params


def loading(runs: Runs, rounds: int) -> None:
    """Seconds to the first calibration batch, the fastest of some processes for each format."""
    measured = {name: [runs.run("loading", f"task.backbone={path}") for _ in range(rounds + 1)][1:]
                for name, path in runs.backbones().items()}  # fmt: skip
    best = {name: min(runs, key=_without_imports) for name, runs in measured.items()}
    phases = list(dict.fromkeys(phase for run in best.values() for phase in run["seconds"]))
    rows = [(phase, *(f"{run['seconds'].get(phase, 0.0):.2f}" for run in best.values())) for phase in phases]
    rows += [
        ("from the process's start to the batch", *(f"{run['reached']:.2f}" for run in best.values())),
        ("without start and imports", *(f"{_without_imports(run):.2f}" for run in best.values())),
        ("target", *(verdict(_without_imports(run), at_most=LOADING) for run in best.values())),
        ("peak of memory, MiB", *(f"{max(run['peaks'].values()) / 2**20:,.0f}" for run in best.values())),
    ]
    note = (
        f"Seconds, the fastest of {rounds} processes, after one that makes tokens of the text; files were read before."
    )
    table("Loading a backbone to the first calibration batch", ("", *best), rows, note, timed=False)


def _without_imports(run: Mapping[str, Any]) -> float:
    return float(run["reached"] - run["seconds"]["start"] - run["seconds"]["imports"])


def search(runs: Runs, name: str, keys: Sequence[str]) -> None:
    """The peak of memory in each phase of a short search."""
    run, weights = runs.run("search", *(() if runs.quick else SHORT), *keys), runs.weights
    rows = [
        (phase, f"{peak / 2**20:,.0f}", f"{peak / weights:.2f}", f"{(peak - run['imported']) / weights:.2f}")
        for phase, peak in run["peaks"].items()
    ]
    most = max(run["peaks"].values())
    rows.append(("the whole search", f"{most / 2**20:,.0f}", f"{most / weights:.2f}",
                 f"{(most - run['imported']) / weights:.2f}"))  # fmt: skip
    table(
        f"Peak memory of a search: {name}",
        ("phase", "MiB", "times the weights in float32", "of that, more than after imports"),
        rows,
        f"{' '.join((*KEYS, *keys))}. Weights: {weights / 2**20:,.0f} MiB. "
        f"Target {verdict((most - run['imported']) / weights, at_most=SEARCH)}.",
        timed=False,
    )


if __name__ == "__main__":
    main()
