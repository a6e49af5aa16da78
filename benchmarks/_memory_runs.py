"""One measured run of `memory.py`, in a process of its own; the last line that it prints is what it measured, as JSON.

python benchmarks/_memory_runs.py loading 1764525600.0 space=mobile_llm controller=dnas
python benchmarks/_memory_runs.py search space=mobile_llm controller=dnas
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK, ANONYMOUS = "VmHWM", "RssAnon"


def bytes_of(*names: str) -> list[int]:
    """Figures of this process's memory, as Linux calls them."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return [int(lines[name].split()[0]) * 1024 for name in names]


class Phases:
    """The peak of resident memory in each phase, as the system counts it (its counter is set back between phases).

    Attributes:
        peaks: Bytes by phase, in the order in which phases began.
        seconds: How long each took, without the phases inside it.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._inside, self._since = ["between these"], time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside belongs to this phase, unless it belongs to one inside it."""
        self._note()
        self._inside.append(name)
        try:
            yield
        finally:
            self._note()
            self._inside.pop()

    def _note(self) -> None:
        name, now = self._inside[-1], time.perf_counter()
        self.peaks[name] = max(self.peaks.get(name, 0), bytes_of(PEAK)[0])
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        CLEAR.write_text("5")  # the peak begins anew from what is resident now
        self._since = time.perf_counter()

    def finish(self) -> None:
        """Count what was left open."""
        self._note()

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Let every call of a function of a module, or of a method or cached property of a class, be a phase."""
        if isinstance(owner, type):
            owner = next(base for base in owner.__mro__ if name in vars(base))
        original = vars(owner)[name]
        if isinstance(original, Callable):  # type: ignore[arg-type]
            setattr(owner, name, self._called(original, phase))
        else:
            original.func = self._called(original.func, phase)

    def _called(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            with self.phase(phase):
                return function(*given, **named)

        return called


class _Reached(Exception):
    """The first calibration batch is there."""


def imports() -> None:
    """What a search imports; a phase of its own."""
    import numpy  # noqa: F401
    import torch  # noqa: F401

    import rankitect.config.parts
    import rankitect.controllers.dnas
    import rankitect.evaluators.healed
    import rankitect.models.backbone
    import rankitect.models.checkpoints
    import rankitect.recipes.distil
    import rankitect.search
    import rankitect.study.study
    import rankitect.tasks.language.task  # noqa: F401


def loading(started: float, *overrides: str) -> dict[str, Any]:
    """Seconds of each phase on the way to the first calibration batch of a search.

    Args:
        started: When the process was started, seconds since the epoch.
        overrides: Keys of the search.
    """
    phases = Phases()
    phases.seconds["start"] = time.time() - started
    with phases.phase("imports"):
        imports()
    import torch

    import rankitect.models.importance
    import rankitect.search
    import rankitect.tasks.language.text
    from rankitect.tasks.language.pretrained import Pretrained

    phases.wrap(rankitect.models.checkpoints, "load_checkpoint", "reading the file")
    phases.wrap(rankitect.tasks.language.text, "open_windows", "text")
    phases.wrap(Pretrained, "_plain", "the model in its space")
    phases.wrap(Pretrained, "fingerprint", "fingerprint")

    def gather(supernet: Any, architecture: Any, batches: Any, *more: Any) -> None:
        first = next(iter(batches))
        phases.seconds["reached"] = time.time()
        with phases.phase("its forward pass"), torch.inference_mode():
            supernet.activate(architecture)(first[:, :-1])
        raise _Reached

    rankitect.models.importance.gather = gather
    with suppress(_Reached):
        rankitect.search.search(list(overrides), quiet=True)
    phases.finish()
    reached = phases.seconds.pop("reached") - started
    return {"reached": reached, "seconds": phases.seconds, "peaks": phases.peaks}


def search(*overrides: str) -> dict[str, Any]:
    """The peak of memory, and what it is without files that are only mapped, in each phase of a search."""
    phases = Phases()
    with phases.phase("imports"):
        imports()
    imported, anonymous = bytes_of("VmRSS", ANONYMOUS)
    for place, name, phase in _places():
        phases.wrap(place, name, phase)
    import rankitect.search

    result = rankitect.search.search(list(overrides), quiet=True)
    phases.finish()
    return {
        "imported": imported, "anonymous": anonymous, "ended": result.ended,
        "seconds": phases.seconds, "peaks": phases.peaks,
    }  # fmt: skip


def _places() -> list[tuple[Any, str, str]]:
    """The functions whose calls are the phases of a search."""
    import rankitect.controllers.dnas as dnas
    import rankitect.models.checkpoints as checkpoints
    import rankitect.reports as reports
    import rankitect.training.text as text
    from rankitect.methods.shared_weights import CoTraining
    from rankitect.models.supernet import Supernet
    from rankitect.tasks.language.pretrained import Pretrained
    from rankitect.tasks.language.task import Language
    from rankitect.training.distill import TeacherTargets

    return [
        (checkpoints, "load_checkpoint", "reading the backbone"),
        (Pretrained, "statistics", "calibration"),
        (Pretrained, "backbone", "sorting, refits"),
        (Language, "prior", "prior"),
        (dnas.DNAS, "prepare", "search: between steps"),
        (CoTraining, "step", "search: step of the weights"),
        (dnas, "_score_step", "search: step of the choices"),
        (TeacherTargets, "_compute", "teacher"),
        (CoTraining, "save", "search: checkpoint"),
        (Supernet, "extract", "extraction"),
        (text, "train_on_text", "healing"),
        (Language, "quality", "measuring"),
        (Language, "save_candidate", "writing a candidate"),
        (reports, "write_report", "report"),
    ]


def main() -> None:
    """Run what the arguments say."""
    what, *given = sys.argv[1:]
    print()
    print(json.dumps(loading(float(given[0]), *given[1:]) if what == "loading" else search(*given)))


if __name__ == "__main__":
    main()
