"""Which choices mattered: how quality at equal cost goes with each choice, over the trials of one evaluator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.contracts import Trial
from rankitect.reports.cards import JSON, Cell, Status, Table
from rankitect.reports.figures.importance import importance_figure
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_percent, is_number, signed_percent
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run, value_of
from rankitect.reports.section import Facts, Section

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SECTION", "Effect", "effects_of"]

_ENOUGH = 10
_SHOWN = 12
_SHUFFLES = 200
_INDEX = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class Effect:
    """How much of quality, at equal cost, goes with one choice.

    Attributes:
        name: The choice's path, or a path with `*` for the mean over a repeated block.
        strength: Share of the variance of quality that the choice alone explains, 0 to 1.
        means: Mean quality at equal cost by value, relative to the trials' mean; positive is better.
        trials: How many trials have the choice.
    """

    name: str
    strength: float
    means: Mapping[str, float]
    trials: int


class ImportanceSection(Section):
    """The choices, ranked by how much of quality at equal cost they explain."""

    id, short, order = "importance", "Choices", 170

    def facts(self, material: Material) -> Facts:
        """Measure the effect of every choice that varied, over the evaluator with the most trials."""
        roles = material.roles
        if roles is None:
            return Facts.missing("objectives")
        evaluator, trials = _largest_group(material.run, roles)
        if len(trials) < _ENOUGH:
            note, metric = material.run.trials_note, roles.quality.name
            return Facts.missing("trials", count=len(trials), metric=metric, enough=_ENOUGH, note=note)
        effects, chance = effects_of(trials, roles)
        if not effects:
            return Facts.missing("choices")
        clear = sum(e.strength > chance for e in effects)
        words = {
            "clear": clear,
            "count": len(effects),
            "strongest": effects[0],
            "trials": len(trials),
            "evaluator": evaluator,
            "chance": chance,
        }
        shown = effects[:_SHOWN]
        figure = importance_figure({e.name: e.strength for e in shown}, chance)
        return Facts(Status.PASS if clear else Status.WARN, words, (_table(shown, chance),), (figure,))


def _largest_group(run: Run, roles: Roles) -> tuple[str, list[Trial]]:
    """The evaluator that measured the quality of most models, and the first trial of each."""
    groups: dict[str, dict[str, Trial]] = {}
    for trial in run.searched():
        if trial.architecture.choices and value_of(trial, roles.quality.name) is not None:
            groups.setdefault(trial.evaluator, {}).setdefault(trial.architecture.fingerprint, trial)
    if not groups:
        return "", []
    name = max(groups, key=lambda key: len(groups[key]))
    return name, list(groups[name].values())


def effects_of(trials: Sequence[Trial], roles: Roles) -> tuple[list[Effect], float]:
    """The effect of every choice that varied, strongest first, and the level that chance alone reaches.

    Numeric choices count by the square of the rank correlation, others by the adjusted share of variance between
    values.

    Args:
        trials: Distinct finished trials of one evaluator.
        roles: What is quality and what is cost.

    Returns:
        The effects, and the 95th percentile over shuffles of the strongest effect among all choices.
    """
    import numpy as np

    target = _at_equal_cost(trials, roles)
    columns = _columns(trials)
    measures = {name: _Measure(values) for name, values in columns.items()}
    if not columns:
        return [], 0.0
    random = np.random.default_rng(0)
    # The first target is the real one, the others are shuffles of it.
    targets = np.stack([target, *(random.permutation(target) for _ in range(_SHUFFLES))])
    ranks = np.stack([_ranks(row) for row in targets])
    strengths = {name: measure(targets, ranks) for name, measure in measures.items()}
    effects = [
        Effect(name, float(each[0]), _means(columns[name], target), sum(v is not None for v in columns[name]))
        for name, each in strengths.items()
    ]
    highest = np.max([each[1:] for each in strengths.values()], axis=0)
    return sorted(effects, key=lambda e: -e.strength), float(np.quantile(highest, 0.95))


def _at_equal_cost(trials: Sequence[Trial], roles: Roles) -> np.ndarray:
    """Quality without what cost explains, higher is better; logarithms where values allow them. Shape (trials,)."""
    import numpy as np

    quality = np.array([value_of(t, roles.quality.name) for t in trials], float)
    target = roles.sign * (np.log(quality) if (quality > 0).all() else quality)
    name = roles.cost.name if roles.cost else ""
    costs = [value_of(t, name) for t in trials]
    if None not in costs:
        cost = np.array(costs, float)
        if (cost > 0).all() and np.ptp(cost) > 0:
            x = np.log(cost)
            # A bend in the trade-off would otherwise show up as an effect of every width.
            design = np.stack([np.ones_like(x), x, x * x], axis=1)
            target = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return target - target.mean()


def _columns(trials: Sequence[Trial]) -> dict[str, list[JSON]]:
    """Values by choice, and the mean over each repeated block, for choices that have more than one value."""
    paths = sorted({path for trial in trials for path in trial.architecture.choices})
    columns: dict[str, list[JSON]] = {
        path: [trial.architecture.choices.get(path) for trial in trials] for path in paths
    }
    repeated: dict[str, list[str]] = {}
    for path in paths:
        if _INDEX.search(path):
            repeated.setdefault(_INDEX.sub(".*.", path), []).append(path)
    for name, members in repeated.items():
        rows = [[v for p in members if isinstance(v := t.architecture.choices.get(p), int | float)] for t in trials]
        if all(rows) and len(members) > 1:
            columns[name] = [sum(row) / len(row) for row in rows]
        words = sorted({str(v) for t in trials for p in members if isinstance(v := t.architecture.choices.get(p), str)})
        for word in words[:8] if len(members) > 1 else ():
            columns[f"{name} = {word}"] = [
                sum(t.architecture.choices.get(p) == word for p in members) / len(members) for t in trials
            ]
    return {name: values for name, values in columns.items() if len({repr(v) for v in values if v is not None}) > 1}


class _Measure:
    """Strength of one choice for many targets at once; what depends on the choice alone is prepared once."""

    def __init__(self, values: Sequence[JSON]) -> None:
        import numpy as np

        self.live = np.array([v is not None for v in values])
        present = [v for v in values if v is not None]
        self.numeric = all(is_number(v) for v in present)
        if self.numeric:
            ranks = _ranks(np.array(present, float))
            self.x = ranks - ranks.mean()
        else:
            names = sorted({repr(v) for v in present})
            self.x = np.array([[repr(v) == name for name in names] for v in present], float)

    def __call__(self, targets: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Strength for each target. Shapes (s, n) and (s, n), the targets and their ranks, to (s,)."""
        import numpy as np

        y = (ranks if self.numeric else targets)[:, self.live]
        y = y - y.mean(axis=1, keepdims=True)
        total = (y * y).sum(axis=1)
        if y.shape[1] < 5:
            return np.zeros(len(y))
        if self.numeric:
            below = float(self.x @ self.x) * total
            return np.divide((y @ self.x) ** 2, below, out=np.zeros(len(y)), where=below > 0)
        counts = self.x.sum(axis=0)
        free = y.shape[1] - len(counts)
        if free <= 0:
            return np.zeros(len(y))
        between = ((y @ self.x) ** 2 / counts).sum(axis=1)
        adjusted = between - (len(counts) - 1) * (total - between) / free
        return np.clip(np.divide(adjusted, total, out=np.zeros(len(y)), where=total > 0), 0.0, None)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties at their mean. Shape (n,) to (n,)."""
    import numpy as np

    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[where]


def _means(values: Sequence[JSON], target: np.ndarray) -> dict[str, float]:
    """Mean of the target by value; numeric choices with many values in three parts of equal size."""
    import numpy as np

    present = [(v, float(y)) for v, y in zip(values, target, strict=True) if v is not None]
    distinct = {v for v, _ in present if is_number(v)}
    if len(distinct) > 4 and all(is_number(v) for v, _ in present):
        present.sort(key=lambda pair: pair[0])  # type: ignore[arg-type,return-value]
        parts = [part for part in np.array_split(np.arange(len(present)), 3) if len(part)]
        return {
            f"{present[part[0]][0]:.4g}–{present[part[-1]][0]:.4g}": sum(present[i][1] for i in part) / len(part)
            for part in parts
        }
    grouped: dict[str, list[float]] = {}
    for value, y in sorted(present, key=_by_value):
        grouped.setdefault(str(value), []).append(y)
    return {name: sum(ys) / len(ys) for name, ys in grouped.items()}


def _by_value(pair: tuple[JSON, float]) -> tuple[float, str]:
    return (float(pair[0]) if isinstance(pair[0], int | float) else 0.0, repr(pair[0]))


def _table(effects: Sequence[Effect], chance: float) -> Table:
    rows = []
    for effect in effects:
        best = max(effect.means, key=lambda key: effect.means[key])
        means = ", ".join(f"{value}: {signed_percent(mean)}" for value, mean in effect.means.items())
        rows.append(
            (
                Cell(effect.name, effect.name),
                Cell(as_percent(effect.strength, 0), effect.strength, bar=effect.strength),
                Cell("yes" if effect.strength > chance else "no", tone="good" if effect.strength > chance else ""),
                Cell(best, best),
                Cell(means),
                Cell(str(effect.trials), effect.trials),
            )
        )
    names = ("Choice", "Explains", "Beyond chance", "Best value", "Quality by value, at equal cost", "Trials")
    return Table(names, tuple(rows))


SECTION = ImportanceSection()
