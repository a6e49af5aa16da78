"""Distillation from the backbone: how candidates are healed, and the losses that a search trains on and chooses by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.config.schema import HealConfig
    from rankitect.contracts import Spent
    from rankitect.data.windows import TextWindows
    from rankitect.graph import SearchSpace
    from rankitect.tasks.language.pretrained import Pretrained
    from rankitect.training.distill import Distillation
    from rankitect.training.distill import HealConfig as Settings

__all__ = ["SEARCH_ORDER", "Healing", "expected_rises", "healing_settings"]

SEARCH_ORDER = 1_000_003
"""Added to the seed for the order of training text during a search: healing sees it in another order."""


class Healing:
    """Distillation from the whole backbone, on training text and on text that weights do not see.

    Args:
        pretrained: The backbone.
        data: The text.
        parts: The study's.
    """

    def __init__(self, pretrained: Pretrained, data: TextWindows, parts: Parts) -> None:
        self._pretrained, self._data, self._parts = pretrained, data, parts

    @cached_property
    def train(self) -> Distillation:
        """On training text: heals every candidate."""
        return self._distillation("train")

    @cached_property
    def search(self) -> Distillation:
        """On the search split: architectures are chosen by it."""
        return self._distillation("search")

    def _distillation(self, split: str) -> Distillation:
        from rankitect.training.distill import Distillation

        backbone = self._pretrained.backbone
        teacher = backbone.supernet.activate(backbone.largest)
        settings = healing_settings(self._parts.config.heal, self._parts.config.seed)
        fingerprint = hashlib.sha256(self._pretrained.fingerprint.encode()).hexdigest()
        return Distillation(teacher, self._data, settings, fingerprint=fingerprint, split=split)

    def search_loss(self, forward: Callable[[torch.Tensor], torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss on the search split's batch of a step, and its tokens."""
        batch = self.search.batch_at(step)
        return self.search.loss(forward, batch), len(batch)

    def train_loss(self, model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        """The loss on the training batch of a step, and its tokens."""
        batch = self.train.batch_at(step, self._parts.config.seed + SEARCH_ORDER)
        return self.train.loss(model, batch), len(batch)

    def measured_rises(self, path: str, values: Sequence[Any], whole: dict[str, Any]) -> torch.Tensor:
        """The distillation loss with one value of the backbone changed, over that of the backbone, for each value.

        Args:
            path: The choice.
            values: Its values.
            whole: The choices of the backbone.
        """
        import torch

        batch, space, supernet = self.train.batch_at(0), self._parts.space, self._pretrained.backbone.supernet
        rises = []
        with torch.inference_mode():
            for value in values:
                model = supernet.activate(space.architecture({**whole, path: value}))
                rises.append(float(self.train.loss(model, batch)))
        # The backbone's own loss is 0 but for the sampled tail of the teacher's distribution.
        return torch.tensor(rises) - rises[list(values).index(whole[path])]


def expected_rises(
    pretrained: Pretrained, healing: Healing, space: SearchSpace
) -> tuple[dict[str, torch.Tensor], Spent]:
    """How much the loss is expected to rise at each value of each choice of the backbone, with all else kept.

    Second-order estimates for the choices of layers; measured on a batch of training text for the others.

    Returns:
        Nats a token by choice, and what measuring cost.
    """
    from rankitect.contracts import Spent
    from rankitect.models.backbone import largest
    from rankitect.tasks.language.prior import second_order

    rises, measured = second_order(pretrained.backbone, pretrained.statistics), 0
    whole = dict(largest(space).choices)
    for path, choice in space.choices.items() if rises else ():
        if path not in rises and len(choice.values) > 1:
            rises[path] = healing.measured_rises(path, choice.values, whole)
            measured += len(choice.values)
    return rises, Spent(eval_tokens=measured * len(healing.train.batch_at(0)) if measured else 0)


def healing_settings(heal: HealConfig, seed: int) -> Settings:
    """Healing as configured, for `rankitect.training.distill`."""
    from rankitect.training.distill import HealConfig as Settings
    from rankitect.training.optimizer import OptimizerConfig

    keys = heal.model_dump()
    whole = {name: keys.pop(name) for name in ("tokens", "batch", "context", "k", "ce_weight", "temperature")}
    return Settings(**whole, optimizer=OptimizerConfig(**keys), seed=seed)
