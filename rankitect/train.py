"""The command `python -m rankitect.train` and the Python entry `rankitect.train(...)`: one model, without a search.

    python -m rankitect.train space=mobile_llm model=architecture.json recipe=heal
    python -m rankitect.train task=scratch model=mobilellm-125m recipe=pretrain recipe.pretrain.tokens=100_000_000

The model is made as a search would make it (inherited from the task's backbone, or with random weights), taken through
the recipe, measured by the final evaluator, and saved. Exit codes are those of `rankitect.search`. Repeating the
command resumes.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import as_overrides, command_line, run_command, shown
from rankitect.errors import ConfigError, RankitectError, closest
from rankitect.terminal import ended, say

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.config.training import TrainingConfig
    from rankitect.contracts import ArchitectureLike, Measurement
    from rankitect.runners.launched import Launch
    from rankitect.study.folder import RunFolder
    from rankitect.study.progress import Progress
    from rankitect.study.stopping import StopSignal
    from rankitect.study.trained import TrainedSummary

__all__ = ["TrainingRun", "main", "train"]

LARGEST = "largest"
"""Name of the architecture that costs are relative to: the backbone where there is one."""


@dataclass(frozen=True)
class TrainingRun:
    """What a training gives.

    Attributes:
        folder: The run folder; the model is in `model/`.
        summary: What its summary.json holds; None where the training was stopped.
    """

    folder: Path
    summary: TrainedSummary | None


def train(
    overrides: Sequence[str] | None = None, *, config_dir: str | Path | None = None, quiet: bool = False, **keys: Any
) -> TrainingRun:
    """Train one model, or resume that, exactly as the command does.

    >>> trained = train(["task=scratch"], model="mobilellm-125m", recipe="pretrain")  # doctest: +SKIP

    Args:
        overrides: In the command's form, "key=value".
        config_dir: A folder of your own configurations, laid out like configs/.
        quiet: Print nothing.
        **keys: The same as overrides; a mapping stands for a section.

    Ctrl-C raises KeyboardInterrupt as anywhere in Python; the same call goes on from the last checkpoint.

    Raises:
        RankitectError: The input is wrong, with what to do about it (`DiskError` for a disk that cannot be written).
    """
    given = [*([overrides] if isinstance(overrides, str) else overrides or []), *as_overrides(keys)]
    return _train(given, config_dir, None, _silent if quiet else say, quiet=quiet)


def _train(
    overrides: Sequence[str],
    config_dir: str | Path | None,
    stop: StopSignal | None,
    out: Callable[[str], None],
    *,
    quiet: bool = False,
) -> TrainingRun:
    from rankitect.config.training import resolve_training
    from rankitect.runners.launched import launched
    from rankitect.study.folder import config_hash

    launch = launched()
    if launch is not None and launch.rank:
        out, quiet = _silent, True
    asked = resolve_training(overrides, Path(config_dir) if config_dir else None)
    if asked.model is not None and asked.model.endswith(".json") and not Path(asked.model).is_file():
        raise ConfigError(f"model={asked.model}: there is no such file.")
    digest, names = config_hash(asked.data), _names(asked)
    path = Path(asked.resolved.config.output_dir or f"runs/{names['space']}-train-{digest[:8]}")
    command = command_line("rankitect.train", overrides, config_dir)
    out(shown(asked.data).rstrip())
    out(f"\nConfiguration hash: {digest}\nRun folder: {path}\nTo resume: {command}\n")
    if launch is None:
        return _in_folder(asked, path, command, stop, out, quiet=quiet)
    with launch.joined(asked.resolved.config.placement.device), launch.folder(path) as own:
        return _in_folder(asked, own, command, stop, out, quiet=quiet, launch=launch)


def _silent(text: str) -> None:
    pass


def _in_folder(
    asked: TrainingConfig,
    path: Path,
    command: str,
    stop: StopSignal | None,
    out: Callable[[str], None],
    *,
    quiet: bool,
    launch: Launch | None = None,
) -> TrainingRun:
    from rankitect.study.folder import RunFolder
    from rankitect.study.trained import read_trained

    force = asked.resolved.config.resume == "force"
    with RunFolder(path, asked.data, force=force) as folder:
        summary = read_trained(path)
        finished = summary is not None and folder.resumed and not force
        if launch is not None and not launch.go(not finished) and not finished:
            raise SystemExit(0)  # the first process has the model already
        if finished:
            return TrainingRun(path, summary)
        log = logging.getLogger("rankitect")
        folder.open_log(log)
        if folder.resumed:
            out("Resuming from the last checkpoint.")
        try:
            return TrainingRun(path, _run(asked, folder, command, stop, quiet=quiet, launch=launch))
        except RankitectError as error:
            log.error("%s", error)
            raise
        except Exception:
            log.exception("the training failed")
            raise


def _names(asked: TrainingConfig) -> dict[str, str]:
    return {section: plugin.name for section, plugin in asked.resolved.plugins.items()}


def _run(
    asked: TrainingConfig,
    folder: RunFolder,
    command: str,
    stop: StopSignal | None,
    *,
    quiet: bool,
    launch: Launch | None,
) -> TrainedSummary | None:
    """Train, measure, write; None where the user asked to stop."""
    from rankitect.config.parts import build
    from rankitect.contracts import StopRequested
    from rankitect.study.progress import Progress
    from rankitect.study.stopping import StopSignal
    from rankitect.study.trained import TrainedSummary
    from rankitect.training.checkpoint import drop_damaged
    from rankitect.training.host import configure_host
    from rankitect.training.placement import choose

    config = asked.resolved.config
    configure_host(config.runner.threads)
    progress = Progress(quiet=quiet or not config.runner.progress)
    choose(config.placement, progress.say, 1 if launch is None else launch.world)
    with stop.on_signals(progress.say) if stop is not None else nullcontext():
        stopped = stop or StopSignal()
        try:
            parts = build(asked.resolved, folder.path, progress.say, measuring=True, stop=stopped)
            name, architecture = _model(asked, parts)
            folder.accept()
            if config.resume == "force":
                drop_damaged(folder.state_dir, progress.say)
            if launch is not None:
                launch.share(folder.state_dir)
            progress.start()
            asked_to_stop = stopped if launch is None else launch.together(stopped)
            measurement = _measured(parts, architecture, folder, asked_to_stop, progress)
        except StopRequested:
            return None
        finally:
            progress.stop()
    names = _names(asked)
    summary = TrainedSummary.of(
        measurement,
        parts.evaluators["final"].metrics,
        architecture,
        space=names["space"],
        task=names["task"],
        recipe=list(parts.stages),
        model=name,
        seed=config.seed,
        reproduce=command,
    )
    summary.write(folder.path)
    for left in folder.state_dir.iterdir():
        left.unlink()
    return summary


def _model(asked: TrainingConfig, parts: Parts) -> tuple[str, ArchitectureLike]:
    """The model that was asked for: an architecture in a file, or one that the space or the task knows by name.

    Raises:
        RankitectError: There is no such file or name, or the architecture is not of the space.
    """
    from rankitect.config.parts import architecture_from
    from rankitect.contracts import NamesModels, offers
    from rankitect.contracts.hooks import HasBaselines
    from rankitect.contracts.task import HasReference

    target, task = asked.resolved.plugins["space"].target, parts.task
    if asked.model is not None and (asked.model.endswith(".json") or Path(asked.model).is_file()):
        return asked.model, architecture_from(Path(asked.model), parts, "model")
    named: dict[str, Any] = {LARGEST: task.reference} if offers(task, HasReference) else {}
    if offers(target, NamesModels):
        named |= target.named(parts.space)
    if offers(task, HasBaselines):
        named |= {baseline.name: baseline.architecture for baseline in task.baselines(parts)}
    wanted = asked.model or LARGEST
    if wanted not in named:
        guess = closest(wanted, named)
        raise ConfigError(
            f"model={wanted} is neither a file nor a model that this space and task know."
            f"{f' Did you mean {guess!r}?' if guess else ''} Known: {', '.join(named) or 'none'}."
        )
    return wanted, named[wanted]


def _measured(
    parts: Parts, architecture: ArchitectureLike, folder: RunFolder, stop: Callable[[], bool], progress: Progress
) -> Measurement:
    """Train the model as the recipe says and measure it with the final evaluator; files go to `model/`."""
    from rankitect.contracts import TrialContext
    from rankitect.errors import TrainingError
    from rankitect.study.checks import problem, seed_everything

    seed = parts.config.seed
    evaluator, started, began = parts.evaluators["final"], time.monotonic(), False

    def show(done: int, total: int, note: str) -> None:
        nonlocal began
        began = True
        folder.begin()
        progress.update("training", done, total, note)

    with _model_folder(folder.path) as (place, earlier):
        context = TrialContext(folder.path, place, seed, stop, show)
        context.state = folder.state_dir
        seed_everything(seed)
        try:
            measurement = evaluator.measure(architecture, context)
        except BaseException as error:
            earlier()  # a model that was finished is not lost by another attempt
            if not began and isinstance(error, RankitectError):  # as where the saved state is of other settings
                folder.revert()
            raise
    if trouble := problem(measurement, evaluator.metrics):
        raise TrainingError(f"The model cannot be measured: {trouble}.")
    return replace(measurement, spent=replace(measurement.spent, seconds=time.monotonic() - started))


@contextmanager
def _model_folder(run: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """An empty folder for the model, in place of one of an earlier attempt; and a function that puts that one back."""
    place, kept = run / "model", run / ".model.old"
    shutil.rmtree(kept, ignore_errors=True)
    had = place.exists()
    if had:
        os.replace(place, kept)
    place.mkdir()

    def put_back() -> None:
        shutil.rmtree(place, ignore_errors=True)
        if had:
            os.replace(kept, place)

    try:
        yield place, put_back
    finally:
        shutil.rmtree(kept, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code.

    Args:
        arguments: The command line without the program's name; `sys.argv` by default.
    """
    from rankitect.study.stopping import StopSignal

    return run_command(
        "rankitect.train",
        arguments,
        lambda overrides, config_dir: _train(overrides, config_dir, StopSignal(), say),
        _tell,
        description="Train one model of a space by a recipe, measure it and save it. Repeating the command resumes.",
        epilog="Examples:  model=architecture.json recipe=heal   |   task=scratch model=mobilellm-125m recipe=pretrain",
        lost="The training failed.",
        keys_help=_keys_help,
    )


def _keys_help(overrides: Sequence[str], config_dir: Path | None) -> str:
    from rankitect.config.help import help_text
    from rankitect.config.training import reads

    chosen = [override for override in overrides if not override.startswith("model=")]
    model = (
        "  model=<file or name>  an architecture's JSON, or a model that the space or the task knows; null: the largest"
    )
    return f"{model}\n\n{help_text(chosen, config_dir, reads)}"


def _tell(trained: TrainingRun, command: str) -> int:
    """Say how the training ended and where the model is."""
    from rankitect.study.stopping import INTERRUPTED

    summary = trained.summary
    if summary is None:
        say(f"The training was stopped. To go on: {command}")
        return INTERRUPTED
    quality = ", ".join(f"{name} {metric.value:g} {metric.unit}".rstrip() for name, metric in summary.metrics.items())
    say(f"The model is trained: {quality}.")
    if summary.spent.data != summary.computed.data:
        say(
            f"Charged: {summary.spent.data:,} tokens or examples; "
            f"{summary.spent.data - summary.computed.data:,} of them were stored by earlier runs."
        )
    say(f"Model: {trained.folder / 'model'}\nSummary: {trained.folder / 'summary.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
