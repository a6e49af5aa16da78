"""The command `python -m rankitect.measure` and the Python entry `rankitect.measure(...)`: architectures that you have,
side by side.

    python -m rankitect.measure a.json b.json space=mobile_llm recipe.heal.tokens=100000
    python -m rankitect.measure runs/*/candidates/*/architecture.json space=ranking_blocks task=clicks

A search without a search method (`controller=given`): every architecture is measured by the final evaluator with the
same budget and seed, baselines beside them, and the run ends with the same files and report. Exit codes are those of
`rankitect.search`. Repeating the command resumes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import as_overrides, command_line, run_command
from rankitect.errors import ConfigError
from rankitect.terminal import ended, say

if TYPE_CHECKING:
    import pandas as pd

    from rankitect.contracts import ArchitectureLike
    from rankitect.search import Result
    from rankitect.study.stopping import StopSignal

__all__ = ["Measured", "main", "measure"]

GIVEN = Path("runs/given")
"""Where architectures that are not in files are written, each named by its fingerprint."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        result: The run, as of a search.
        table: One line an architecture, in the order in which they were given: `file`, `state` (DONE or FAILED), its
            fingerprint, and one column a metric.
    """

    result: Result
    table: pd.DataFrame


def measure(
    architectures: Sequence[str | Path | ArchitectureLike],
    overrides: Sequence[str] | None = None,
    *,
    config_dir: str | Path | None = None,
    quiet: bool = False,
    **keys: Any,
) -> Measured:
    """Measure architectures, or go on with that, exactly as the command does.

    >>> measured = measure(["a.json", "b.json"], ["space=mobile_llm"], seed=1)  # doctest: +SKIP

    Args:
        architectures: Files, or architectures of the space; these are written into `runs/given/`, so that the run can
            be repeated.
        overrides: In the form of the command, "key=value".
        config_dir: A folder of your own configurations, laid out like configs/.
        quiet: Print nothing.
        **keys: The same as overrides; a mapping stands for a section.

    Ctrl-C raises KeyboardInterrupt as anywhere in Python; what is measured is kept.

    Raises:
        RankitectError: The input is wrong, with what to do about it (`DiskError` for a disk that cannot be written).
    """
    given = [*([overrides] if isinstance(overrides, str) else overrides or []), *as_overrides(keys)]
    files = [str(a) if isinstance(a, str | Path) else _written(a) for a in architectures]
    return _measure(files, given, config_dir, None, (lambda text: None) if quiet else say, quiet=quiet)


def _written(architecture: ArchitectureLike) -> str:
    from rankitect.data.files import write_whole

    path = GIVEN / f"{architecture.fingerprint}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, architecture.to_json().encode())
    return str(path)


def _measure(
    files: Sequence[str],
    overrides: Sequence[str],
    config_dir: str | Path | None,
    stop: StopSignal | None,
    out: Callable[[str], None],
    *,
    quiet: bool = False,
) -> Measured:
    from rankitect.search import run_search

    if not files:
        raise ConfigError("Name one or more files of architectures, such as a candidate's architecture.json.")
    if any(override.partition("=")[0] == "controller" for override in overrides):
        raise ConfigError("controller= has no place here: the architectures are given, none is searched for.")
    again = command_line("rankitect.measure", [*files, *overrides], config_dir)
    words = [*overrides, "controller=given", *as_overrides({"controller": {"architectures": list(files)}})]
    result = run_search(words, config_dir, stop, out, command=again, quiet=quiet)
    return Measured(result, _table(result, len(files)))


def _table(result: Result, count: int) -> pd.DataFrame:
    """What is known of every architecture; one that was not reached is left out."""
    import pandas as pd

    from rankitect.study.trials_table import TRIALS, read_trials

    rows: dict[int, Mapping[str, Any]] = {}
    for trial in read_trials(result.folder / TRIALS):
        index = trial.tags.get("index")
        if trial.baseline is None and isinstance(index, int) and 0 <= index < count and trial.tags.get("file"):
            metrics = trial.measurement.metrics if trial.measurement else {}
            about = {"file": trial.tags["file"], "state": trial.state, "fingerprint": trial.architecture.fingerprint}
            # Of a file that was measured again after it had changed (resume=force), the later trial counts.
            rows[index] = {**about, **{name: metric.value for name, metric in metrics.items()}}
    return pd.DataFrame([rows[index] for index in sorted(rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code.

    Args:
        arguments: The command line without the program's name; `sys.argv` by default.
    """
    from rankitect.study.stopping import StopSignal

    def run(words: Sequence[str], config_dir: str | None) -> Measured:
        files = [word for word in words if os.path.isfile(word) or ("=" not in word and not word.startswith("~"))]
        return _measure(files, [w for w in words if w not in files], config_dir, StopSignal(), say)

    return run_command(
        "rankitect.measure",
        arguments,
        run,
        _tell,
        description="Measure architectures that you have, all with the same budget. Repeating the command resumes.",
        epilog="Examples:  a.json b.json space=mobile_llm   |   runs/x/candidates/*/architecture.json space=mine",
        lost="The measurements failed; those that are finished are kept.",
        keys_help=_keys_help,
    )


def _keys_help(overrides: Sequence[str], config_dir: Path | None) -> str:
    from rankitect.config.help import help_text

    chosen = [word for word in overrides if "=" in word or word.startswith("~")]
    return (
        f"  <file> ...  architectures to measure, as a candidate's architecture.json\n\n{help_text(chosen, config_dir)}"
    )


def _tell(measured: Measured, command: str) -> int:
    """The table, then what a search says at its end."""
    from rankitect.search import tell

    if len(measured.table):
        say(measured.table.drop(columns="fingerprint").to_string(index=False, float_format="{:.6g}".format))
    return tell(measured.result, command)


if __name__ == "__main__":
    sys.exit(ended(main))
