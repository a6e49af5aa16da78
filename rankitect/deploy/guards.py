"""What is known of a guard beside its weights: its template and its threshold, in cards of candidates and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from rankitect.data.moderation.template import GuardTemplate
from rankitect.documents import as_kind
from rankitect.errors import AssetError

__all__ = ["GUARD", "GuardNotes"]

GUARD = "guard"
"""Among the notes of a candidate's card: what makes it a guard."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    value: float


class _Verdicts(BaseModel):
    """What is read of a guard's figures."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    metrics: dict[Literal["auc", "f1", "false_positive_rate", "recall", "threshold"], _Value]

    @model_validator(mode="after")
    def _threshold(self) -> Self:
        if "threshold" not in self.metrics:
            raise ValueError("metrics has no threshold")
        return self


@dataclass(frozen=True)
class GuardNotes:
    """What a guard is used with.

    Attributes:
        template: How exchanges become tokens.
        threshold: Log-odds from which on an exchange is called unsafe.
    """

    template: GuardTemplate
    threshold: float

    @classmethod
    def read(cls, notes: Mapping[str, Any], place: object) -> GuardNotes:
        """From the notes of a card.

        Args:
            notes: With `template` and `verdicts`.
            place: The file, for messages.

        Raises:
            AssetError: They are damaged.
        """
        template = GuardTemplate.from_json(notes.get("template"), place)
        verdicts = as_kind(notes.get("verdicts"), _Verdicts, place, AssetError)
        return cls(template, verdicts.metrics["threshold"].value)

    @classmethod
    def of_candidate(cls, card: Mapping[str, Any], place: object) -> tuple[GuardNotes, Mapping[str, Any]] | None:
        """What the card of a candidate says, checked and as it is; None where the candidate is no guard.

        Raises:
            AssetError: It is damaged.
        """
        notes = card.get("notes")
        guard = notes.get(GUARD) if isinstance(notes, Mapping) else None
        if guard is None:
            return None
        kept = as_kind(guard, dict[str, Any], place, AssetError)
        return cls.read(kept, place), {name: kept[name] for name in ("template", "verdicts")}
