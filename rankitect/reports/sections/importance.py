"""Which choices mattered: how quality at equal cost goes with each choice, over the trials of one evaluator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from rankitect.reports.cards import JSON, Card, Cell, Figure, Status, Table
from rankitect.reports.comparison import Roles
from rankitect.reports.figures.svg import Canvas
from rankitect.reports.numbers import as_percent, plural, signed_percent
from rankitect.reports.reading import Run
from rankitect.reports.trials import Trial

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Effect", "effects_of", "importance_card"]

_TITLE = "Which choices mattered"
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


def importance_card(run: Run, roles: Roles | None) -> Card:
    """Rank the choices by how much of quality at equal cost they explain.

    Args:
        run: The run.
        roles: What is quality and what is cost; None where the summary has no objectives.

    Returns:
        The card; NA with fewer than ten trials of one evaluator that have choices and a quality.
    """
    if roles is None:
        return _missing("the summary names no objective")
    evaluator, trials = _largest_group(run, roles)
    if len(trials) < _ENOUGH:
        note = f" ({run.trials_note})" if run.trials_note else ""
        return _missing(
            f"{plural(len(trials), 'finished trial')} of one evaluator with choices and {roles.quality.name}; "
            f"at least {_ENOUGH} distinct ones are needed{note}"
        )
    effects, chance = effects_of(trials, roles)
    if not effects:
        return _missing("every choice had one and the same value in all trials")
    clear = [e for e in effects if e.strength > chance]
    finding = (
        f"{plural(len(clear), 'choice')} of {len(effects)} "
        f"{'stands' if len(clear) == 1 else 'stand'} out from chance; the strongest is {effects[0].name}, "
        f"which alone goes with {as_percent(effects[0].strength, 0)} of the differences in quality at equal cost."
        if clear
        else f"No choice of {len(effects)} stands out from chance in {len(trials)} trials."
    )
    shown = effects[:_SHOWN]
    return Card(
        "importance",
        _TITLE,
        finding,
        how_to_read=(
            "Wider is nearly always better and dearer, so the part of quality that cost explains is taken out first. A "
            "bar is the share of what is left that one choice explains alone. A name with * is the mean over a "
            "repeated block, or the share of it that has a value. Bars left of the dashed line are no larger than what "
            "shuffled qualities give among this many choices. A search does not sample evenly: read these as hints, "
            "not as causes."
        ),
        status=Status.PASS if clear else Status.WARN,
        reason=f"{len(trials)} trials of {evaluator or 'one evaluator'}; chance level {as_percent(chance, 0)}",
        tables=(_table(shown, chance),),
        figures=(_figure(shown, chance),),
    )


def _missing(reason: str) -> Card:
    return Card("importance", _TITLE, "The weight of each choice cannot be told.", reason=f"{reason}.")


def _largest_group(run: Run, roles: Roles) -> tuple[str, list[Trial]]:
    """Distinct finished trials of the evaluator that has most of them."""
    groups: dict[str, dict[str, Trial]] = {}
    for trial in run.searched():
        if trial.state == "done" and trial.choices and roles.quality.name in trial.metrics:
            groups.setdefault(trial.evaluator, {}).setdefault(trial.fingerprint or str(trial.number), trial)
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
        Effect(name, float(found[0]), _means(columns[name], target), sum(v is not None for v in columns[name]))
        for name, found in strengths.items()
    ]
    highest = np.max([found[1:] for found in strengths.values()], axis=0)
    return sorted(effects, key=lambda e: -e.strength), float(np.quantile(highest, 0.95))


def _at_equal_cost(trials: Sequence[Trial], roles: Roles) -> np.ndarray:
    """Quality without what cost explains, higher is better; logarithms where values allow them. Shape (trials,)."""
    import numpy as np

    quality = np.array([t.metrics[roles.quality.name] for t in trials], float)
    target = roles.sign * (np.log(quality) if (quality > 0).all() else quality)
    name = roles.cost.name if roles.cost else ""
    if name and all(name in t.metrics for t in trials):
        cost = np.array([t.metrics[name] for t in trials], float)
        if (cost > 0).all() and np.ptp(cost) > 0:
            x = np.log(cost)
            # A bend in the trade-off would otherwise show up as an effect of every width.
            design = np.stack([np.ones_like(x), x, x * x], axis=1)
            target = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return target - target.mean()


def _columns(trials: Sequence[Trial]) -> dict[str, list[JSON]]:
    """Values by choice, and the mean over each repeated block, for choices that have more than one value."""
    paths = sorted({path for trial in trials for path in trial.choices})
    columns: dict[str, list[JSON]] = {path: [trial.choices.get(path) for trial in trials] for path in paths}
    repeated: dict[str, list[str]] = {}
    for path in paths:
        if _INDEX.search(path):
            repeated.setdefault(_INDEX.sub(".*.", path), []).append(path)
    for name, members in repeated.items():
        rows = [[v for p in members if isinstance(v := t.choices.get(p), int | float)] for t in trials]
        if all(rows) and len(members) > 1:
            columns[name] = [sum(row) / len(row) for row in rows]
        words = sorted({str(v) for t in trials for p in members if isinstance(v := t.choices.get(p), str)})
        for word in words[:8] if len(members) > 1 else ():
            columns[f"{name} = {word}"] = [
                sum(t.choices.get(p) == word for p in members) / len(members) for t in trials
            ]
    return {name: values for name, values in columns.items() if len({repr(v) for v in values if v is not None}) > 1}


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Measure:
    """Strength of one choice for many targets at once; what depends on the choice alone is prepared once."""

    def __init__(self, values: Sequence[JSON]) -> None:
        import numpy as np

        self.live = np.array([v is not None for v in values])
        present = [v for v in values if v is not None]
        self.numeric = all(_is_number(v) for v in present)
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
    distinct = {v for v, _ in present if _is_number(v)}
    if len(distinct) > 4 and all(_is_number(v) for v, _ in present):
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


def _figure(effects: Sequence[Effect], chance: float) -> Figure:
    data: JSON = {"chance": chance, "explained": {e.name: e.strength for e in effects}}
    return Figure(_draw(effects, chance, 860), _draw(effects, chance, 360), data=data)


def _draw(effects: Sequence[Effect], chance: float, width: int) -> Markup:
    narrow = width < 500
    left = 150 if narrow else 250
    row, top = 24, 26
    canvas = Canvas(width, top + row * len(effects) + 30, "Share of quality at equal cost explained by each choice")
    highest = max(chance, *(e.strength for e in effects)) or 1.0
    scale = (width - left - 56) / highest
    for index, effect in enumerate(effects):
        y = top + index * row
        limit = 22 if narrow else 38
        name = effect.name if len(effect.name) <= limit else f"…{effect.name[-limit + 1 :]}"
        canvas.text(left - 8, y + 15, name, "label", "end")
        css = "bar candidate" if effect.strength > chance else "bar faint"
        canvas.add("rect", x=left, y=y + 3, width=max(1.0, effect.strength * scale), height=row - 7, rx=2, class_=css)
        canvas.text(left + effect.strength * scale + 6, y + 15, as_percent(effect.strength, 0), "tick")
    x = left + chance * scale
    canvas.line(x, top - 6, x, top + row * len(effects) + 4, "chance")
    canvas.text(x, top - 11, "chance", "tick", "middle")
    title = "variance explained alone" if narrow else "variance of quality at equal cost that the choice explains alone"
    canvas.text(left, top + row * len(effects) + 22, title, "axis-title")
    return canvas.render()
