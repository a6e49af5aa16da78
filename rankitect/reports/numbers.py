"""Numbers as a person reads them: short, with the unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "FILTERS",
    "FINE",
    "as_duration",
    "as_percent",
    "as_value",
    "compact",
    "interval_text",
    "is_number",
    "is_share",
    "lower_name",
    "percent_range",
    "plural",
    "possible",
    "readable_name",
    "shown_interval",
    "signed_percent",
    "unsigned_percent",
]

_SHARE_UNITS = ("share", "fraction", "ratio", "%", "percent")
FINE = ("ne", "auc", "nat")
"""Units of values in whose third or fourth decimal models differ: normalized entropy, area under the curve, nats."""
_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_ANSWERED = ("_acc", "_acc_norm", "_acc_bytes", "_exact_match")
_ABOVE_ZERO = ("entropy", "loss", "perplexity", "per_byte", "calibration", "auc", "accuracy", "_ms", *_ANSWERED)
_AT_MOST_ONE = ("auc", "accuracy", *_ANSWERED)
_FAR = 10.0
"""Relative change from which on an interval's end says nothing."""
_ACRONYMS = {"flops": "FLOPs", "kv": "KV", "ffn": "FFN", "ne": "NE", "auc": "AUC", "p50": "p50", "p99": "p99"}


def is_number(value: object) -> bool:
    """Whether a value is a number, which a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_share(unit: str) -> bool:
    """Whether a unit says that values are shares of something (1.0 is all of it), or percents."""
    return unit.strip().lower().startswith(_SHARE_UNITS)


def compact(value: float | None, digits: int = 3, trim: bool = False) -> str:
    """A number with a few significant digits and k, M, G, T where it is large; a dash for no number.

    Args:
        value: The number.
        digits: Significant digits.
        trim: Leave out zeros after the point: for the ticks of an axis, not for columns, where digits line up.
    """
    if value is None or not math.isfinite(value):
        return "–"
    for step, letter in _STEPS:
        if abs(value) >= step * 0.99995 and not (letter == "k" and abs(value) < 10_000):
            return f"{_significant(value / step, digits, trim)} {letter}"
    return _significant(value, digits if abs(value) < 1000 else 4, trim)


def _significant(value: float, digits: int, trim: bool = False) -> str:
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if trim and "." in text else text


def as_percent(share: float | None, digits: int = 1) -> str:
    """A share (1.0 is all) as a percentage; a dash for no number."""
    if share is None or not math.isfinite(share):
        return "–"
    text = f"{100 * share:.{digits}f}"
    return (text.removesuffix(".0") if digits == 1 else text) + "%"


def signed_percent(share: float) -> str:
    """A relative change with its sign, with two digits that count where it is small: +5.0%, −0.64%."""
    size = abs(share)
    digits = 0 if size >= 10 else 1 if size >= 0.01 or not share else 2
    return f"{'−' if share < 0 else '+'}{100 * size:,.{digits}f}%"


def percent_range(low: float, high: float) -> str:
    """An interval of a relative change. Where data decide nothing its end is anywhere: beyond 1,000% it is not told."""
    return f"{signed_percent(low)} to {'over ' if high > _FAR else ''}{signed_percent(min(high, _FAR))}"


def possible(name: str, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """A metric's interval without what the metric cannot be, which holds the truth as often: NE is not below 0.

    Args:
        name: The metric's.
        ends: Lower and upper end.
    """
    if ends is None or not name.endswith(_ABOVE_ZERO):
        return ends
    most = 1.0 if name.endswith(_AT_MOST_ONE) else math.inf
    return max(ends[0], 0.0), min(ends[1], most)


def as_duration(seconds: float | None) -> str:
    """Seconds as "12.3 s", "4 min 05 s" or "2 h 07 min"."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if 0 < seconds < 0.1:
        return f"{_significant(1000 * seconds, 2, trim=True)} ms"
    if seconds < 60:
        return f"{_significant(seconds, 3, trim=True)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def as_value(value: float | None, unit: str) -> str:
    """A value in its unit: shares as percentages, seconds as durations, bytes in MiB, the rest compactly."""
    if value is None or not math.isfinite(value):
        return "–"
    name = unit.strip()
    if name.lower() in ("%", "percent"):
        return as_percent(value / 100)
    if is_share(name):
        return as_percent(value)
    if name.lower() in ("s", "second", "seconds"):
        return as_duration(value)
    if name.lower() in ("b", "byte", "bytes"):
        for step, word in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
            if abs(value) >= step:
                return f"{_significant(value / step, 3)} {word}"
        return f"{value:g} B"
    if name.lower() in FINE:
        return f"{value:.4f}" + (f" {name}" if name.islower() else "")
    if name == "count":
        return compact(value, trim=True)
    number = compact(value)
    # "perplexity" is a name that metrics repeat as their unit; beside the metric's name it would only be noise.
    if not name or name in ("1", "perplexity", "ppl"):
        return number
    # A prefix joins a symbol (GFLOPs), but not a word (M tokens).
    return f"{number}{name}" if number[-1:].isalpha() and not name.islower() else f"{number} {name}"


def readable_name(name: str) -> str:
    """A metric's or choice's identifier as words: `block_flops` is "Block FLOPs", `prefill_ms` "Prefill latency"."""
    if name.endswith("_ms"):
        name = name.removesuffix("_ms")
        name = name if "latency" in name else f"{name}_latency"
    words = [_ACRONYMS.get(word.lower(), word) for word in name.replace("-", "_").split("_") if word]
    if not words:
        return name
    first = words[0]
    return " ".join([first if first in _ACRONYMS.values() else first[:1].upper() + first[1:], *words[1:]])


def plural(count: int, noun: str, many: str | None = None) -> str:
    """A count with its noun: "1 trial", "2 trials"."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def interval_text(ends: tuple[float, float] | None, unit: str) -> str:
    """An interval of a value in its unit; "" where there is none."""
    return " to ".join(as_value(end, unit) if unit.lower() in FINE else compact(end) for end in ends or ())


def lower_name(name: str) -> str:
    """A name as it stands within a sentence: "Block FLOPs" is "block FLOPs", "KV cache bytes" stays."""
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def unsigned_percent(share: float) -> str:
    """The size of a relative change, for a sentence that says its direction: 5.0%."""
    return signed_percent(abs(share)).lstrip("+")


def shown_interval(change: Mapping[str, Any]) -> str:
    """The interval of a relative change (`low`, `high`), within a sentence; or that none is worth showing (`vague`)."""
    if change["vague"]:
        return "two training seeds: no interval"
    return f"95% interval {percent_range(change['low'], change['high'])}"


FILTERS: dict[str, Callable[..., str]] = {
    "compact": compact,
    "duration": as_duration,
    "interval": shown_interval,
    "lower_name": lower_name,
    "percent": as_percent,
    "plural": plural,
    "readable": readable_name,
    "signed": signed_percent,
    "span": lambda ends: percent_range(*ends),
    "unsigned": unsigned_percent,
    "value": as_value,
}
"""What a template formats numbers and names with."""
