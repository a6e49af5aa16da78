"""What a search over language models writes of a model: a candidate's folder, a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankitect.config.parts import Parts
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.checkpoints.precisions import GGUFPrecision
    from rankitect.models.supernet import Standalone

__all__ = ["WritesModels"]


class WritesModels:
    """Base of a task whose models go with a backbone's tokenizer, and with what its files say of its use.

    Attributes:
        checkpoint: The backbone.
    """

    checkpoint: DecoderCheckpoint
    _parts: Parts

    def save_candidate(
        self,
        folder: Path,
        architecture: Architecture,
        model: Standalone,
        space: SearchSpace | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Write a language model with its tokenizer and what its backbone's files say of its use.

        Args:
            folder: Where to.
            architecture: What was searched.
            model: Its model; of another architecture where stages of a recipe have changed that.
            space: Of the model, where stages have changed blocks; by default that which is searched.
            notes: More plain data for the card.
        """
        from rankitect.models.candidate import save_candidate

        known, notes = self.checkpoint, {"backbone": self.checkpoint.source, **(notes or {})}
        return save_candidate(
            folder,
            space or self._parts.graph_space,
            model.plan.architecture or architecture,
            model,
            known.tokenizer,
            config=known.config,
            usage=known.usage,
            notes=notes,
            searched=architecture,
        )

    def check_gguf(self, precision: GGUFPrecision) -> None:
        """See `rankitect.recipes.gguf.WritesGGUF`."""
        from rankitect.data.table_writing import tables_of
        from rankitect.models.checkpoints.precisions import require_quantizer

        require_quantizer(precision)
        tables_of(self.checkpoint.tokenizer, self.checkpoint.config.vocab)

    def save_gguf(
        self, path: Path, space: SearchSpace, architecture: Architecture, model: Standalone, precision: GGUFPrecision
    ) -> None:
        """See `rankitect.recipes.gguf.WritesGGUF`."""
        from rankitect.models.candidate.gguf import save_gguf

        checkpoint = self.checkpoint
        save_gguf(
            path,
            space,
            architecture,
            model,
            checkpoint.tokenizer,
            config=checkpoint.config,
            usage=checkpoint.usage,
            precision=precision,
        )
