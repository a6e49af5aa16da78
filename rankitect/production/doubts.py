"""Doubts about the data that a comparison rests on: each names the feature, what was found, and what to do.

Whoever sees the data (a task, when it records a run's facts) or the results (a report) raises them; nothing may be
called good beside a severe one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FEW_CLICKS", "KINDS", "Doubt", "Kind", "doubts_from", "ranked"]

FEW_CLICKS = 100
"""Of the rarer label; with so many, predicted over observed clicks is known to about 20%."""


@dataclass(frozen=True)
class Kind:
    """A kind of doubt.

    Attributes:
        title: What it is called.
        sentence: What was found, with places for the doubt's values.
        remedy: What to do about it.
    """

    title: str
    sentence: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    "leak": Kind(
        "leaked label",
        "it alone tells the labels of the test rows apart with an AUC of {auc:.4f}",
        "leave it out of the schema, unless it is known before the row is served",
    ),
    "leak_together": Kind(
        "leaked label",
        "{model} has an AUC of {auc:.4f} on the test rows, and no single feature has so large a one alone",
        "look for features that give the label away together, or for test rows among the training rows",
    ),
    "clock": Kind(
        "time as a feature",
        "it moves with the row's own time (rank correlation {correlation:.3f}): a clock, a counter, or the time of "
        "something that comes after the row",
        "leave it out, or use its difference to the row's time",
    ),
    "beyond": Kind(
        "values beyond training",
        "{share:.0%} of the test rows are outside of the range of the training rows",
        "check its unit; leave a time or a counter out",
    ),
    "unknown": Kind(
        "unknown ids",
        "{share:.0%} of the test rows have a value that training rows do not have or have too rarely (validation: "
        "{validation:.0%})",
        "lower task.data.min_count, hash it, train on a time nearer to the test, or leave it out",
    ),
    "missing": Kind(
        "missing values that come and go",
        "missing in {train:.0%} of the training rows and {test:.0%} of the test rows",
        "find out since when it is logged, and by whom",
    ),
    "constant": Kind(
        "empty column",
        "every training row has the same value, or none",
        "check the column's name and type, or leave it out",
    ),
    "few_clicks": Kind(
        "too few clicks",
        "the {split} split has {clicks:,} of the rarer label among {rows:,} rows",
        "give more rows, or a larger share to the split (task.data.shares)",
    ),
    "label_shift": Kind(
        "labels that shift",
        "{train:.2%} of the training rows are clicks and {test:.2%} of the test rows",
        "check how the log was sampled and how late clicks are joined",
    ),
    "copies": Kind(
        "rows of the test among training rows",
        "{share:.0%} of the test rows are among the training rows, value for value",
        "remove the copies, or split by user or by time (task.data.split)",
    ),
    "window": Kind(
        "impossible times",
        "{window}",
        "give the unit or the format of the time (task.data.table.timestamp)",
    ),
    "base_rate": Kind(
        "no better than the base rate",
        "{candidate} has a normalized entropy of {ours:.4f} and {production} one of {theirs:.4f}: one constant "
        "prediction, the share of clicks in the test rows, would be better than both",
        "see the other warnings for a cause; else train longer, or on a time nearer to the test",
    ),
}
"""Every kind by its key."""


@dataclass(frozen=True)
class Doubt:
    """Something about the data that a reader must know before any number.

    Attributes:
        kind: A key of `KINDS`.
        feature: The feature, or what else it is about.
        severe: Whether no quality may be called good beside it.
        values: What was measured, for the sentence.
    """

    kind: str
    feature: str
    severe: bool
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is called."""
        return KINDS[self.kind].title

    @property
    def found(self) -> str:
        """What was found, in a sentence without its end."""
        return KINDS[self.kind].sentence.format_map(dict(self.values))

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].remedy

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"kind": self.kind, "feature": self.feature, "severe": self.severe, "values": dict(self.values)}


def doubts_from(recorded: object) -> list[Doubt]:
    """The doubts that a run recorded (`to_json`); what is not understood, of another version, is left out."""
    doubts = []
    for item in recorded if isinstance(recorded, list) else []:
        try:
            doubt = Doubt(str(item["kind"]), str(item["feature"]), bool(item["severe"]), dict(item["values"]))
            _ = doubt.found
        except (KeyError, TypeError, ValueError):
            continue
        doubts.append(doubt)
    return doubts


def ranked(doubts: Iterable[Doubt]) -> list[Doubt]:
    """Severe ones first, then by kind, else in the order in which they were raised."""
    order = list(KINDS)
    return sorted(doubts, key=lambda doubt: (not doubt.severe, order.index(doubt.kind)))
