"""Guards as pruned versions of a pretrained language model, which judge an exchange by the next token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankitect.contracts import JSON, ExportsPrograms, Spent, offers
from rankitect.contracts.stage import StageMeasure
from rankitect.deploy.guards import GUARD
from rankitect.metrics.verdicts import VerdictQuality, verdict_specs
from rankitect.tasks.language.models import ComparableQuality, LanguageModels
from rankitect.tasks.moderation.settings import ModerationConfig
from rankitect.training.placement import placement
from rankitect.training.settings import TextTraining

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import MetricSpec
    from rankitect.data.moderation.data import GuardData
    from rankitect.data.windows import TextWindows
    from rankitect.deploy.generate import Generator
    from rankitect.deploy.quality import ProgramQuality
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone
    from rankitect.training.settings import DistilConfig
    from rankitect.training.verdicts import VerdictBatch, VerdictDistillation, VerdictLoss

__all__ = ["Moderation"]

_SAMPLED = 16
"""Windows of conversations that are text for whoever asks for text."""


class Moderation(LanguageModels):
    """Verdicts on exchanges, with a backbone to prune.

    Attributes:
        config: The keys of `task`.
        exchanges: What is judged, in the template.
        data: The same conversations as text, for calibration.
    """

    Config = ModerationConfig
    config: ModerationConfig
    exchanges: GuardData

    def initial(self, architecture: Architecture, seed: int) -> Standalone:
        """The model of an architecture as a recipe begins with it. The whole backbone is taken as it was read: nothing
        is left out of it that calibration would have to choose."""
        if self._adopted is None and architecture == self.reference:
            return placement().place(self._pretrained.as_read(architecture))
        return super().initial(architecture, seed)

    def check(self, parts: Parts) -> None:
        """Raise what can be known only now; also that a device's programs could not hold an exchange."""
        from rankitect.recipes.export import Export
        from rankitect.tasks.moderation.programs import check_capacity

        device, left = parts.device, any(isinstance(stage, Export) for stage in parts.stages.values())
        exports = offers(device, ExportsPrograms) and not left
        if device is not None and exports:
            check_capacity(self.exchanges, device.context, "device.context")
        super().check(parts)

    # --- data, loss and quality -------------------------------------------------------------------------------------
    def _opened(self) -> TextWindows:
        """The conversations as text; see `LanguageModels`."""
        from rankitect.tasks.moderation.opening import open_exchanges

        self.exchanges = open_exchanges(self.checkpoint, self.config, self._parts.config.seed)
        windows = self.exchanges.windows(self.config.context)
        for split in ("train", "search", "test"):
            windows.require(split)
        return windows

    @property
    def verdict_ids(self) -> tuple[int, ...]:
        """The tokens of the verdicts, safe first."""
        return self.exchanges.template.verdicts.ids

    def batch_at(self, split: str, step: int) -> VerdictBatch:
        """The exchanges of a step, as many as the recipe's."""
        return self.next_token(self.searching.objective("train").config, split).batch_at(step)

    def next_token(self, config: TextTraining, split: str = "train") -> VerdictLoss:
        """Batches of exchanges, and the cross-entropy of their verdicts."""
        from rankitect.training.verdicts import VerdictLoss

        return VerdictLoss(self.exchanges, config, seed=self._parts.config.seed, split=split)

    def distillation(
        self, config: DistilConfig, split: str = "train", teacher: nn.Module | None = None
    ) -> VerdictDistillation:
        """Batches and loss of a distillation of verdicts.

        Args:
            config: Its settings.
            split: Of the exchanges.
            teacher: Whom to learn from; None for the backbone.
        """
        from rankitect.training.verdicts import VerdictDistillation

        seed = self._parts.config.seed
        return VerdictDistillation(teacher or self._pretrained.teacher, self.exchanges, config, seed=seed, split=split)

    def sample_text(self) -> torch.Tensor:
        """Windows of the test conversations, [W, T + 1] int64."""
        context = self.config.context
        windows = min(_SAMPLED, self.data.require("test", 1, context).windows(context))
        return self.data.batch_at("test", 0, batch=windows, context=context)

    def loss(self, model: nn.Module, batch: VerdictBatch) -> torch.Tensor:
        """Mean cross-entropy of the verdicts, nats an exchange."""
        with placement().computing():
            return self.next_token(TextTraining()).loss(model, batch)

    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> VerdictQuality:
        """AUC, F1 and false positive rate on a split, with the threshold of the validation split; `sample` counts
        exchanges, by default as configured."""
        from rankitect.tasks.moderation.quality import verdict_quality

        usual = {"test": self.config.test_exchanges, "search": self.config.search_exchanges}
        with placement().computing():
            return verdict_quality(
                model,
                self.exchanges,
                split,
                most=sample or usual.get(split),
                validation=usual["search"],
                check=check,
                device=placement().of(model),
            )

    def quality_specs(self, split: str) -> list[MetricSpec]:
        """AUC; on the test split F1 and the false positive rate as well."""
        return verdict_specs(split)

    def check_program(self, prompt: int, capacity: int) -> None:
        """Refuse a program that cannot hold an exchange; see `rankitect.recipes.export.JudgesPrograms`."""
        from rankitect.tasks.moderation.programs import check_capacity

        check_capacity(self.exchanges, capacity)

    def judge_program(
        self, path: Path, generator: Generator, model: Standalone, floats: nn.Module | None
    ) -> tuple[ProgramQuality, Mapping[str, JSON]]:
        """The verdicts of a program beside those of its model, and its speed."""
        from rankitect.tasks.moderation.programs import judge_of

        return judge_of(self.exchanges, self.config.search_exchanges)(path, generator, model, floats)

    def candidate_notes(self, quality: ComparableQuality) -> dict[str, Any]:
        """Template and verdicts: what its program needs, and its figures, in the run or out of it."""
        notes = {"template": self.exchanges.template.to_json()}
        return {GUARD: notes | ({"verdicts": quality.to_json()} if isinstance(quality, VerdictQuality) else {})}

    def stage_measure(self, check: Callable[[], None]) -> StageMeasure:
        """What a guard is asked after each stage of a recipe: its verdicts on the test split, with the threshold chosen
        anew, and its size.

        Args:
            check: Called before every forward; may raise, to stop.
        """
        described = [self.exchanges.fingerprint, self.config.test_exchanges, self.config.search_exchanges]
        key = hashlib.sha256(json.dumps(described).encode()).hexdigest()

        def of(model: Any, space: SearchSpace, architecture: Architecture) -> tuple[JSON, Spent]:
            quality = self.quality(model, "test", check=check)
            sizes = {kind: space.cost(architecture, kind) for kind in ("params", "weight_bytes")}
            return {"quality": quality.to_json(), **sizes}, Spent.evaluation(quality.amount, self.unit)

        return StageMeasure(key, of)

    def write_stages(
        self, folder: Path, stages: Sequence[tuple[str, Any]], program: Mapping[str, Any] | None
    ) -> dict[str, str]:
        """Write what was measured after each stage; see `card.write_stages`."""
        from rankitect.tasks.moderation.card import write_stages

        return write_stages(folder, stages, self.plain.to_json(), program)

    @cached_property
    def plain(self) -> VerdictQuality:
        """What character n-grams with logistic regression reach on the test split."""
        from rankitect.tasks.moderation.plain import plain_quality

        return plain_quality(self.exchanges, "test", self.config.test_exchanges)
