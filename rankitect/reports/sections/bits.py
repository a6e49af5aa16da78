"""The bits of weights that a search chose, layer by layer, for the models on the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.models.families import axes
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.comparison import best_of
from rankitect.reports.figures.bits import bits_figure
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value
from rankitect.reports.section import Facts, Section
from rankitect.space.repeats import RUNS, repeats
from rankitect.study.summary import CandidateSummary

_KINDS = {axes.ATTENTION_BITS: "attention", axes.FFN_BITS: "feed-forward"}
_ENDS = {axes.EMBED_BITS: "embedding", axes.HEAD_BITS: "head"}
_DRAWN = 6
"""Models whose bits are drawn."""


class BitsSection(Section):
    """Bits by layer; only in the report of a search in which bits are choices."""

    id, short, order = "bits", "Bits", 185

    def facts(self, material: Material) -> Facts | None:
        """The bits of the candidates; None where bits were not open."""
        candidates = [c for c in material.run.summary.pareto if any(axes.is_bits(path) for path in c.choices)]
        if not candidates:
            return None
        best = best_of(material.run, material.comparisons)
        first = best if best in candidates else candidates[0]
        assert first is not None
        shown = [first, *(c for c in candidates if c is not first)][:_DRAWN]
        layers = {f"candidate {c.rank}": _by_layer(c.choices) for c in shown}
        own = layers[f"candidate {first.rank}"]
        words = {
            "rank": first.rank,
            "counts": {kind: _counts(bits) for kind, bits in own.items()},
            "ends": {name: first.choices[path] for path, name in _ENDS.items() if path in first.choices},
            "average": _average(first),
            "drawn": len(shown),
        }
        tables = (_summary(candidates), _table(first, own))
        return Facts(Status.PASS, words, tables, (bits_figure(layers, "Bits of each layer's weights."),))


def _by_layer(choices: Mapping[str, Any]) -> dict[str, list[int | None]]:
    """Bits of each layer by kind; None for a layer that does not run, or has no such weights."""
    of_layers = repeats(choices)
    size = max(of_layers, default=-1) + 1
    runs = [of_layers.get(i, {}) for i in range(size)]
    return {
        kind: [own.get(name) if own.get(RUNS, 1) else None for own in runs]
        for name, kind in _KINDS.items()
        if any(name in own for own in runs)
    }


def _counts(bits: Sequence[int | None]) -> dict[str, int]:
    """How many layers have each number of bits."""
    return {str(b): bits.count(b) for b in sorted({b for b in bits if b is not None})}


def _average(candidate: CandidateSummary) -> float | None:
    """Bits of a weight in the file, scales included."""
    size, count = candidate.metrics.get("weight_bytes"), candidate.metrics.get("params")
    return 8 * size.value / count.value if size is not None and count is not None and count.value else None


def _summary(candidates: Sequence[CandidateSummary]) -> Table:
    columns = ("Candidate", "Bits a weight", "Program", *(n.capitalize() for n in (*_ENDS.values(), *_KINDS.values())))
    return Table(columns, tuple(_row(c) for c in candidates), caption="Bits of the candidates")


def _row(candidate: CandidateSummary) -> tuple[Cell, ...]:
    average, size = _average(candidate), candidate.metrics.get("program_bytes")
    layers = _by_layer(candidate.choices)
    ends = [candidate.choices.get(path) for path in _ENDS]
    return (
        Cell(str(candidate.rank), candidate.rank),
        DASH if average is None else Cell(f"{average:.2f}", average),
        DASH if size is None else Cell(as_value(size.value, size.unit), size.value),
        *(DASH if bits is None else Cell(str(bits), bits) for bits in ends),
        *(Cell(_text(_counts(layers.get(kind, [])))) for kind in _KINDS.values()),
    )


def _text(counts: Mapping[str, int]) -> str:
    """Such as "12 of 4 bits, 3 of 8"."""
    return ", ".join(f"{n} of {bits}{' bits' if i == 0 else ''}" for i, (bits, n) in enumerate(counts.items())) or "–"


def _table(candidate: CandidateSummary, layers: Mapping[str, Sequence[int | None]]) -> Table:
    size = max((len(bits) for bits in layers.values()), default=0)
    rows = tuple(
        (Cell(str(i), i), *(DASH if (b := bits[i]) is None else Cell(str(b), b) for bits in layers.values()))
        for i in range(size)
    )
    columns = ("Layer", *(kind.capitalize() for kind in layers))
    return Table(columns, rows, caption=f"Bits by layer of candidate {candidate.rank}")


SECTION = BitsSection()
