"""Classification of images: what controllers and evaluators share in one search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from rankitect.contracts import MetricSpec, SharedTraining
from rankitect.tasks.base import TaskBase
from rankitect.tasks.costs import CostReading, bounded
from rankitect.tasks.vision.settings import VisionConfig
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline, Exporter
    from rankitect.data.images.batch import ImageBatch
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.metrics.images import ImageQuality
    from rankitect.models.supernet import Standalone, Supernet

__all__ = ["VISION_COSTS", "Vision"]

VISION_COSTS: Mapping[str, CostReading] = {
    "flops": CostReading("flops", about="FLOPs of an image"),
    "params": CostReading("params", about="parameters"),
    "weight_bytes": CostReading("weight_bytes", about="bytes of the weights' file"),
    "activation_bytes": CostReading("activation_bytes", about="bytes of all activations of an image"),
}
"""The costs of networks, of one image."""
_SHARED_LR = {"sgd": 0.05, "adamw": 2e-3}
"""Peak learning rates of weights that a search shares."""
_CALIBRATED = 256
"""Images of a batch from which statistics are taken."""


class Vision(TaskBase):
    """Networks trained from scratch on labelled images.

    Attributes:
        config: The keys of `task`.
        data: The images, in batches.
    """

    Config = VisionConfig
    readings: ClassVar[Mapping[str, CostReading]] = VISION_COSTS
    bounded_costs: ClassVar = bounded(VISION_COSTS)
    samples_per_update = 1
    """Architectures that shared weights are trained on between two updates of what draws them."""
    shared_sizes = (120, 6)
    """Architectures that a search with shared weights looks at, and its finalists."""

    def __init__(self, config: VisionConfig, parts: Parts) -> None:
        from rankitect.data.images.batches import ImageBatches
        from rankitect.data.images.prepare import open_images

        super().__init__(parts)
        self.config = config
        images = open_images(config, progress=parts.say)
        self.data = ImageBatches(
            images,
            batch=config.batch,
            seed=parts.config.seed,
            augment=config.augment,
            smoothing=config.label_smoothing,
        )

    @classmethod
    def from_config(cls, config: VisionConfig, parts: Parts) -> Vision:
        """Made from its section of the configuration."""
        return cls(config, parts)

    # --- what spaces are made for -----------------------------------------------------------------------------------
    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.data.data.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of a model's logits."""
        return self.data.data.classes

    # --- data, loss and quality -------------------------------------------------------------------------------------
    def batch_at(self, split: str, step: int, batch: int | None = None) -> ImageBatch:
        """The images of a training step, those of the training split changed at random; `batch` of them, or the task's
        number."""
        return placement().move(self.data.batch_at(split, step, batch))

    def calibration_batches(self, examples: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Training images without random changes, in batches of one size, always the same ones, for statistics of an
        architecture.

        Args:
            examples: How many at least, where there are so many.
        """
        places = self.data.shuffled("train")
        size = min(_CALIBRATED, len(places))
        batches = min(-(-examples // size), len(places) // size)
        for images, _ in self.data.images_at(places[: batches * size], size):
            yield (placement().move(images),)

    def loss(self, model: nn.Module | Callable[..., torch.Tensor], batch: ImageBatch) -> torch.Tensor:
        """Mean cross-entropy, nats; of training batches with label smoothing."""
        from rankitect.metrics.images import image_loss

        with placement().computing():
            return image_loss(model, placement().move(batch), len(self.classes))

    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> ImageQuality:
        """Cross-entropy, accuracy and calibration error on a split; `sample` counts images, else as configured."""
        from rankitect.metrics.images import image_quality

        usual = {"test": self.config.test_images, self.search_split: self.config.search_images}
        with placement().computing():
            return image_quality(
                model, self.data, split, most=sample or usual.get(split), check=check, device=placement().of(model)
            )

    def quality_specs(self, split: str) -> list[MetricSpec]:
        """Cross-entropy, accuracy and calibration error."""
        from rankitect.metrics.images import quality_specs

        return quality_specs(split)

    def exporter(self, parts: Parts) -> Exporter:
        """Draws each candidate's graph, and writes its program where the device runs programs."""
        from rankitect.tasks.vision.exporting import classifier_exporter

        return classifier_exporter(parts, self.data)

    def baseline_exporter(self, parts: Parts) -> Exporter:
        """Writes the program of a baseline where the device runs programs."""
        from rankitect.tasks.vision.exporting import program_exporter

        return program_exporter(parts, self.data)

    def save_candidate(self, folder: Path, architecture: Architecture, model: Standalone) -> dict[str, str]:
        """Write a classifier with what turns images into its inputs, and the names of its classes."""
        from rankitect.data.images.encoder import ImageEncoder
        from rankitect.models.candidate import save_image_classifier

        encoder = ImageEncoder.of(self.data.data, self.config.resize)
        notes = {"data": self.data.data.name, "fingerprint": self.data.data.fingerprint}
        return save_image_classifier(folder, self.space, architecture, model, encoder, notes)

    def baselines(self, parts: Parts) -> list[Baseline]:
        """The largest network and others that are scaled alike in every size, trained as candidates are."""
        from rankitect.tasks.vision.scaled import scaled_baselines

        return scaled_baselines(self.space, self.reference, self.config.uniform)

    # --- weights ----------------------------------------------------------------------------------------------------
    def supernet(self, space: SearchSpace) -> Supernet:
        """Fresh weights for a search to train."""
        return placement().place(super().supernet(space))

    def shared_training(self, screened: bool) -> SharedTraining:
        """The training of shared weights, the same whether candidates are then screened by them or not."""
        images = len(self.data.data.places("train"))
        steps = max(1, round(self.config.shared_epochs * images / self.config.batch))
        kind = self.config.shared_optimizer
        lr = _SHARED_LR[kind] if self.config.shared_lr is None else self.config.shared_lr
        return SharedTraining(steps, lr, self.config.batch, optimizer=kind)

    def train_loss(self, model: nn.Module, step: int, batch: int | None = None) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, on `batch` (or the task's number of) images, and how many."""
        images = self.batch_at("train", step, batch)
        return self.loss(model, images), len(images)
