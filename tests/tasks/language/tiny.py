"""The main job in its smallest form, for tests: the parts that the command would join, and a study over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rankitect.config import resolve
from rankitect.config.parts import Parts, build
from rankitect.contracts import Measurement, Metric, MetricSpec, Spent, TrialContext
from rankitect.study.folder import RunFolder
from rankitect.study.ledger import Budget
from rankitect.study.outputs import Labels, OutputOptions
from rankitect.study.plan import Hooks, StudyPlan, Subject
from rankitect.study.store import Store
from rankitect.study.study import Study, StudyOutcome
from rankitect.tasks.costs import LANGUAGE_COSTS, language_costs, specs


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Cached things of these tests, and nothing of the user's, for the length of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKITECT_CACHE", str(folder))
        yield


MAIN = ["space=mobile_llm", "task=language", "preset=smoke", "runner.threads=1"]


def parts_of(folder: Path, *overrides: str, say: Callable[[str], None] = lambda text: None) -> Parts:
    """All parts of a smoke run."""
    return build(resolve([*MAIN, *overrides]), folder, say)


class Quick:
    """An evaluator for tests of controllers: a made-up perplexity that falls with size and differs by architecture."""

    name = "made-up perplexity"

    def __init__(self, parts: Parts) -> None:
        self.task = parts.task

    @property
    def metrics(self) -> list[MetricSpec]:
        return [MetricSpec("perplexity", "", "min", "quality"), *specs(LANGUAGE_COSTS)]

    def measure(self, architecture: Any, context: TrialContext) -> Measurement:
        context.check()
        found = language_costs(self.task.space, self.task.reference, self.task.context).metrics(architecture)
        noise = int(architecture.fingerprint[:6], 16) / 16**6
        found["perplexity"] = Metric(30 / found["block_flops"].value + noise, "")
        return Measurement(found, Spent(eval_tokens=64))


def study(
    path: Path,
    parts: Parts,
    *,
    stop: Callable[[], bool] = lambda: False,
    trials: int | None = None,
    evaluators: Mapping[str, Any] | None = None,
    forced: object = None,
) -> StudyOutcome:
    """Run the parts' controller in a run folder; a second call with fresh parts resumes, `forced` with a configuration
    that differs by it."""
    assert parts.controller is not None
    config = {"seed": parts.config.seed, **({"more": forced} if forced is not None else {})}
    with RunFolder(path, config, force=forced is not None) as folder:
        measuring = evaluators or {key: Quick(parts) for key in parts.evaluators}
        subject = Subject(measuring, parts.decode, parts.space, parts.task)
        plan = StudyPlan(["perplexity", "block_flops"], seed=parts.config.seed, budget=Budget(trials=trials))
        labels = Labels("mobile_llm", "language", "any", "python -m rankitect.search")
        study = Study(folder, subject, plan, OutputOptions(labels, tensorboard=False), Hooks(stop))
        return study.run(parts.controller)


def proposed(path: Path, parts: Parts) -> list[tuple[str, Any, dict[str, Any], str]]:
    """Evaluator, architecture, tags and state of every trial of a run folder, in order."""
    with Store(path / "study.db", parts.decode, readonly=True) as store:
        return [(t.evaluator, t.architecture, t.tags, t.state) for t in store.trials]
