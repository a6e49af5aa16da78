"""Language models as pruned versions of a pretrained backbone: what controllers and evaluators share in one search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.errors import ConfigError, DataError, RankitectError, SpaceError
from rankitect.tasks.shared_weights import SharedWeights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.config.schema import HealConfig
    from rankitect.contracts import Baseline, Metric, MetricSpec, Spent
    from rankitect.deploy.latency import Latency
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.metrics.language import LanguageTask
    from rankitect.models.backbone import Backbone
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.importance import Statistics
    from rankitect.models.supernet import Supernet
    from rankitect.production.registry import Entry
    from rankitect.tasks.language.contrasts import Contrast
    from rankitect.tasks.registered import Registered
    from rankitect.training.distill import Distillation
    from rankitect.training.distill import HealConfig as Settings

__all__ = ["Language"]

"""Block FLOPs of the uniformly pruned baselines, where the configuration names none."""
SEARCH_ORDER = 1_000_003
"""Added to the seed for the order of training text during a search: healing sees it in another order."""


class Language(SharedWeights):
    """Next-token prediction, with a backbone to inherit from and to distil from.

    Attributes:
        checkpoint: The pretrained model.
        task: Text, batches, loss and quality.
    """

    unit = "tokens"
    """What the ledger counts."""

    class Config(BaseModel):
        """Keys of `task`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        backbone: str = Field("smollm2-135m", description="asset, .gguf file, Hugging Face folder, or random")
        text: str = Field("pydoc-topics", description="pydoc-topics, or a file or folder of text, JSONL or parquet")
        field: str = Field("text", description="field or column of the text in JSONL and parquet")
        context: int = Field(256, ge=8, description="tokens of a window in quality and costs")
        split_seed: int = Field(0, ge=0, description="seed of the split of documents")
        criterion: Literal["energy", "magnitude", "fisher", "taylor"] = Field(
            "energy", description="importance of hidden units and heads"
        )
        refit: bool = Field(True, description="refit pruned weights in closed form on calibration text")
        calibration_tokens: int = Field(8192, ge=64, description="tokens of training text for importance and refits")
        slope_tokens: int = Field(4096, ge=0, description="of which with gradients, for second-order estimates")
        test_windows: int | None = Field(48, ge=1, description="windows of the test split; null for all")
        search_windows: int | None = Field(24, ge=1, description="windows of the search split for screening")
        uniform: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
            None,
            description="block FLOPs of the uniformly pruned baselines, of the backbone's; null: those of 0.75, 0.6 "
            "and 0.5 that feed-forward widths reach",
        )
        depth_baselines: bool = Field(False, description="also measure depth pruning at these sizes")

    def __init__(self, config: Config, parts: Parts) -> None:
        from rankitect.metrics.language import LanguageTask
        from rankitect.models.checkpoints import load_checkpoint

        self.config, self._parts = config, parts
        if config.backbone == "random":
            self.checkpoint = _tiny_backbone(parts.config.seed)
        else:
            parts.say(f"Backbone: {config.backbone}")
            try:
                self.checkpoint = load_checkpoint(config.backbone)
            except RankitectError as error:
                raise type(error)(f"task.backbone={config.backbone}: {error}") from error
        if config.context > self.checkpoint.config.context:
            raise ConfigError(
                f"task.context is {config.context}; the backbone was made for at most {self.checkpoint.config.context}."
            )
        heal = parts.config.heal
        try:
            self.task: LanguageTask = LanguageTask.open(
                self.checkpoint.tokenizer,
                config.text,
                context=config.context,
                seed=parts.config.seed,
                split_seed=config.split_seed,
                field=config.field,
            )
            self.task.require("train", heal.batch, heal.context)
            for split in ("train", "search", "test"):
                self.task.require(split, 1, config.context)
        except DataError as error:
            raise DataError(f"task.text={config.text}: {error}") from error

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Language:
        """Made from its section of the configuration."""
        return cls(config, parts)

    # --- what controllers and evaluators use ------------------------------------------------------------------------
    @property
    def context(self) -> int:
        """Tokens of a window."""
        return self.config.context

    @property
    def space(self) -> SearchSpace:
        """The search space (made after the task)."""
        found: SearchSpace = self._parts.space
        return found

    @cached_property
    def statistics(self) -> Statistics:
        """Calibration statistics of the backbone, from the cache where they were gathered before."""
        from rankitect.data.assets import cache_root
        from rankitect.models.statistics_file import load_statistics, save_statistics

        c = self.config
        key = [self._plain_fingerprint, self.task.text.fingerprint, c.context, c.calibration_tokens, c.slope_tokens]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
        path = cache_root() / "statistics" / f"{name}.safetensors"
        found = load_statistics(path)
        if found is None:
            self._parts.say(f"Calibration: {c.calibration_tokens:,} tokens through the backbone")
            found = self._gather()
            save_statistics(path, found)
        return found

    @cached_property
    def _plain_fingerprint(self) -> str:
        from rankitect.training.distill import weights_fingerprint

        return weights_fingerprint(self._plain)

    @cached_property
    def _plain(self) -> Any:
        from rankitect.models.pretrained import space_tensors
        from rankitect.models.supernet import Supernet

        return Supernet(self.space, tensors=space_tensors(self.checkpoint))

    def _calibration(self) -> tuple[int, int, int]:
        """Windows of a batch, batches, and how many of these also with gradients."""
        c = self.config
        windows = self.task.require("train", 1, c.context).windows(c.context)
        batch = max(1, min(1024 // c.context, windows))
        count = max(1, min(c.calibration_tokens, windows * c.context) // (batch * c.context))
        sloped = min(count, c.slope_tokens // (batch * c.context))
        return batch, count, max(1, sloped) if c.criterion in ("fisher", "taylor") else sloped

    @property
    def upfront(self) -> Spent:
        """What every method owes before it starts: calibration, also where its result was kept from another run."""
        from rankitect.contracts import Spent

        batch, count, sloped = self._calibration()
        size = batch * self.context
        return Spent(train_tokens=sloped * size, eval_tokens=count * size)

    def _gather(self) -> Statistics:
        from rankitect.metrics.losses import sampled_cross_entropy
        from rankitect.models.backbone import largest
        from rankitect.models.importance import gather

        whole, (batch, count, sloped) = largest(self.space), self._calibration()
        found = gather(self._plain, whole, self.task.batches("train", batch=batch, steps=count))
        if sloped:
            loss = sampled_cross_entropy(self._parts.config.seed)
            batches = self.task.batches("train", batch=batch, steps=sloped)
            with_slopes = gather(self._plain, whole, batches, loss)
            found.slopes, found.fisher, found.taylor = with_slopes.slopes, with_slopes.fisher, with_slopes.taylor
        return found

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone as a supernet: sorted by importance, with refits."""
        from rankitect.models.backbone import Backbone, rank

        statistics = self.statistics
        orders = rank(self.checkpoint.config, self._plain, statistics, self.config.criterion)
        made = Backbone(
            self.checkpoint, self.space, orders, statistics.gram if self.config.refit else None, statistics.influence
        )
        del self._plain  # half a gigabyte
        return made

    def supernet(self, space: SearchSpace) -> Supernet:
        """A copy of the backbone's weights for a search to train."""
        return self.backbone.supernet.copy()

    @cached_property
    def registered(self) -> Registered:
        """The registry's production models for this task: architectures of the searched space."""
        from rankitect.tasks.registered import Registered

        c, name = self._parts.config, self._parts.names.get("task", "")
        return Registered(c.report.registry, name, self._fits, c.allowed_packages, self._parts.say)

    def _fits(self, entry: Entry, architecture: Architecture) -> None:
        if entry.module is not None:
            raise ConfigError("a language search compares with pruned versions of its backbone, not with modules")
        self.space.validate(architecture)

    def record(self, parts: Parts) -> None:
        """Leave what a report needs to know of the text in the run folder."""
        from rankitect.production.evidence import save_facts

        text = self.task.text
        splits = {n: {"tokens": s.tokens, "documents": len(s.documents)} for n, s in text.splits.items()}
        about = {"data": text.name, "fingerprint": text.fingerprint, "splits": splits, "backbone": self.config.backbone}
        save_facts(parts.folder, {**about, "healing": f"{parts.config.heal.tokens:,} tokens"})

    @property
    def inherited(self) -> Supernet:
        """The weights that candidates inherit: those that a search has trained, else the backbone's."""
        return self._adopted or self.backbone.supernet

    @property
    def reference(self) -> Architecture:
        """The architecture that costs are relative to: the backbone."""
        from rankitect.models.backbone import largest

        return largest(self.space)

    def limits(self) -> dict[str, tuple[float, float]]:
        """The configuration's constraints, as bounds for `SearchSpace.sample`; latencies are learned for theirs."""
        from rankitect.tasks.costs import limits

        return limits(self.space, self.reference, self._parts.config.constraints, self.context)

    @property
    def cost_specs(self) -> list[MetricSpec]:
        """The costs as metrics; latencies where there is a device."""
        from rankitect.tasks.costs import cost_specs

        return [*cost_specs(), *(self.latency.specs if self.latency is not None else [])]

    def costs(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs by name, for evaluators and for methods that need them before a measurement."""
        from rankitect.tasks.costs import cost_metrics

        found = cost_metrics(self.space, architecture, self.reference, self.context)
        return found if self.latency is None else {**found, **self.latency.metrics(architecture)}

    @cached_property
    def latency(self) -> Latency | None:
        """Predicted latencies on the configured device; learned at their first use."""
        device = self._parts.device
        if device is None:
            return None
        if device.context > self.checkpoint.config.context:
            raise ConfigError(
                f"device.context is {device.context}; the backbone was made for at most "
                f"{self.checkpoint.config.context}."
            )
        found: Latency = device.latency(self.space, seed=self._parts.config.seed, say=self._parts.say)
        self.space.learned.update({name: partial(found.tables, name) for name in found.workloads})
        return found

    def learn_latency(self, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> None:
        """Learn the latencies that are configured, where that was not done.

        Args:
            check: Called between measurements; raises to stop.
            progress: Told measurements made, measurements at most, and a note.
        """
        for name in self.latency.workloads if self.latency is not None else ():
            self.latency.learn(name, check, progress)  # type: ignore[union-attr]

    @cached_property
    def distillation(self) -> Distillation:
        """Healing, shared by all candidates."""
        return self._distillation("train")

    @cached_property
    def _search_distillation(self) -> Distillation:
        return self._distillation("search")

    def _distillation(self, split: str) -> Distillation:
        from rankitect.training.distill import Distillation

        teacher = self.backbone.supernet.activate(self.backbone.largest)
        settings = _settings(self._parts.config.heal, self._parts.config.seed)
        fingerprint = hashlib.sha256(self._plain_fingerprint.encode()).hexdigest()
        return Distillation(teacher, self.task, settings, fingerprint=fingerprint, split=split)

    def search_loss(self, forward: Callable[[torch.Tensor], torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss that architectures are chosen by, on text that the weights do not see, and its tokens.

        Args:
            forward: From token ids [B, T] to logits [B, T, V].
            step: Decides the batch.
        """
        batch = self._search_distillation.batch_at(step)
        return self._search_distillation.loss(forward, batch), len(batch)

    def train_loss(self, model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, on training text, and its tokens."""
        batch = self.distillation.batch_at(step, self._parts.config.seed + SEARCH_ORDER)
        return self.distillation.loss(model, batch), len(batch)

    def prior(self) -> tuple[dict[str, torch.Tensor], Spent]:
        """For each choice, how much the loss is expected to rise at each value with all else kept, nats a token; and
        what finding that out has cost beyond calibration.

        Second-order estimates for the choices of layers; measured on a batch of training text for the others.
        """
        from rankitect.contracts import Spent
        from rankitect.tasks.language.prior import second_order

        found, measured = second_order(self.backbone, self.statistics), 0
        for path, choice in self.space.choices.items() if found else ():
            if path not in found and len(choice.values) > 1:
                found[path] = self._measured_rise(path, choice.values)
                measured += len(choice.values)
        return found, Spent(eval_tokens=measured * len(self.distillation.batch_at(0)) if measured else 0)

    def _measured_rise(self, path: str, values: Sequence[Any]) -> torch.Tensor:
        """The distillation loss with one value changed, over that of the backbone (0 but for the sampled tail)."""
        import torch

        batch, whole = self.distillation.batch_at(0), dict(self.reference.choices)
        rises = []
        with torch.inference_mode():
            for value in values:
                model = self.backbone.supernet.activate(self.space.architecture({**whole, path: value}))
                rises.append(float(self.distillation.loss(model, batch)))
        return torch.tensor(rises) - rises[list(values).index(whole[path])]

    def contrasts(self, workload: str) -> list[Contrast]:
        """Architectures that show which design rules hold at equal latency under a workload.

        Args:
            workload: A name among `latency.workloads`.
        """
        from rankitect.tasks.language.contrasts import contrasts

        latency = self.latency
        assert latency is not None
        return contrasts(
            self.space, self.reference, lambda a: latency.predict(a, workload).ms, self.statistics.influence
        )

    # --- hooks of the study -----------------------------------------------------------------------------------------
    def check(self, parts: Parts) -> None:
        """Raise what can be known only now: constraints that no architecture meets."""
        _ = self.latency  # makes latencies costs of the space
        limits = self.limits()
        try:
            parts.space.sample(0, **limits)
        except SpaceError as error:
            given = ", ".join(f"{k} {a:g} to {b:g}" for k, (a, b) in self._parts.config.constraints.items())
            raise ConfigError(
                f"constraints: no architecture meets them ({given}, relative to the backbone). {error}"
            ) from None

    def baselines(self, parts: Parts) -> list[Baseline]:
        """The backbone, and its uniformly pruned versions."""
        from rankitect.contracts import Baseline
        from rankitect.tasks.language.uniform import uniform_baselines

        influence = self.statistics.influence if self.config.depth_baselines else None
        uniform = uniform_baselines(self.space, self.reference, self.config.uniform, influence, self.context)
        return [Baseline("backbone", self.reference), *(Baseline(name, made) for name, made in uniform)]

    def exporter(self, parts: Parts) -> Callable[[Any, Path], dict[str, str]]:
        """Draws each candidate's graph, and exports its program where the device runs programs."""
        from rankitect.tasks.exporting import exporter

        return exporter(parts, self.latency)


def _settings(heal: HealConfig, seed: int) -> Settings:
    """Healing as configured, for `rankitect.training.distill`."""
    from rankitect.training.distill import HealConfig as Settings
    from rankitect.training.optimizer import OptimizerConfig

    keys = heal.model_dump()
    whole = {name: keys.pop(name) for name in ("tokens", "batch", "context", "k", "ce_weight", "temperature")}
    return Settings(**whole, optimizer=OptimizerConfig(**keys), seed=seed)


def _tiny_backbone(seed: int) -> DecoderCheckpoint:
    """A small random Llama on bytes, for tests and first looks."""
    from rankitect.models.checkpoints import DecoderConfig, random_checkpoint

    config = DecoderConfig(vocab=256, d_model=48, n_layers=4, n_heads=6, n_kv_heads=3, head_dim=8, ffn=128)
    return random_checkpoint(config, seed)
