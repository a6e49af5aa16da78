"""The command `python -m rankitect.compare` and the Python entry `rankitect.compare(...)`: several search methods on
one space and task, and scores against training.

    python -m rankitect.compare --controllers random,evolution,one_shot --seeds 0,1,2 space=ranking_engineered
    python -m rankitect.compare --correlation 40 space=ranking_blocks

A budget (`budget.tokens=6000000`) holds for each search, so that all spend the same; without one each spends what is
usual for it, and the table says how much that is.

Every pair of method and seed is a search of its own, in a folder of its own; repeating the command resumes. What is
written: methods.csv, methods.md, progress.svg, trade_off.svg, and with --correlation scores.csv and scores.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import as_overrides
from rankitect.data.files import write_whole
from rankitect.documents import read_yaml
from rankitect.errors import ConfigError, RankitectError
from rankitect.terminal import Parser, answered, ended, say

if TYPE_CHECKING:
    import pandas as pd

    from rankitect.contracts import MetricSpec

__all__ = ["compare", "compare_methods", "compare_scores", "main"]

CONTROLLERS = ("random", "evolution", "bayesian", "reinforce", "one_shot", "dnas", "sigeo")
COLD = ("zico", "grad_norm", "snip", "synflow", "nwot", "params", "flops")
WARM = (0.0, 0.1, 0.2, 0.4, 1.0)
_FEWEST = 3
"""Architectures that a rank correlation needs."""


def compare(
    controllers: Sequence[str] = CONTROLLERS,
    seeds: Sequence[int] = (0, 1, 2),
    overrides: Sequence[str] | None = None,
    *,
    output_dir: str | Path = "runs/compare",
    config_dir: str | Path | None = None,
    **keys: Any,
) -> pd.DataFrame:
    """Compare search methods exactly as the command does.

    >>> table = compare(["random", "dnas"], seeds=[0, 1], space="mobile_llm", budget={"minutes": 20})  # doctest: +SKIP

    Args:
        controllers: Methods: options of the group `controller`.
        seeds: Of the searches; a method's runs are paired by seed.
        overrides: Of every search, in the command's form; `evolution:controller.population=32` is for one alone.
        output_dir: For the run folders and what is written.
        config_dir: A folder of your own configurations, laid out like configs/.
        **keys: The same as overrides; a mapping stands for a section.

    Returns:
        One line a method; see `compare_methods`.

    Raises:
        RankitectError: The input is wrong, with what to do about it.
    """
    given = [*([overrides] if isinstance(overrides, str) else overrides or []), *as_overrides(keys)]
    return compare_methods(Path(output_dir), controllers, seeds, given, config_dir)


def _search(
    folder: Path, overrides: Sequence[str], config_dir: str | Path | None = None, *, baselines: bool = False
) -> Any:
    """One search, told in one line; its result. What it finds is not confirmed: a seed is a search."""
    from rankitect.search import search

    say(f"-- {folder}")
    keys: dict[str, Any] = {"report": {"page": False}, "confirm": {"seeds": 1}, "runner": {"baselines": baselines}}
    result = search([*overrides], config_dir=config_dir, quiet=True, output_dir=folder, **keys)
    if result.ended == "interrupted":
        raise KeyboardInterrupt
    return result


def _objectives(summary: Any) -> list[MetricSpec]:
    from rankitect.contracts import MetricSpec

    return [MetricSpec(o.name, o.unit, o.direction, o.role, o.held_out) for o in summary.objectives]


def compare_methods(
    folder: Path,
    controllers: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Run every method with every seed, and lay the results side by side.

    Args:
        folder: For the run folders `<controller>-<seed>` and what is written.
        controllers: Options of the group `controller`.
        seeds: Of the studies; a method's runs are paired by seed.
        overrides: Of every search. A key for one method alone is given as `evolution:controller.population=32`.
        config_dir: A folder of the user's own configurations.

    Returns:
        One line a method.

    Raises:
        ConfigError: A method or a seed is missing, or a method's configuration is refused; nothing has run then.
        RankitectError: A search cannot be run with what the user gave.
    """
    from rankitect.reports.figures.methods import draw_progress, draw_trade_off
    from rankitect.reports.method_comparison import methods_table, read_run

    _check(controllers, seeds, overrides, config_dir)
    runs, objectives = [], None
    for seed in seeds:
        for controller in controllers:
            place = folder / f"{controller}-{seed}"
            keys = _keys(controller, seed, overrides, controllers)
            result = _search(place, keys, config_dir, baselines=_measures_baselines(place, seed))
            objectives = objectives or _objectives(result.summary)
            runs.append(read_run(place, controller, seed, objectives))
    if objectives is None or not any(len(run.points) for run in runs):
        raise ConfigError("No search measured an architecture in full: there is nothing to compare.")
    table = methods_table(runs, objectives)
    _write(table, folder / "methods")
    draw_progress(runs, objectives, folder / "progress.svg")
    if len(objectives) == 2:
        draw_trade_off(runs, objectives, folder / "trade_off.svg")
    return table


def _check(
    controllers: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], config_dir: str | Path | None
) -> None:
    """Refuse what no search could be run with, before the first of many begins."""
    from rankitect.config import resolve

    for option, given in (("--controllers", controllers), ("--seeds", seeds)):
        if not given:
            raise ConfigError(f"{option} is empty: give one or more, with commas between.")
    for controller in controllers:
        resolve(_keys(controller, seeds[0], overrides, controllers), Path(config_dir) if config_dir else None)


def _keys(controller: str, seed: int, overrides: Sequence[str], controllers: Sequence[str]) -> list[str]:
    """The overrides of one search."""
    return [f"controller={controller}", f"seed={seed}", *_of(controller, overrides, controllers)]


def _measures_baselines(place: Path, seed: int) -> bool:
    """Whether a run is to measure the baselines, which are the same for every method: the first of a seed does, and one
    that has begun goes on as it began."""

    def measures(run: Path) -> bool | None:
        try:
            return bool(read_yaml(run / "config.yaml", dict[str, Any])["runner"]["baselines"])
        except (RankitectError, KeyError, TypeError):
            return None  # not begun, or damaged, which the search itself will tell

    own = measures(place)
    return not any(map(measures, place.parent.glob(f"*-{seed}"))) if own is None else own


def _of(controller: str, overrides: Sequence[str], controllers: Sequence[str]) -> list[str]:
    """The overrides that concern a method."""
    mine = []
    for override in overrides:
        owner, _, rest = override.partition(":")
        if owner not in controllers:
            mine.append(override)
        elif owner == controller:
            mine.append(rest)
    return mine


def compare_scores(
    folder: Path, count: int, seed: int, overrides: Sequence[str], config_dir: str | Path | None = None
) -> pd.DataFrame:
    """Kendall's τ of cheap scores with training in full, over the same random architectures.

    The first line is the ceiling: training in full with another seed. Then the screening evaluator on a supernet that
    was trained to the end, SiGeo at several fractions of that training, and zero-cost proxies on untrained weights.

    Args:
        folder: For the run folders and what is written.
        count: Number of architectures, at least 3.
        seed: Decides the architectures.
        overrides: Of every search.
        config_dir: A folder of the user's own configurations.

    Returns:
        One line a score.

    Raises:
        ConfigError: There are too few architectures.
        RankitectError: A search cannot be run with what the user gave.
    """
    import pandas as pd

    if count < _FEWEST:
        raise ConfigError(f"--correlation is {count}: a rank correlation needs at least {_FEWEST} architectures.")
    from rankitect.reports.method_comparison import correlation, values

    base = ["controller=sampled", f"controller.samples={count}", f"seed={seed}", *overrides]
    result = _search(folder / "truth", [*base, "controller.by=final"], config_dir)
    quality = _objectives(result.summary)[0]
    towards = 1.0 if quality.direction == "min" else -1.0
    truth = {f: -towards * v for f, v in values(folder / "truth", "final", quality.name).items()}
    spent = {"truth": result.summary.ledger}
    scored: dict[str, dict[str, float]] = {}

    def measured(name: str, by: str, metric: str, sign: float, *more: str) -> None:
        result = _search(folder / name.replace(" ", "-"), [*base, f"controller.by={by}", *more], config_dir)
        spent[name] = result.summary.ledger
        scored[name] = {f: sign * v for f, v in values(result.folder, by, metric).items()}

    measured("training with another seed", "final", quality.name, -towards, f"controller.trial_seed={seed + 1}")
    measured("supernet", "screen", quality.name, -towards, "controller.warmup=1.0")
    for warmup in WARM:
        cold = ["evaluator.proxy.fisher_rao=1.0", "evaluator.proxy.loss=0.0"] if warmup == 0 else []
        name = f"sigeo {warmup:.0%}".replace("%", "")
        measured(name, "proxy", "sigeo", 1.0, f"controller.warmup={warmup}", *cold)
    for score in COLD:
        measured(score, "proxy", score, 1.0, "controller.warmup=0.0", f"evaluator.proxy.score={score}")
    rows = []
    for name, scores in scored.items():
        tau, low, high, n = correlation(scores, truth)
        rows.append(
            {
                "score": name, "tau": tau, "low": low, "high": high, "n": n,
                "trained": spent[name].trained, "evaluated": spent[name].evaluated,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    _write(table, folder / "scores")
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    """As CSV, and as a Markdown table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.with_suffix(".csv"), table.to_csv(index=False))
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in table.itertuples(index=False)]
    write_whole(path.with_suffix(".md"), "".join(f"| {' | '.join(row)} |\n" for row in rows))
    say(table.to_string(index=False))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' should be whole numbers with commas between") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, 2 for wrong input, 3 for a disk that cannot be written, 130 after Ctrl-C.

    Args:
        arguments: The command line without the program's name; `sys.argv` by default.
    """
    parser = Parser(
        prog="python -m rankitect.compare",
        description="Compare search methods on one space and task. Repeating the command resumes.",
        epilog="Equal spending: budget.tokens=6000000   |   for one method alone: evolution:controller.population=32",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for python -m rankitect.search")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS), help="methods, with commas between")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="seeds, with commas between")
    parser.add_argument("--correlation", type=int, default=0, metavar="N", help="compare scores over N architectures")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/compare"), metavar="FOLDER")
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own configurations, laid out like configs/")
    options = parser.parse_intermixed_args(arguments)
    folder, given, own = options.output_dir, options.overrides, options.config_dir

    def act() -> int:
        if options.correlation:
            compare_scores(folder, options.correlation, (options.seeds or [0])[0], given, own)
        else:
            chosen = [name for name in options.controllers.split(",") if name]
            compare_methods(folder, chosen, options.seeds, given, own)
        return 0

    return answered(act)


if __name__ == "__main__":
    sys.exit(ended(main))
