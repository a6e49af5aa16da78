"""The order of a page: what leads, what heads it, and what is folded away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankitect.reports.cards import JSON, Card
from rankitect.reports.common import Lead

__all__ = ["Fold", "Layout", "layout_of"]

_HEADS: dict[Lead, tuple[str, ...]] = {
    "production": ("launch",),
    "search": ("budgets", "verdict", "front", "candidates"),
}
"""The cards whose finding may head a page; the first that is there and has something to say does."""


@dataclass(frozen=True)
class Fold:
    """Cards that have nothing to say, for one reason.

    Attributes:
        cards: The cards.
        why: Their reason.
    """

    cards: tuple[Card, ...]
    why: str


@dataclass(frozen=True)
class Layout:
    """What a page shows, in order.

    Attributes:
        head: The card whose finding stands at the head of the page.
        shown: The cards that are shown whole.
        folds: The others, which stand in one line.
    """

    head: Card
    shown: tuple[Card, ...]
    folds: tuple[Fold, ...]

    @property
    def folded(self) -> tuple[Card, ...]:
        """All cards that are folded away, in order."""
        return tuple(card for fold in self.folds for card in fold.cards)

    def as_json(self) -> dict[str, JSON]:
        """As report.json has it: the cards by their ids."""
        return {
            "head": self.head.id,
            "shown": [card.id for card in self.shown],
            "folded": [{"cards": [card.id for card in fold.cards], "why": fold.why} for fold in self.folds],
        }


def layout_of(cards: Sequence[Card], lead: Lead) -> Layout:
    """Lay out the cards of a page.

    Args:
        cards: All of them, in the order of the page.
        lead: What the page leads with.
    """
    by_id = {card.id: card for card in cards}
    heads = [by_id[id_] for id_ in _HEADS[lead] if id_ in by_id]
    head = next((card for card in heads if not card.idle), heads[-1])
    whys: dict[str, list[Card]] = {}
    for card in cards:
        if card.idle and card is not head:
            whys.setdefault(card.reason, []).append(card)
    folds = tuple(Fold(tuple(folded), why) for why, folded in whys.items())
    shown = tuple(card for card in cards if not card.idle or card is head)
    return Layout(head, shown, folds)
