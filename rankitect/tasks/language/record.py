"""What a report needs to know of the text of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.data.tokens import TokenizedText

__all__ = ["record_text"]


def record_text(text: TokenizedText, backbone: str, parts: Parts) -> None:
    """Leave the facts of a text in the run folder.

    Args:
        text: The text.
        backbone: Name of what candidates are pruned from.
        parts: The study's.

    Raises:
        OSError: The disk is full.
    """
    from rankitect.production.evidence import save_facts

    splits = {name: {"tokens": s.tokens, "documents": len(s.documents)} for name, s in text.splits.items()}
    about = {"data": text.name, "fingerprint": text.fingerprint, "splits": splits, "backbone": backbone}
    save_facts(parts.folder, {**about, "recipe": _described(parts)})


def _described(parts: Parts) -> str:
    """The recipe in words: its stages in order, with their training tokens."""
    tokens = {name: stage.provenance().get("tokens") for name, stage in parts.stages.items()}
    return ", ".join(f"{name} ({n:,} tokens)" if n else name for name, n in tokens.items()) or "none"
