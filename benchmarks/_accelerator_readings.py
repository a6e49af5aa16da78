"""The readings that `accelerator.py` compares between a device and the CPU: each gives numbers from the same start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankitect.metrics.losses import (
    cross_entropy,
    kl_divergence,
    sampled_cross_entropy,
    sparse_kl_divergence,
    token_nats,
    top_targets,
)
from rankitect.models.backbone import Backbone, largest, rank
from rankitect.models.checkpoints import DecoderCheckpoint
from rankitect.models.importance import gather
from rankitect.models.pretrained import space_tensors
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet, build
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig
from rankitect.training.placement import Placement, placement, using

__all__ = ["Language", "Ranker", "compare"]

Reading = Callable[[], list[Tensor]]


class Language:
    """Readings of a pretrained model's space.

    Args:
        checkpoint: The model; random weights serve.
        tokens: Of a window.
    """

    def __init__(self, checkpoint: DecoderCheckpoint, tokens: int) -> None:
        self.checkpoint, self.space = checkpoint, from_backbone(checkpoint.config)
        self.architecture = self.space.sample(np.random.default_rng(1))
        draws = torch.Generator().manual_seed(0)
        self.text = torch.randint(0, checkpoint.config.vocab, (2, tokens + 1), generator=draws)

    @property
    def ids(self) -> Tensor:
        """The text where it was placed."""
        return placement().move(self.text)

    def _backbone(self) -> Backbone:
        plain = placement().place(Supernet(self.space, tensors=space_tensors(self.checkpoint)))
        statistics = gather(plain, largest(self.space), [self.ids], sampled_cross_entropy(0))
        orders = rank(self.checkpoint.config, plain.to("cpu"), statistics)
        return Backbone(self.checkpoint, self.space, orders, statistics.gram, device=placement().device)

    def standalone(self) -> list[Tensor]:
        """Logits of a fresh model."""
        model = placement().place(build(self.space, self.architecture, 0))
        with placement().computing():
            return [model(self.ids[:, :-1])]

    def statistics(self) -> list[Tensor]:
        """Calibration: second moments of hidden units and of the loss's gradients."""
        plain = placement().place(Supernet(self.space, tensors=space_tensors(self.checkpoint)))
        with placement().computing():
            statistics = gather(plain, largest(self.space), [self.ids], cross_entropy)
        return [*statistics.gram.values(), *statistics.slopes.values(), statistics.residual]

    def pruned(self) -> list[Tensor]:
        """Logits of the pruned backbone, with refits: active in the supernet, and extracted from it."""
        supernet = self._backbone().supernet
        models = (supernet.activate(self.architecture), supernet.extract(self.architecture))
        with placement().computing():
            return [model(self.ids[:, :-1]) for model in models]

    def relaxed(self) -> list[Tensor]:
        """The relaxed supernet: its loss at an architecture, and the gradients of all choices' weights."""
        relaxed = RelaxedSupernet(self._backbone().supernet)
        weights = {path: w.requires_grad_(True) for path, w in one_hot(self.space, self.architecture).items()}
        with placement().computing():
            loss = cross_entropy(relaxed(weights, self.ids[:, :-1]), self.ids[:, 1:])
        loss.backward()
        return [loss, *(w.grad for w in weights.values() if w.grad is not None)]

    def losses(self) -> list[Tensor]:
        """Every loss, with the gradients of its logits."""
        draws = torch.Generator().manual_seed(1)
        vocab = self.checkpoint.config.vocab
        given, other = (placement().move(torch.randn(2, 24, vocab, generator=draws) * 3) for _ in range(2))
        labels = placement().move(torch.randint(0, vocab, (2, 24), generator=draws))
        readings = [token_nats(given, labels)]
        teacher = top_targets(other, 16, samples=16)
        for loss in (
            lambda z: cross_entropy(z, labels),
            lambda z: kl_divergence(z, other),
            lambda z: sparse_kl_divergence(z, teacher, targets=labels, ce_weight=0.5),
        ):
            logits = given.clone().requires_grad_(True)
            value = loss(logits)
            value.backward()
            assert logits.grad is not None
            readings += [value, logits.grad]
        return readings

    def trained(self) -> list[Tensor]:
        """Losses of ten steps of training, and the logits after them."""
        model = build(self.space, self.architecture, 0)
        result = train(
            model,
            lambda model, ids: cross_entropy(model(ids[:, :-1]), ids[:, 1:]),
            lambda step: self.text.roll(step, 1),
            TrainConfig(steps=10, optimizer=OptimizerConfig(lr=1e-3, warmup=2)),
        )
        with torch.no_grad(), placement().computing():
            return [torch.tensor(result.losses), model(self.ids[:, :-1])]

    def readings(self) -> dict[str, Reading]:
        """By name."""
        return {
            "standalone model: logits": self.standalone,
            "losses and their gradients": self.losses,
            "calibration: statistics": self.statistics,
            "pruned backbone with refits: logits": self.pruned,
            "relaxed supernet: gradients of choices": self.relaxed,
            "training, 10 steps: losses, logits": self.trained,
        }


class Ranker:
    """Readings of a ranker with embedding tables, under each backend that is there."""

    def __init__(self, rows: int, batch: int) -> None:
        from rankitect.blocks import Concat, Flatten, Linear, Tables
        from rankitect.graph import B, Graph, SearchSpace

        g = Graph("ranker")
        numeric, ids = g.input("numeric", B, 4), g.input("ids", B, 6, dtype="int")
        tables = Tables((rows,) * 6, (1,) * 6, 8)(ids, name="tables")
        hidden = Linear(32, "relu")(Concat()(numeric, Flatten()(tables, name="flat"), name="joined"), name="hidden")
        g.out = Linear(1)(hidden, name="logit")
        self.space = SearchSpace(g)
        draws = torch.Generator().manual_seed(0)
        self.numeric = torch.randn(batch, 4, generator=draws)
        self.ids = torch.randint(0, rows, (batch, 6), generator=draws)
        self.labels = (torch.rand(batch, generator=draws) < 0.3).float()

    def trained(self, backend: str, rule: str) -> list[Tensor]:
        """Losses of ten steps, and the table after them."""
        from rankitect.training.embeddings import TableConfig, TableStorage

        model = placement().place(build(self.space, self.space.architecture({}), 0))
        tables = TableStorage(model, TableConfig(backend, rule, lr=0.05))  # type: ignore[arg-type]
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        result = train(
            model,
            lambda model, batch: loss(model(batch["numeric"], batch["ids"])[:, 0], batch["labels"]),
            lambda step: {"numeric": self.numeric, "ids": self.ids, "labels": self.labels},
            TrainConfig(steps=10, optimizer=OptimizerConfig(lr=1e-2)),
            size=lambda batch: len(batch["labels"]),
            tables=tables,
        )
        tables.release()
        return [torch.tensor(result.losses), *(p.detach() for n, p in model.named_parameters() if "table" in n)]

    def readings(self) -> dict[str, Reading]:
        """By name."""
        from rankitect.training.embeddings import kernels_for

        backends = ["torch", *(["torchrec"] if kernels_for(placement().device) else [])]
        return {
            f"tables, {backend}, {rule}: losses, rows": lambda backend=backend, rule=rule: self.trained(backend, rule)
            for backend in backends
            for rule in ("sgd", "adagrad", "rowwise_adagrad")
        }


def compare(readings: Mapping[str, Reading], there: Placement) -> dict[str, float]:
    """For each reading, how far the device is from the CPU in float32: the norm of the difference over the norm of what
    the CPU gives, of whichever tensor is worst."""
    differences: dict[str, float] = {}
    for name, reading in readings.items():
        with using(Placement(torch.device("cpu"))):
            here = _gathered(reading())
        with using(there):
            elsewhere = _gathered(reading())
        worst = 0.0
        for one, other in zip(here, elsewhere, strict=True):
            worst = max(worst, float((one - other).norm() / one.norm().clamp_min(1e-12)))
        differences[name] = worst
    return differences


def _gathered(tensors: list[Any]) -> list[Tensor]:
    return [tensor.detach().cpu().double() for tensor in tensors]
