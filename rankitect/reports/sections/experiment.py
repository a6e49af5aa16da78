"""The A/B test: units, power, sample sizes and days."""

from __future__ import annotations

from rankitect.production.experiment import Variance, design, detectable, variance_of
from rankitect.production.settings import ExperimentConfig
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_percent, compact, signed_percent
from rankitect.reports.section import Facts, ProductionSection

_TRAFFIC = (1_000, 10_000, 100_000, 1_000_000)
"""Units a day that lengths are shown for where the configuration does not say how many there are."""
_LONG = 90
"""Days beyond which a test is too long to be believed."""
_ENOUGH = 1000
"""Units from which on their variance is known well enough to plan with."""


class ExperimentSection(ProductionSection):
    """The plan of the test that follows a launch verdict."""

    id, short, order = "experiment", "A/B test", 80
    judges_quality = True

    def facts_of(self, case: Case) -> Facts:
        """Plan the test with the variance of the test rows, or with that of the configuration."""
        config = case.run.settings.experiment
        variance = _variance(case, config)
        if variance is None:
            labelled = case.evidence is not None and case.evidence.labels is not None
            return Facts(Status.WARN, {"variance": None, "labelled": labelled}, (_design(config),))
        planned = design(variance, config)
        traffic = (config.units_a_day,) if config.units_a_day is not None else _TRAFFIC
        words = {"variance": variance, "config": config, "first": planned.needed[0]}
        needed = Table(
            (
                "Relative effect",
                f"{config.unit.capitalize()}s in both arms",
                "… with CUPED",
                *(f"Days at {compact(a_day, trim=True)} {config.unit}s a day" for a_day in traffic),
            ),
            tuple(_needed(*row, traffic) for row in planned.needed),
            caption="Sample size and length",
        )
        fortnight = Table(
            (f"{config.unit.capitalize()}s after 14 days", "Smallest effect found"),
            tuple(_fortnight(14 * a_day, variance, config) for a_day in traffic),
            caption="What two weeks can show, without CUPED",
            sortable=False,
        )
        status = Status.PASS if variance.units >= _ENOUGH or not variance.units else Status.WARN
        return Facts(status, words, (needed, fortnight, _planned_with(variance, config.unit), _design(config)))


def _variance(case: Case, config: ExperimentConfig) -> Variance | None:
    """The variance of a unit: of the test rows, else as the configuration gives it, else unknown."""
    measured = None if case.evidence is None else variance_of(case.evidence, config)
    if measured is None and config.rate is not None and config.variance is not None:
        return Variance(config.rate, config.variance, 0, None, "given in report.experiment")
    return measured


def _needed(effect: float, plain: int, reduced: int | None, traffic: tuple[int, ...]) -> tuple[Cell, ...]:
    needed = plain if reduced is None else reduced
    return (
        Cell(signed_percent(effect), effect),
        Cell(f"{plain:,}", plain),
        DASH if reduced is None else Cell(f"{reduced:,}", reduced),
        *(_days_cell(needed, a_day) for a_day in traffic),
    )


def _days_cell(needed: int, a_day: int) -> Cell:
    days = -(-needed // a_day)
    weeks = 7 * -(-days // 7)
    return Cell(f"{weeks:,}", weeks, tone="bad" if weeks > _LONG else "", note="whole weeks" if weeks != days else "")


def _fortnight(units: int, variance: Variance, config: ExperimentConfig) -> tuple[Cell, Cell]:
    effect = detectable(units, variance.unit, config) / variance.rate
    return Cell(f"{units:,}", units), Cell(as_percent(effect, 2))


def _planned_with(variance: Variance, unit: str) -> Table:
    rows = [
        (Cell("Rate of production"), Cell(as_percent(variance.rate, 2), variance.rate)),
        (Cell(f"Variance of a {unit}"), Cell(compact(variance.unit), variance.unit)),
        (Cell("Source"), Cell(variance.source)),
    ]
    if variance.correlation is not None:
        rows.append((Cell("Correlation with the time before (CUPED)"), Cell(f"{variance.correlation:.2f}")))
    return Table(("Planned with", "Value"), tuple(rows), sortable=False)


def _design(config: ExperimentConfig) -> Table:
    rows = (
        ("Unit of randomisation", config.unit),
        ("Primary metric", config.metric),
        ("Level, two-sided", f"{config.alpha:g}"),
        ("Power", f"{config.power:g}"),
        ("Share of the candidate", as_percent(config.allocation)),
        ("First", "A/A test of at least a week, same split"),
        ("Sample ratio mismatch", "chi-squared test of the arms' sizes; stop below p = 0.001"),
        ("Stopping", "fixed length, one look; guardrails may stop it earlier"),
    )
    return Table(("Design", ""), tuple((Cell(k), Cell(v)) for k, v in rows), sortable=False)


SECTION = ExperimentSection()
