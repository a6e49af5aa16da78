"""The text of a run: opened for training and measuring, and what a report needs to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rankitect.errors import ConfigError, DataError, safe, short

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.data.tokens import TokenizedText
    from rankitect.data.windows import TextWindows
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.checkpoints.usage import Usage
    from rankitect.tasks.language.settings import LanguageConfig

__all__ = ["KnowsItsUse", "first_token", "open_windows", "record_text"]


class KnowsItsUse(Protocol):
    """A model with what its files say of its use: a checkpoint, or a candidate."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        ...

    @property
    def usage(self) -> Usage:
        """How it is used."""
        ...


def first_token(checkpoint: KnowsItsUse, wanted: bool | None) -> int | None:
    """The token that sequences begin with, or None.

    Args:
        checkpoint: The model.
        wanted: Whether there is to be one; None as the model was trained, which its tokenizer's files say.

    Raises:
        ConfigError: It is wanted, and the tokenizer has none.
    """
    if wanted is None:
        return checkpoint.usage.first_token(checkpoint.tokenizer)
    known = checkpoint.tokenizer.special_ids.get("bos")
    if wanted and known is None:
        raise ConfigError("begin=true: the backbone's tokenizer has no first token (bos).")
    return known if wanted else None


def open_windows(checkpoint: DecoderCheckpoint, config: LanguageConfig, seed: int) -> TextWindows:
    """The text that a configuration names, in windows.

    Args:
        checkpoint: The backbone; its tokenizer counts, and what it was trained to begin with.
        config: The keys of `task`.
        seed: Of the order of training windows.

    Raises:
        ConfigError: Windows are to begin with a token that the tokenizer does not have.
        DataError: The text cannot be read, or is too short; names `task.text`.
    """
    from rankitect.data.windows import TextWindows

    begin = first_token(checkpoint, config.begin)
    try:
        data = TextWindows.open(
            checkpoint.tokenizer,
            config.text,
            context=config.context,
            seed=seed,
            split_seed=config.split_seed,
            field=config.field,
            limit=config.text_limit,
            begin=begin,
        )
        for split in ("train", "search", "test"):
            data.require(split, 1, config.context)
    except DataError as error:
        raise DataError(f"task.text={short(safe(config.text), 80)}: {error}") from error
    return data


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
    named = (f"{name} ({n:,} tokens)" if isinstance(n, int) and n else name for name, n in tokens.items())
    return ", ".join(named) or "none"  # the tokens of `prune_vocabulary` are those that it keeps
