"""The command `python -m rankitect.pick` and the Python entry `rankitect.pick(...)`: another cut of what a search
measured, without searching again.

    python -m rankitect.pick run=runs/my-run prefill_ms=300 weight_bytes=60e6
    python -m rankitect.pick run=runs/my-run kv_cache_bytes=1e6..4e6 objectives=perplexity,decode_ms out=picked

Every candidate that was measured in full is asked, not only those of the run's own front. A bound is an amount in the
metric's unit: at most that much of what is better small, at least that much of what is better large, or a range
`low..high`, either end of which may be left out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.command_line import keys_help, split_words
from rankitect.errors import ConfigError, RunFolderError, closest, short
from rankitect.terminal import Parser, answered, ended, say

if TYPE_CHECKING:
    import pandas as pd

    from rankitect.config.quantities import Amounts
    from rankitect.contracts import MetricSpec, Trial
    from rankitect.study.pareto import MeasuredCandidate
    from rankitect.study.summary import Summary

__all__ = ["main", "pick"]

KEYS = {
    "run": "the run folder",
    "objectives": "metrics that the front is taken over, separated by commas; the run's own if left out",
    "limit": "how many candidates at most, best first in the first objective",
    "out": "a new folder to write their architectures to",
    "<metric>": "a bound: 300, 100..300, ..300 or 100..",
}
_OPTIONS = ("objectives", "limit", "out")
SHORT = {"bytes": ("weight_bytes", "table_bytes")}
"""Names for what a run has only one of."""
FINAL = "final"
"""The evaluator whose measurements count."""


def pick(run: str | Path, *words: str, **keys: str | float) -> pd.DataFrame:
    """The candidates of a run within bounds that no other one within them dominates.

    >>> pick("runs/my-run", prefill_ms=300, weight_bytes="..60e6")  # doctest: +SKIP

    Args:
        run: The run folder.
        *words: In the form of the command, "key=value".
        **keys: The same: bounds by metric, `objectives`, `limit`, `out`.

    Returns:
        One line a candidate, best first: its fingerprint, its folder in the run ("" where its weights were not kept),
        the file that was written to `out`, and one column a metric. Baselines within the bounds come after them, with
        their names in the column `baseline`, which is empty for candidates.

    Raises:
        ConfigError: A bound, a metric or a folder is wrong, or no candidate is within the bounds (says what there is).
        RunFolderError: The folder is none of a run, has no finished trial, or is damaged.
    """
    return _picked(Path(run), [*words, *(f"{key}={value}" for key, value in keys.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, or 2 where nothing is within the bounds or something is wrong.

    Args:
        arguments: The command line without the program's name; `sys.argv` by default.
    """
    parser = Parser(
        prog="python -m rankitect.pick",
        description="Cut the front of a finished search again, by bounds on anything that it measured.",
        epilog=keys_help(KEYS),
    )
    parser.add_argument("keys", nargs="+", metavar="key=value", help="run=FOLDER and bounds, such as prefill_ms=300")
    options = parser.parse_args(arguments)
    return answered(lambda: _command(options.keys))


def _command(words: Sequence[str]) -> int:
    run = [word.partition("=")[2] for word in words if word.startswith("run=")]
    if len(run) > 1:
        raise ConfigError("run= is there twice: give one run folder.")
    if not run or not run[0]:
        raise ConfigError("run=FOLDER is missing: the folder that a search printed as its run folder.")
    table = _picked(Path(run[0]), [word for word in words if not word.startswith("run=")])
    say(table.drop(columns="fingerprint").to_string(index=False, float_format="{:.6g}".format))
    return 0


def _picked(folder: Path, words: Sequence[str]) -> pd.DataFrame:
    from rankitect.study.pareto import baselines, candidates, pareto_front

    summary, trials = _read(folder)
    measured, compared = candidates(trials, FINAL), baselines(trials, FINAL)
    if not measured:
        raise RunFolderError(f"{folder} has no candidate that was measured in full; let its search go on.")
    metrics = list(dict.fromkeys(name for c in measured for name in c.metrics))
    plain, given = split_words([_spelled(word, metrics) for word in words], [*_OPTIONS, *metrics])
    if plain:
        raise ConfigError(f"{short(repr(plain[0]), 80)} is no bound: write <metric>=<value>, as in {metrics[0]}=…")
    known = _specs(summary)
    specs = _objectives(given.pop("objectives", None), known, summary, metrics)
    limit, out = _limit(given.pop("limit", None)), given.pop("out", None)
    bounds = {name: _amounts(name, text, known.get(name)) for name, text in given.items()}
    within = [c for c in measured if _meets(c, bounds)]
    if not within:
        raise ConfigError(_nearest(measured, bounds))
    chosen = pareto_front(within, specs)[:limit]
    files = _write(Path(out), chosen) if out is not None else {}
    beside = [(name, c) for name, c in compared if _meets(c, bounds)]
    return _table(folder, summary, chosen, beside, files, metrics)


def _read(folder: Path) -> tuple[Summary, tuple[Trial, ...]]:
    from rankitect.study.entries import refuse_strange
    from rankitect.study.summary import check_files, read_summary
    from rankitect.study.trials_table import TRIALS, read_trials

    if not folder.is_dir():
        raise RunFolderError(f"run={short(str(folder), 200)} is no folder: give the one that a search printed.")
    refuse_strange(folder)
    summary = read_summary(folder)
    check_files(folder, summary)
    return summary, read_trials(folder / TRIALS)


def _spelled(word: str, metrics: Sequence[str]) -> str:
    """A word with its metric's full name."""
    key, equals, value = word.partition("=")
    full = next((name for name in SHORT.get(key, ()) if name in metrics), key)
    return f"{full}{equals}{value}"


def _specs(summary: Summary) -> dict[str, MetricSpec]:
    """The metrics of which it is known what is better; costs are, in summaries of earlier versions as well."""
    from rankitect.contracts import MetricSpec

    specs = {}
    for metrics in (*(c.metrics for c in summary.pareto), *(b.metrics for b in summary.baselines)):
        for name, metric in metrics.items():
            if metric.direction is not None:
                specs[name] = MetricSpec(name, metric.unit, metric.direction, metric.role)
            elif metric.role == "cost":
                specs[name] = MetricSpec(name, metric.unit, "min", "cost")
    return {**specs, **{o.name: MetricSpec(o.name, o.unit, o.direction, o.role) for o in summary.objectives}}


def _objectives(
    text: str | None, known: Mapping[str, MetricSpec], summary: Summary, metrics: Sequence[str]
) -> list[MetricSpec]:
    """What the front is taken over."""
    names = [o.name for o in summary.objectives] if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in metrics:
            guess = closest(name, metrics)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise ConfigError(f"objectives: the run measured no {short(repr(name), 80)}.{hint}")
        if name not in known:
            raise ConfigError(
                f"objectives: the run does not say whether a small or a large {name} is better. Bound it by a range "
                f"instead: {name}=low..high."
            )
    return [known[name] for name in names]


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not int(text[:9]) >= 1:
        raise ConfigError(f"limit is {short(repr(text), 40)}; it must be a whole number from 1.")
    return int(text[:9])


def _amounts(name: str, text: str, spec: MetricSpec | None) -> Amounts:
    """What a metric may be: a range, or a number that is its worse end."""
    from rankitect.config.quantities import Amounts

    typed = text
    if ".." not in text:
        if spec is None:
            raise ConfigError(
                f"{name}={short(text, 40)}: the run does not say whether a small or a large {name} is better. Write a "
                f"range: {name}=..{short(text, 40)} (at most), or {name}={short(text, 40)}.. (at least)."
            )
        text = f"{text}.." if spec.direction == "max" else f"..{text}"
    try:
        return Amounts.parse(text)
    except ValueError as error:
        if typed == text:
            raise ConfigError(f"{name}: {error}. A number alone is a limit.") from None
        raise ConfigError(
            f"{name}={short(typed, 60)} is no bound: write a number such as 300, or a range such as 100..300, ..300 or "
            "100..."
        ) from None


def _meets(candidate: MeasuredCandidate, bounds: Mapping[str, Amounts]) -> bool:
    """Whether a candidate is within all bounds; one of which a bounded metric is not known is not."""
    metrics = candidate.metrics
    return all(name in metrics and metrics[name].value in amounts for name, amounts in bounds.items())


def _nearest(measured: Sequence[MeasuredCandidate], bounds: Mapping[str, Amounts]) -> str:
    """Why nothing is within the bounds, and what would be."""
    spans = []
    for name, amounts in bounds.items():
        values = [c.metrics[name].value for c in measured if name in c.metrics]
        alone = sum(value in amounts for value in values)
        spans.append(f"{name}={amounts} is met by {alone} (measured: {min(values):g} to {max(values):g})")
    return short(
        f"None of {len(measured)} measured candidates is within the bounds: {'; '.join(spans)}. A search with such "
        "constraints looks for others.", 490,
    )  # fmt: skip


def _write(out: Path, chosen: Sequence[MeasuredCandidate]) -> Mapping[str, str]:
    """Their architectures as files, by fingerprint."""
    from rankitect.data.files import write_whole

    if out.exists():
        raise ConfigError(f"out={short(str(out), 200)} is there already: name a new folder.")
    if not out.parent.is_dir():
        raise ConfigError(f"out={short(str(out), 200)}: there is no folder {short(str(out.parent), 200)}.")
    out.mkdir()
    files = {}
    for rank, candidate in enumerate(chosen, 1):
        architecture = candidate.trial.architecture
        path = out / f"{rank:02d}-{architecture.fingerprint[:8]}.json"
        write_whole(path, architecture.to_json() + "\n")
        files[architecture.fingerprint] = str(path)
    return files


def _table(
    folder: Path,
    summary: Summary,
    chosen: Sequence[MeasuredCandidate],
    compared: Sequence[tuple[str, MeasuredCandidate]],
    files: Mapping[str, str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    import pandas as pd

    kept = {c.fingerprint: c.folder for c in summary.pareto if (folder / c.folder).is_dir()}
    rows = []
    for name, candidate in [*(("", c) for c in chosen), *compared]:
        fingerprint = candidate.trial.architecture.fingerprint
        about = {
            "fingerprint": fingerprint,
            "candidate": fingerprint[:8] if not name else "",
            "baseline": name,
            "folder": "" if name else kept.get(fingerprint, ""),
            **({"file": files.get(fingerprint, "") if not name else ""} if files else {}),
        }
        rows.append({**about, **{m: candidate.metrics[m].value for m in metrics if m in candidate.metrics}})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(ended(main))
