"""Language models judged by the text that they foretell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rankitect.contracts import MetricSpec
from rankitect.tasks.language.models import LanguageModels
from rankitect.tasks.language.settings import LanguageConfig
from rankitect.training.placement import placement

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.data.windows import TextWindows
    from rankitect.metrics.language import TextQuality
    from rankitect.training.settings import TextTraining
    from rankitect.training.text import NextToken

__all__ = ["Language"]


class Language(LanguageModels):
    """Next-token prediction, with a backbone to inherit from and to distil from.

    Attributes:
        config: The keys of `task`.
    """

    Config = LanguageConfig
    config: LanguageConfig

    def _opened(self) -> TextWindows:
        from rankitect.tasks.language.text import open_windows

        return open_windows(self.checkpoint, self.config, self._parts.config.seed)

    def batch_at(self, split: str, step: int) -> torch.Tensor:
        """The batch of a step, as large as those of the recipe: token ids [B, T + 1] int64."""
        recipe = self.searching.objective("train").config
        return placement().move(self.data.batch_at(split, step, batch=recipe.batch, context=recipe.context))

    def next_token(self, config: TextTraining, split: str = "train") -> NextToken:
        """Batches of the text, and the cross-entropy of its next tokens."""
        from rankitect.training.text import NextToken

        return NextToken(self.data, config, split=split)

    def sample_text(self) -> torch.Tensor:
        """Windows of the test text, [W, T + 1] int64: what a program's quality is compared with its model's on."""
        return self.data.held_out()

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the next tokens, nats a token."""
        from rankitect.metrics.language import next_token_loss

        with placement().computing():
            return next_token_loss(model, batch.to(placement().of(model)))

    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> TextQuality:
        """Perplexity and bits per byte on a split; `sample` counts windows, by default as configured."""
        from rankitect.metrics.language import text_quality

        usual = {"test": self.config.test_windows, "search": self.config.search_windows}.get(split)
        with placement().computing():
            return text_quality(
                model, self.data, split, count=sample or usual, check=check, device=placement().of(model)
            )

    def quality_specs(self, split: str) -> list[MetricSpec]:
        """Perplexity; on the test split bits per byte as well."""
        perplexity = MetricSpec("perplexity", "", "min", "quality")
        return [perplexity, MetricSpec("bits_per_byte", "bit/byte", "min", "quality")][: 2 if split == "test" else 1]
