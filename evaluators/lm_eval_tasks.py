"""Tasks of EleutherAI's lm-eval by their names, from local data, answered by Rankitect's models.

The package writes the prompts, judges the answers and knows the metrics; the models compute likelihoods of choices that
share their beginnings together, as for questions of one's own. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Metric, MetricSpec
from rankitect.contracts.measure import Answers, Measured
from rankitect.errors import ConfigError, DataError, closest, safe, short
from rankitect.tasks.language.questions import AnswersText

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.tasks.language.harness import HarnessModel

__all__ = ["LmEvalTasks"]

_SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "f1", "mc1", "mc2", "em")
"""Metrics between 0 and 1, which are shown as percentages."""
_KINDS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")


class LmEvalTasks:
    """One task of lm-eval: its metrics under their names, after the whole training."""

    class Config(BaseModel):
        """Keys of `measures.<name>` with `measure: lm_eval`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        task: str = Field(pattern=r"^[A-Za-z0-9][\w.+-]*$", description="name of a task of lm-eval, such as arc_easy")
        data: str = Field(
            min_length=1,
            description="JSON lines with the columns of the task's data set; a folder with a file for each split where "
            "examples are shown (train.jsonl, test.jsonl)",
        )
        shots: int = Field(0, ge=0, le=1000, description="answered examples before each question")
        limit: int | None = Field(None, ge=1, le=10**9, description="questions, the first; null: all")
        begin: bool | None = Field(
            None, description="whether sequences begin with the first token (bos); null: as the model was trained"
        )

    def __init__(self, task: Any, model: HarnessModel, limit: int | None, search_split: str) -> None:
        self._task, self._model, self._limit, self._search = task, model, limit, search_split
        higher, means = task.higher_is_better(), task.aggregation()
        self._specs = [
            MetricSpec(name, "share" if name in _SHARES else "", "max" if higher[name] else "min", "quality")
            for name in means
        ]

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> LmEvalTasks:
        """Made from its section of the configuration.

        Raises:
            ConfigError: lm-eval is not installed, or has no such task of a kind that can be asked here.
            DataError: The data are not there, or are not those of the task.
        """
        from rankitect.tasks.language.harness import HarnessModel

        task = parts.require(AnswersText, "measure lm_eval")
        own = cls(_loaded(config), HarnessModel(task.checkpoint, config.begin), config.limit, task.search_split)
        own.asked(None)
        return own

    def specs(self, split: str) -> Sequence[MetricSpec]:
        """The metrics of the task; none on the split of a search, which is not to choose by what is reported."""
        return [] if split == self._search else self._specs

    def measure(self, model: nn.Module, split: str, check: Callable[[], None]) -> Measured:
        """Ask a model."""
        name, evaluation = self._task.config.task, self.asked(model, check)
        samples = sorted(evaluation["samples"][name], key=lambda sample: sample["doc_id"])
        metrics, answers = {}, {}
        for spec in self._specs:
            value = next(v for key, v in evaluation["results"][name].items() if key.split(",")[0] == spec.name)
            values = [sample.get(spec.name) for sample in samples]
            means = all(isinstance(one, int | float) for one in values)
            metric = Metric(float(value), spec.unit, len(samples))
            if means and abs(sum(values) / len(values) - metric.value) < 1e-9:
                metric, answers[spec.name] = _mean(values, spec)
            metrics[spec.name] = metric
        return Measured(metrics, answers, self._model.spent)

    def asked(self, model: nn.Module | None, check: Callable[[], None] | None = None) -> dict[str, Any]:
        """What lm-eval says of a model; with None, of whether its prompts fit the context.

        Raises:
            DataError: One does not.
        """
        from lm_eval.evaluator import evaluate

        model_of = self._model.asking(model, check)
        name, quiet = self._task.config.task, io.StringIO()
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            evaluation = evaluate(model_of, {name: self._task}, limit=self._limit, bootstrap_iters=0, log_samples=True)
        assert evaluation is not None  # of the first process, which this is
        return dict(evaluation)


def _mean(values: Sequence[float], spec: MetricSpec) -> tuple[Metric, Answers]:
    """A metric that is a mean over questions."""
    from rankitect.metrics.choices import accuracy
    from rankitect.metrics.intervals import mean_estimate

    answers = Answers(tuple(float(value) for value in values), direction=spec.direction)
    if all(value in (0, 1) for value in values):
        return accuracy(values), answers
    estimate = mean_estimate(values)
    return Metric(estimate.value, spec.unit, len(values), estimate.interval() if len(values) > 1 else None), answers


def _loaded(config: LmEvalTasks.Config) -> Any:
    """The task with its data.

    Raises:
        ConfigError: There is no such task, or it is of another kind.
        DataError: The data are not those of the task.
    """
    try:
        import lm_eval
        from datasets import Dataset
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        raise ConfigError(
            f"lm-eval is not installed ({short(str(error), 120)}): pip install -r requirements/lm-eval.txt, or the "
            "extra lm-eval of the package."
        ) from None
    settings = load_yaml(_file_of(config.task, Path(lm_eval.__file__).parent / "tasks"))
    kind = settings.get("output_type")
    if kind not in _KINDS or "class" in settings:
        raise ConfigError(f"task={config.task} is of a kind that is not asked here; those are: {', '.join(_KINDS)}.")
    splits = _splits(config, settings)
    for key in ("tag", "group", "task_list", "dataset_path", "dataset_name", "dataset_kwargs", "num_fewshot"):
        settings.pop(key, None)
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if settings.get(key) not in splits:
            settings.pop(key, None)
    data = {"custom_dataset": lambda **_: {name: Dataset.from_list(rows) for name, rows in splits.items()}}
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            task = ConfigurableTask(config={**settings, "task": config.task, "num_fewshot": config.shots, **data})
            for row in task.eval_docs:
                _ = task.doc_to_text(row), task.doc_to_target(row)
        except Exception as error:  # of a template or a function of the task, on rows that it does not know
            columns = ", ".join(next(iter(splits.values()))[0])
            raise DataError(
                f"data={short(safe(config.data), 100)}: task {config.task} cannot read these rows "
                f"({type(error).__name__}: {short(safe(str(error)), 150)}); their columns are "
                f"{short(safe(columns), 120)}."
            ) from error
    return task


def _file_of(name: str, folder: Path) -> Path:
    """The file that describes a task. lm-eval's own index reads all 13,000 of its files, which takes minutes.

    Raises:
        ConfigError: There is none.
    """
    names: dict[str, Path] = {}
    stated = re.compile(r"^task:\s*[\"']?([\w.+-]+)[\"']?\s*$", re.MULTILINE)
    for path in folder.rglob("*.yaml"):
        if path.stem == name or name.startswith(path.parent.name) or path.stem in ("default", path.parent.name):
            match = stated.search(path.read_text(encoding="utf-8", errors="replace"))
            if match is not None:
                names.setdefault(match[1], path)
    if name in names:
        return names[name]
    for path in folder.rglob("*.yaml"):
        match = stated.search(path.read_text(encoding="utf-8", errors="replace"))
        if match is not None:
            names.setdefault(match[1], path)
    if name not in names:
        guess = closest(name, list(names))
        raise ConfigError(f"lm-eval has no task '{short(name, 60)}'.{f' Did you mean {guess}?' if guess else ''}")
    return names[name]


def _splits(config: LmEvalTasks.Config, settings: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows by split, as the task's settings name them.

    Raises:
        DataError: A file is missing, empty or damaged.
    """
    from rankitect.data.storage import local_path
    from rankitect.data.text_files import utf8_lines
    from rankitect.documents import parse_json

    place = local_path(config.data, "data")
    asked = settings.get("test_split") or settings.get("validation_split") or settings.get("training_split")
    shown = settings.get("fewshot_split") or settings.get("training_split") or settings.get("validation_split") or asked
    wanted = dict.fromkeys([asked, *([shown] if config.shots else [])])
    if not place.is_dir() and len(wanted) > 1:
        raise DataError(
            f"shots={config.shots}: data must be a folder with {' and '.join(f'{name}.jsonl' for name in wanted)}, so "
            "that no question is among its own examples."
        )
    splits: dict[str, list[dict[str, Any]]] = {}
    for name in wanted:
        path = place / f"{name}.jsonl" if place.is_dir() else place
        if not path.is_file():
            raise DataError(f"data={short(safe(config.data), 120)}: there is no file {short(path.name, 60)}.")
        lines = ((row, line) for row, line in utf8_lines(path) if line.strip())
        where = short(safe(str(path)), 120)
        splits[str(name)] = [parse_json(line, dict[str, Any], f"{where}, row {row}", DataError) for row, line in lines]
        if not splits[str(name)]:
            raise DataError(f"{where} has no rows.")
    return splits
