"""Click prediction: what controllers and evaluators of rankers share in one search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankitect.config.bindings import ByArchitecture
from rankitect.data.ranking.schema import DataSettings
from rankitect.errors import ConfigError, SpaceError
from rankitect.tasks.ranking.settings import OptimizerSettings, TableSettings
from rankitect.tasks.shared_weights import SharedWeights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline, Metric, MetricSpec
    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.methods.shared_weights import SharedTraining
    from rankitect.metrics.ranking import RankingTask
    from rankitect.models.supernet import Supernet
    from rankitect.production.registry import Entry
    from rankitect.tasks.costs import Costs
    from rankitect.tasks.ranking.fit import FitConfig
    from rankitect.tasks.ranking.models import NamedModel
    from rankitect.tasks.registered import Registered
    from rankitect.training.embeddings import HoldsTables, TableStorage

__all__ = ["Ranking"]

SEARCH_ORDER = 1_000_003
"""Added to the seed for the order of rows while shared weights are trained: candidates see them in another order."""


class Ranking(SharedWeights):
    """Rankers trained from scratch on a click log.

    Attributes:
        task: Rows, loss and quality.
        features: What the data give to a model; spaces are made from it.
    """

    samples_per_update = 16
    """Of a differentiable search or a policy: for a small ranker either costs as much as many steps of its weights."""
    shared_sizes = (240, 12)
    """Architectures that a search with shared weights looks at, a tenth of a second each, and its finalists."""
    unit = "examples"
    """What the ledger counts."""
    preload = ("rankitect.tasks.ranking.models", "torchrec.modules.fused_embedding_modules")
    """Modules that a process which measures rankers imports before it knows what to measure."""

    class Config(BaseModel):
        """Keys of `task`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        data: DataSettings = Field(DataSettings(), description="what is read, and how")
        batch: Annotated[int, ByArchitecture()] = Field(1024, ge=1, description="rows of a training step")
        epochs: Annotated[float, ByArchitecture()] = Field(
            15.0, gt=0, description="passes over the training rows, at most"
        )
        one_pass: bool = Field(
            False, description="one pass in the rows' own order with progressive validation, as in online training"
        )
        refit: bool = Field(
            True,
            description="before the test, train once more on training and validation rows, as long as was best "
            "(not with one_pass)",
        )
        evaluate_every: Annotated[float, ByArchitecture()] = Field(
            0.5, gt=0, description="epochs between looks at the validation split"
        )
        patience: Annotated[int, ByArchitecture()] = Field(
            3, ge=1, description="looks in a row without improvement before training stops"
        )
        optimizer: Annotated[OptimizerSettings, ByArchitecture()] = Field(
            OptimizerSettings(), description="of all weights but tables"
        )
        tables: Annotated[TableSettings, ByArchitecture()] = Field(
            TableSettings(), description="how embedding tables are held and trained"
        )
        shared_epochs: float = Field(10.0, gt=0, description="length of the training of shared weights in a search")
        shared_batch: int = Field(512, ge=1, description="rows of a step of it")
        shared_lr: float = Field(3e-3, gt=0, description="its peak learning rate")
        # At the rate of a single model shared tables hardly move: every step is for another architecture.
        shared_table_lr: float = Field(0.2, gt=0, description="its peak learning rate of embedding tables")
        # Inherited weights tell architectures apart the better, the more often each operator was trained and the less
        # the tables know by heart: τ with training in full is 0.25, and -0.11 at 512 and 0.2 as above (40 rankers of
        # ranking_blocks; rankitect.compare --correlation).
        screened_batch: int = Field(128, ge=1, description="rows of a step where the weights then screen candidates")
        screened_table_lr: float = Field(0.05, gt=0, description="peak learning rate of embedding tables there")
        search_rows: int | None = Field(
            None, ge=1, description="validation rows for screening, a fixed sample; null for all"
        )
        short_epochs: float = Field(
            1.0, gt=0, description="epochs by which candidates are screened where no search has trained shared weights"
        )
        zoo: str = Field(
            "rankitect.search_spaces.ranking_points.baseline",
            description="dotted path of a function (name, features, **sizes) that makes known rankers",
        )
        models: dict[str, dict[str, Any]] = Field(
            default={name: {} for name in ("lr", "wide_deep", "deepfm", "dlrm", "dcnv2", "autoint", "finalmlp")},
            description="known rankers with their sizes and, under `optimizer` and `tables`, their own training",
        )
        baselines: list[str] | None = Field(None, description="which of them to compare with; null for all")
        reference: str | None = Field(
            "dlrm", description="the one that constraints are relative to; null: the space's largest architecture"
        )

    def __init__(self, config: Config, parts: Parts) -> None:
        from rankitect.data.ranking.prepare import open_ranking
        from rankitect.metrics.ranking import RankingTask

        self.config, self._parts = config, parts
        data = open_ranking(config.data, progress=parts.say)
        self.features: Features = data.features
        self.task: RankingTask = RankingTask(data, batch=config.batch, seed=parts.config.seed)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Ranking:
        """Made from its section of the configuration."""
        return cls(config, parts)

    # --- spaces and costs -------------------------------------------------------------------------------------------
    @property
    def space(self) -> SearchSpace:
        """The search space (made after the task)."""
        found: SearchSpace = self._parts.space
        return found

    @cached_property
    def models(self) -> Mapping[str, NamedModel]:
        """Known rankers by name, each an architecture of its own space.

        Raises:
            ConfigError: The configuration names one that it does not define.
        """
        from rankitect.tasks.ranking.models import production_models

        c = self.config
        wanted = set(c.models) if c.baselines is None else set(c.baselines)
        wanted |= {c.reference} if c.reference else set()
        for name in sorted(wanted - set(c.models)):
            raise ConfigError(f"task: there is no model '{name}' in task.models: {', '.join(c.models) or 'none'}.")
        used = {name: keys for name, keys in c.models.items() if name in wanted}
        return production_models(c.zoo, used, self.features, self._parts.config.allowed_packages)

    def space_of(self, architecture: Architecture) -> SearchSpace:
        """The space that an architecture belongs to: the one that is searched, or a production model's.

        Raises:
            SpaceError: It belongs to neither.
        """
        named = {model.architecture.fingerprint: model.space for model in self.models.values()}
        if architecture.fingerprint in named:
            return named[architecture.fingerprint]
        if (architecture.space, architecture.version) == (self.space.name, self.space.version):
            return self.space
        if (registered := self.registered.space(architecture)) is not None:
            return registered
        raise SpaceError(
            f"architecture {architecture.fingerprint[:8]} is of space {architecture.space!r}, which is not searched"
        )

    @cached_property
    def reference(self) -> Architecture:
        """The architecture that shares of a cost are of: the searched space's one of most FLOPs."""
        from rankitect.methods.bounded_space import BoundedSpace

        return BoundedSpace(self.space, {}).extreme("flops", True, np.random.default_rng(0))

    @cached_property
    def _costs(self) -> Costs:
        from rankitect.tasks.costs import ranking_costs

        return ranking_costs(self.space, self.reference)

    @property
    def cost_specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        from rankitect.tasks.costs import RANKING_COSTS, specs

        return specs(RANKING_COSTS)

    def costs(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture, of one example."""
        from rankitect.contracts import Metric
        from rankitect.tasks.costs import RANKING_COSTS, ranking_costs
        from rankitect.tasks.registered import module_costs

        if (entry := self.registered.entry(architecture)) is not None and entry.module is not None:
            example = self.task.batch_at("validation", 0, batch=1)
            counted = module_costs(self.registered.module(entry, self.features, 0), example.inputs)
            units = {spec.name: spec.unit for spec in self.cost_specs}
            return {name: Metric(counted[name], units[name]) for name in RANKING_COSTS}
        space = self.space_of(architecture)
        return (self._costs if space is self.space else ranking_costs(space, architecture)).metrics(architecture)

    def limits(self) -> dict[str, tuple[float, float]]:
        """The configuration's constraints, as bounds for `SearchSpace.sample`; relative to the reference model."""
        from rankitect.tasks.costs import ranking_costs

        constraints = self._parts.config.constraints
        if self.config.reference is None:
            return self._costs.limits(constraints)
        model = self.models[self.config.reference]
        return ranking_costs(model.space, model.architecture).limits(constraints)

    @cached_property
    def registered(self) -> Registered:
        """The registry's production models for this task."""
        from rankitect.tasks.registered import Registered

        c, name = self._parts.config, self._parts.names.get("task", "")
        return Registered(c.report.registry, name, self._fits, c.allowed_packages, self._parts.say)

    def _fits(self, entry: Entry, architecture: Architecture) -> None:
        if entry.features is not None and entry.features != self.features.to_json():
            raise ConfigError("it was made for other features (names or table sizes) than this task's data give")
        if entry.module is None:
            self.space_of(architecture).validate(architecture)

    def standalone(self, architecture: Architecture, seed: int) -> tuple[nn.Module, bool]:
        """A model of an architecture or a registered module, and whether it comes with its own weights."""
        from rankitect.models.supernet import build

        entry = self.registered.entry(architecture)
        if entry is not None and entry.module is not None:
            return self.registered.module(entry, self.features, seed), entry.weights is not None
        return build(self.space_of(architecture), architecture, seed), False

    # --- training ---------------------------------------------------------------------------------------------------
    def fit_config(self, architecture: Architecture, seed: int, epochs: float | None = None) -> FitConfig:
        """How one model is trained: as all are, but for settings that its choices decide, and for a known ranker with
        settings of its own.

        Args:
            architecture: The model.
            seed: Of the order of the rows.
            epochs: Instead of the configuration's.

        Raises:
            ConfigError: A known ranker's settings are none of an optimiser.
        """
        from rankitect.tasks.ranking.fit import FitConfig

        c = self._parts.bindings.applied("task", self.config, architecture)
        parts: dict[str, Any] = {"optimizer": c.optimizer, "tables": c.tables}
        for name, model in self.models.items():
            for part, own in model.training.items() if model.architecture == architecture else ():
                try:
                    parts[part] = type(parts[part])(**{**parts[part].model_dump(), **own})
                except ValidationError as error:
                    wrong = error.errors()[0]
                    where = ".".join(str(key) for key in (name, part, *wrong["loc"]))
                    raise ConfigError(f"task.models.{where}: {wrong['msg']}.") from None
        return FitConfig(
            epochs=c.epochs if epochs is None else epochs,
            batch=c.batch,
            one_pass=c.one_pass,
            evaluate_every=c.evaluate_every,
            patience=c.patience,
            optimizer=parts["optimizer"],
            tables=parts["tables"].settings(),
            seed=seed,
        )

    @property
    def shared_training(self) -> SharedTraining:
        """The training of shared weights for a method that takes its gradients from them."""
        from rankitect.methods.shared_weights import SharedTraining

        return SharedTraining(self._shared_steps(self.config.shared_batch), self.config.shared_lr)

    @property
    def screened_training(self) -> SharedTraining:
        """The training of shared weights by which candidates are then screened."""
        from rankitect.methods.shared_weights import SharedTraining

        c = self.config
        return SharedTraining(self._shared_steps(c.screened_batch), c.shared_lr, c.screened_batch, c.screened_table_lr)

    def _shared_steps(self, batch: int) -> int:
        return max(1, round(self.config.shared_epochs * self.task.steps("train", batch)))

    def supernet(self, space: SearchSpace) -> Supernet:
        """Fresh weights for a search to train."""
        from rankitect.models.supernet import Supernet

        return Supernet(space, self._parts.config.seed)

    def hold_tables(self, model: HoldsTables, lr: float | None = None) -> TableStorage | None:
        """Tables of shared weights, trained as those of a single model are but at another rate, `lr` or the task's."""
        from rankitect.training.embeddings import TableStorage

        settings = self.config.tables.settings()
        if settings is None:
            return None
        return TableStorage(model, dataclasses.replace(settings, lr=lr or self.config.shared_table_lr))

    @property
    def inherited(self) -> Supernet | None:
        """The weights that a search has trained, if any."""
        return self._adopted

    def train_loss(self, model: nn.Module, step: int, batch: int | None = None) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, on `batch` (or the task's number of) training rows, and how many
        they are.

        The same step gives the same rows, so that two models can be compared before either has learnt from them.
        """
        seed = None if self.config.one_pass else self._parts.config.seed + SEARCH_ORDER
        from rankitect.training.parallel import peers

        rows = batch or self.config.shared_batch
        found = self.task.batch_at("train", step, batch=rows, seed=seed)
        return self._loss(model, found.part(peers().shard(len(found))))

    def search_loss(self, forward: Callable[..., torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss that architectures are chosen by, on validation rows, which no weights learn from.

        Args:
            forward: From (numeric [B, N], ids [B, S]) to logits [B, 1].
            step: Decides the batch.
        """
        return self._loss(forward, self.task.batch_at("validation", step, batch=self.config.shared_batch))

    def _loss(self, model: Callable[..., torch.Tensor], batch: RankingBatch) -> tuple[torch.Tensor, int]:
        return self.task.loss(model, batch), len(batch)

    # --- hooks of the study -----------------------------------------------------------------------------------------
    def check(self, parts: Parts) -> None:
        """Raise what can be known only now: splits of one class, constraints that no architecture meets."""
        from rankitect.tasks.ranking.rows import check_slices

        for split in ("train", "validation", "test"):
            self.task.require_classes(split)
        check_slices(self.task.data, parts.config.report.slices)
        if self.config.one_pass and parts.config.runner.together > 1:
            raise ConfigError(
                "task.one_pass predicts every row before it is learnt from, which runner.together="
                f"{parts.config.runner.together} processes that share rows out cannot do: use runner.together=1."
            )
        limits = self.limits()
        try:
            parts.space.sample(0, **limits)
        except SpaceError as error:
            given = ", ".join(f"{k} {a:g} to {b:g}" for k, (a, b) in parts.config.constraints.items())
            whose = self.config.reference or "the largest architecture"
            raise ConfigError(
                f"constraints: no architecture meets them ({given}, relative to {whose}). {error}"
            ) from None

    def baselines(self, parts: Parts) -> list[Baseline]:
        """The production models, trained exactly as candidates are."""
        from rankitect.contracts import Baseline

        names = self.config.models if self.config.baselines is None else self.config.baselines
        return [Baseline(name, self.models[name].architecture) for name in names]

    def exporter(self, parts: Parts) -> Callable[[Any, Path], dict[str, str]]:
        """Draws each candidate's graph, and compares it with the baselines, row by row."""
        from rankitect.tasks.exporting import drawn
        from rankitect.tasks.ranking.models import compare_rows, mend_losses

        mend_losses(parts.folder, self.task, parts.config.allowed_packages, parts.say)

        def export(trial: Any, folder: Path) -> dict[str, str]:
            written = drawn(self.space_of(trial.architecture), trial.architecture, folder)
            named = {b.name: b.architecture.fingerprint for b in self.baselines(parts)}
            if compare_rows(folder / "paired.json", parts.folder, self.task, trial.architecture.fingerprint, named):
                written["paired"] = "paired.json"
            return {**written, **self._program(parts, trial, folder)}

        return export

    def record(self, parts: Parts) -> None:
        """Leave what a report needs of the test rows in the run folder."""
        from rankitect.tasks.ranking.rows import record_rows

        label = self.config.data.table.label
        record_rows(self.task.data, parts.folder, parts.config.report.slices, "" if label is None else label.name)

    def _program(self, parts: Parts, trial: Any, folder: Path) -> dict[str, str]:
        """A candidate's dense part as a program, where the device runs programs."""
        from rankitect.contracts import ExportsRankers
        from rankitect.tasks.exporting import programmed
        from rankitect.tasks.ranking.models import load_ranker

        saved = trial.measurement.artifacts.get("weights") if trial.measurement is not None else None
        if saved is None or not isinstance(parts.device, ExportsRankers):
            return {}
        model = load_ranker((parts.folder / saved).parent)[0].eval()
        example = self.task.batch_at("validation", 0, batch=1)
        inputs = (example.numeric, example.ids)
        return programmed(parts, trial.architecture, partial(parts.device.export_ranker, folder, model, inputs))
