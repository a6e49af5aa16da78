"""The command `python -m rankitect.search` and the Python entry `rankitect.search(...)`: read, join, run.

    python -m rankitect.search space=mobile_llm controller=dnas budget.minutes=20

Exit codes: 0 the search ended or its budget did; 1 something failed that is not the user's doing; 2 the input is wrong;
3 the disk is full; 130 Ctrl-C or SIGTERM. Repeating the command resumes.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import as_overrides, command_line, run_command, shown
from rankitect.contracts import SharesWeights, StopRequested, offers, require
from rankitect.contracts.hooks import HasRegistry, Records
from rankitect.contracts.weights import SendsWeights
from rankitect.errors import DiskError, RankitectError
from rankitect.terminal import ended, say

if TYPE_CHECKING:
    from rankitect.config import Resolved
    from rankitect.config.parts import Parts
    from rankitect.study.folder import RunFolder
    from rankitect.study.stopping import StopSignal
    from rankitect.study.study import StudyOutcome
    from rankitect.study.summary import Summary

__all__ = ["Result", "main", "run_search", "search", "tell"]

_DONE = {
    "finished": "The search has finished.",
    "exhausted": "The search ended: the controller has only architectures to propose that are measured already.",
    "failures": "The search was given up: too many trials in a row failed; log.txt has their tracebacks.",
    "interrupted": "The search was stopped.",
}


@dataclass(frozen=True)
class Result:
    """What a search gives.

    Attributes:
        folder: The run folder.
        summary: What its summary.json holds.
        ended: How it ended; see `rankitect.study.study.StudyOutcome`.
        report: The report page, if one was written.
    """

    folder: Path
    summary: Summary
    ended: str
    report: Path | None = None


def search(
    overrides: Sequence[str] | None = None, *, config_dir: str | Path | None = None, quiet: bool = False, **keys: Any
) -> Result:
    """Run a search, or resume one, exactly as the command does.

    >>> result = search(["space=mobile_llm"], controller="dnas", budget={"minutes": 20})  # doctest: +SKIP

    Args:
        overrides: In the command's form, "key=value".
        config_dir: A folder of your own configurations, laid out like configs/.
        quiet: Print nothing.
        **keys: The same as overrides; a mapping stands for a section.

    Ctrl-C raises KeyboardInterrupt as anywhere in Python; finished trials are kept.

    Raises:
        RankitectError: The input is wrong, with what to do about it (`DiskError` for a disk that cannot be written).
    """
    given = [*([overrides] if isinstance(overrides, str) else overrides or []), *as_overrides(keys)]
    return run_search(given, config_dir, None, _silent if quiet else print, quiet=quiet)


def _silent(*text: object) -> None:
    pass


def run_search(
    overrides: Sequence[str],
    config_dir: str | Path | None,
    stop: StopSignal | None,
    out: Callable[[str], None],
    *,
    command: str | None = None,
    quiet: bool = False,
) -> Result:
    """A search for a command.

    Args:
        overrides: In the command's form.
        config_dir: The user's own configurations.
        stop: Whether the user asked to stop; None: Ctrl-C raises KeyboardInterrupt.
        out: Prints a text.
        command: What repeats the run; None: the command of a search with these overrides.
        quiet: Show no progress.

    Raises:
        RankitectError: The input is wrong, or the disk cannot be written.
    """
    from rankitect.config import resolve
    from rankitect.runners.launched import refuse_launched
    from rankitect.study.folder import RunFolder, config_hash

    refuse_launched("rankitect.search")
    resolved = resolve(overrides, Path(config_dir) if config_dir else None)
    digest = config_hash(resolved.data)
    names = {section: plugin.name for section, plugin in resolved.plugins.items()}
    default = f"runs/{names['space']}-{names['controller']}-{digest[:8]}"
    path = Path(resolved.config.output_dir or default)
    command = command or command_line("rankitect.search", overrides, config_dir)
    out(shown(resolved.data).rstrip())
    out(f"\nConfiguration hash: {digest}\nRun folder: {path}\nTo resume: {command}\n")
    with RunFolder(path, resolved.data, force=resolved.config.resume == "force") as folder:
        folder.open_log(logging.getLogger("rankitect"))
        if folder.resumed:
            out("Resuming: what is finished is not measured again.")
        try:
            return _run(resolved, folder, command, stop, out, quiet=quiet)
        except RankitectError as error:
            logging.getLogger("rankitect").error("%s", error)
            raise
        except StopRequested:  # before the first trial, while the parts were made
            raise KeyboardInterrupt from None
        except Exception:
            logging.getLogger("rankitect").exception("the search failed")
            raise


def _run(
    resolved: Resolved,
    folder: RunFolder,
    command: str,
    stop: StopSignal | None,
    out: Callable[[str], None],
    *,
    quiet: bool,
) -> Result:
    from rankitect.config.parts import build
    from rankitect.runners.factory import warm_up
    from rankitect.study.progress import Progress
    from rankitect.study.stopping import StopSignal
    from rankitect.training.checkpoint import drop_damaged
    from rankitect.training.host import configure_host
    from rankitect.training.placement import choose

    warm_up(resolved)
    configure_host(resolved.config.runner.threads)
    progress = Progress(quiet=quiet or not resolved.config.runner.progress)
    choose(resolved.config.placement, progress.say, resolved.config.runner.together)
    if resolved.config.resume == "force":
        folder.then.append(lambda: drop_damaged(folder.path / "state", progress.say))
    with stop.on_signals(progress.say) if stop is not None else nullcontext():
        asked = stop or StopSignal()
        parts = build(resolved, folder.path, progress.say, stop=asked)
        outcome = _study(resolved, folder, parts, command, asked, progress)
        if offers(parts.task, Records):
            parts.task.record(parts)
        report = None
        if resolved.config.report.page and outcome.ended != "interrupted":
            report = _report(folder.path, out)
    return Result(folder.path, outcome.summary, outcome.ended, report)


def _study(
    resolved: Resolved, folder: RunFolder, parts: Parts, command: str, stop: StopSignal, progress: Any
) -> StudyOutcome:
    from rankitect.runners.factory import runner_of
    from rankitect.study.checks import gated, named
    from rankitect.study.confirming import Confirmation
    from rankitect.study.ledger import Budget
    from rankitect.study.outputs import Labels, OutputOptions, ProductionModels
    from rankitect.study.plan import Hooks, Limits, StudyPlan, Subject
    from rankitect.study.study import Study

    config, plugins = resolved.config, resolved.plugins
    assert parts.decode is not None
    assert parts.controller is not None
    registry = ProductionModels()
    if offers(parts.task, HasRegistry):
        registry = ProductionModels(parts.task.registered.baselines, parts.task.registered.left_out)
    if not folder.resumed:
        gated(config.report.gates, parts.evaluators["final"].metrics)
        named(config.report.baseline, [*parts.baselines, *registry.baselines()])
    plan = StudyPlan(
        objectives=config.evaluator.objectives,
        seed=config.seed,
        budget=Budget(config.budget.minutes, config.budget.tokens, config.budget.trials),
        limits=Limits.of(config.runner),
        confirmation=Confirmation(config.confirm.seeds, config.confirm.candidates),
    )
    outputs = OutputOptions(
        Labels(plugins["space"].name, plugins["task"].name, plugins["controller"].name, command),
        export=parts.export,
        export_baseline=parts.export_baseline,
        registry=registry,
        keep_all=config.report.keep_all,
        tensorboard=config.report.tensorboard,
    )
    subject = Subject(parts.evaluators, parts.decode, parts.space, parts.task)
    runner = runner_of(resolved, folder.path, stop)
    if runner is not None and offers(parts.task, SharesWeights):
        require(parts.task, SendsWeights, "measuring in other processes", called=plugins["task"].name)
    study = Study(folder, subject, plan, outputs, Hooks(stop, progress), runner)
    return study.run(parts.controller, parts.baselines if config.runner.baselines else [])


def _report(folder: Path, out: Callable[[str], None]) -> Path | None:
    """Write the report page. A search is not lost because its page could not be drawn."""
    from rankitect.reports import write_report
    from rankitect.study.files import describe, disk_trouble

    try:
        return write_report(folder)
    except Exception as error:
        if trouble := disk_trouble(error, folder):
            what, remedy = describe(trouble, folder)
            raise DiskError(
                f"{what}, so there is no report yet. All results are in summary.json and study.db. {remedy}, then: "
                f"python -m rankitect.report run={shlex.quote(str(folder))}"
            ) from error
        logging.getLogger("rankitect").exception("the report could not be written")
        out(f"The report could not be written ({error}); the results are complete in {folder / 'summary.json'}.")
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code.

    Args:
        arguments: The command line without the program's name; `sys.argv` by default.
    """
    from rankitect.study.stopping import StopSignal

    return run_command(
        "rankitect.search",
        arguments,
        lambda overrides, config_dir: run_search(overrides, config_dir, StopSignal(), say),
        tell,
        description="Search a space for architectures and measure them. Repeating the command resumes the run.",
        epilog="Examples:  space=mobile_llm controller=dnas budget.minutes=20   |   preset=smoke output_dir=runs/try",
        lost="The search failed; finished trials are kept.",
        keys_help=_keys_help,
    )


def _keys_help(overrides: Sequence[str], config_dir: Path | None) -> str:
    from rankitect.config.help import help_text

    return help_text(overrides, config_dir)


def tell(result: Result, command: str) -> int:
    """Say how a search ended and where the results are. Returns the exit code of its command."""
    from rankitect.study.stopping import INTERRUPTED

    ended = _DONE.get(result.ended, f"The search ended because {result.ended} is used up.")
    trials = result.summary.ledger.trials
    say(
        f"{ended} {trials['done']} trials done, {trials['failed']} failed, {trials['duplicates']} duplicates; "
        f"{result.summary.undominated} on the Pareto front. (Baselines count as trials here.)"
    )
    ledger = result.summary.ledger
    if reused := sum(spent.data for spent in ledger.reused.values()):
        charged = sum(spent.data for spent in ledger.stages.values())
        say(f"Charged: {charged:,} {ledger.unit}, baselines included; {reused:,} of them were stored by earlier runs.")
    say(f"Summary: {result.folder / 'summary.json'}")
    if result.report is not None:
        say(f"Report: {result.report}")
    if result.ended == "interrupted":
        say(f"To go on: {command}")
        return INTERRUPTED
    if result.ended.startswith("budget."):
        # Minutes do not change what is found, the other limits may: a controller can plan with them.
        folder = shlex.quote(str(result.folder))
        more = "" if result.ended == "budget.minutes" else f", output_dir={folder} and resume=force"
        say(f"To go on, repeat the command with a larger {result.ended}{more}.")
    nothing = trials["failed"] > 0 and trials["done"] == 0
    if nothing:
        say(f"No trial could be measured: {result.folder / 'log.txt'} says why.")
    return 1 if nothing or result.ended == "failures" else 0


if __name__ == "__main__":
    sys.exit(ended(main))
