"""Language models as pruned versions of a pretrained backbone: what every task of them shares in one search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from rankitect.contracts import Quality, Unit, offers
from rankitect.errors import ConfigError
from rankitect.tasks.costed import CostedTask
from rankitect.tasks.costs import LANGUAGE_COSTS, bounded, check_constraints
from rankitect.tasks.language.pretrained import PrunedBackbone
from rankitect.tasks.language.settings import BackboneConfig
from rankitect.tasks.language.writing import WritesModels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline, Exporter, Latencies, Metric, MetricSpec, Spent
    from rankitect.data.windows import TextWindows
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.production.registry import Entry
    from rankitect.tasks.exporting import Programs
    from rankitect.tasks.language.contrasts import Contrast
    from rankitect.tasks.language.costs import LanguageCosts
    from rankitect.tasks.registered import Registered
    from rankitect.training.settings import TextTraining
    from rankitect.training.text import TextObjective

__all__ = ["ComparableQuality", "LanguageModels"]


class ComparableQuality(Quality, Protocol):
    """A quality by which models are compared in pairs, example by example."""

    @property
    def examples(self) -> Mapping[str, Any]:
        """See `rankitect.contracts.Measurement.notes`; empty where there is no such comparison."""
        ...


class LanguageModels(CostedTask, PrunedBackbone, WritesModels):
    """A task of language models, with a backbone to inherit from and to distil from. A subclass gives data, loss and
    quality.

    Attributes:
        config: The keys of `task`.
        checkpoint: The pretrained model.
        data: The text, in windows.
    """

    _costs: LanguageCosts
    unit: Unit = "tokens"
    search_split = "search"
    bounded_costs: ClassVar = {
        **bounded(LANGUAGE_COSTS),
        "prefill_ms": "predicted latency of a prefill; needs device=",
        "decode_ms": "predicted latency of one token after a full context; needs device=",
    }

    def __init__(self, config: BackboneConfig, parts: Parts) -> None:
        from rankitect.tasks.language.costs import LanguageCosts
        from rankitect.tasks.language.pretrained import Pretrained, open_checkpoint
        from rankitect.tasks.language.searching import Searching

        self.config, self._parts = config, parts
        self.checkpoint = open_checkpoint(config, parts)
        longest = self.checkpoint.config.context
        if config.context > longest:
            raise ConfigError(f"task.context is {config.context}; the backbone was made for at most {longest}.")
        self.data = self._opened()
        self._pretrained = Pretrained(self.checkpoint, config, self.data, parts)
        self._costs = LanguageCosts(config, longest, parts)
        self.searching = Searching(self, self._pretrained, parts)

    @classmethod
    def from_config(cls, config: Any, parts: Parts) -> Self:
        """Made from its section of the configuration."""
        return cls(config, parts)

    # --- what a subclass gives --------------------------------------------------------------------------------------
    @abstractmethod
    def _opened(self) -> TextWindows:
        """The text that calibration reads, opened once the checkpoint is there."""

    @abstractmethod
    def batch_at(self, split: str, step: int) -> Any:
        """The batch of a step, a pure function of its arguments; `len` of it counts tokens."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The loss to train on, a scalar."""

    @abstractmethod
    def next_token(self, config: TextTraining, split: str = "train") -> TextObjective[Any]:
        """Batches of the task's data, and the cross-entropy of what comes next in them."""

    @abstractmethod
    def sample_text(self) -> torch.Tensor:
        """Windows of the test text, [W, T + 1] int64: what a program's quality is compared with its model's on."""

    @abstractmethod
    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> ComparableQuality:
        """How good a model is on a split."""

    @abstractmethod
    def quality_specs(self, split: str) -> list[MetricSpec]:
        """The metrics that `quality` promises for a split, the one to choose by first."""

    def candidate_notes(self, quality: ComparableQuality) -> dict[str, Any]:
        """Plain data for the card of a candidate of this quality: what its users need to know beside its files."""
        return {}

    # --- sizes ------------------------------------------------------------------------------------------------------
    @property
    def context(self) -> int:
        """Tokens of a window."""
        return self.config.context

    @property
    def space(self) -> SearchSpace:
        """The search space (made after the task)."""
        return self._parts.graph_space

    # --- costs ------------------------------------------------------------------------------------------------------
    def costs(self, architecture: Architecture, space: SearchSpace | None = None) -> dict[str, Metric]:
        """All costs of an architecture; `space` is its own where stages of a recipe have changed blocks."""
        return self._costs.metrics(architecture, space)

    @property
    def latency(self) -> Latencies | None:
        """Predicted latencies on the configured device; learned at their first use."""
        return self._costs.latency

    def learn_latency(self, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> None:
        """Learn the latencies that are configured, where that was not done.

        Args:
            check: Called between measurements; raises to stop.
            progress: Told measurements made, measurements at most, and a note.
        """
        self._costs.learn_latency(check, progress)

    # --- what a search trains on and starts from --------------------------------------------------------------------
    def search_loss(self, forward: Callable[[torch.Tensor], torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss that architectures are chosen by, on text that the weights do not see, and its tokens."""
        return self.searching.search_loss(forward, step)

    def train_loss(self, model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        """The loss that shared weights are trained on, on training text, and its tokens."""
        return self.searching.train_loss(model, step)

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture on so many tokens costs, with the forward passes of a teacher."""
        return self.searching.training_spent(space, architecture, amount)

    def prior(
        self, check: Callable[[], None], progress: Callable[[int, int, str], None]
    ) -> tuple[dict[str, torch.Tensor], Spent]:
        """For each choice, how much the loss is expected to rise at each value with all else kept, nats a token; and
        what finding that out has cost beyond calibration. Without a backbone nothing can be foretold."""
        from rankitect.contracts import Spent

        if self.backbone_name is None:
            return {}, Spent()
        from rankitect.tasks.language.searching import expected_rises

        return expected_rises(self._pretrained, self.searching, self.space, check, progress)

    def contrasts(self, workload: str) -> list[Contrast]:
        """Architectures that show which design rules hold at equal latency under a workload.

        Args:
            workload: A name among `latency.workloads`.
        """
        from rankitect.tasks.language.contrasts import contrasts

        latency = self.latency
        assert latency is not None  # whoever asks has a device
        return contrasts(
            self.space, self.reference, lambda a: latency.predict(a, workload).ms, self.statistics.influence
        )

    # --- hooks of the study -----------------------------------------------------------------------------------------
    def check(self, parts: Parts) -> None:
        """Raise what can be known only now: too little memory, constraints that no architecture meets."""
        from rankitect.models.families import axes
        from rankitect.tasks.language.memory import check_footprint

        if self.config.depth_baselines and not axes.drops(parts.graph_space.choices):
            raise ConfigError(
                "task.depth_baselines=true asks for baselines of fewer layers, and in this space none may be dropped "
                "(space.depth=false)."
            )
        _ = self.latency  # makes latencies costs of the space
        self._costs.require_latencies()
        sizes = None if self.backbone_name is None else self.checkpoint.config
        check_footprint(parts, self.reference, self.context, pretrained=sizes, refit=self.config.refit)
        check_constraints(parts.graph_space, self.limits(), parts.config.constraints, "the backbone")

    def baselines(self, parts: Parts) -> list[Baseline]:
        """The backbone, and its uniformly pruned versions."""
        from rankitect.contracts import Baseline
        from rankitect.tasks.language.uniform import uniform_baselines

        influence = self.statistics.influence if self.config.depth_baselines else None
        uniform = uniform_baselines(self.space, self.reference, self.config.uniform, influence, self.context)
        backbone = Baseline("largest" if self.backbone_name is None else "backbone", self.reference, reference=True)
        return [backbone, *(Baseline(name, pruned) for name, pruned in uniform)]

    @cached_property
    def registered(self) -> Registered:
        """The registry's production models for this task: architectures of the searched space."""
        from rankitect.tasks.registered import Registered

        return Registered.of(self._parts, self._fits)

    def _fits(self, entry: Entry, architecture: Architecture) -> None:
        if entry.module is not None:
            raise ConfigError("a language search compares with pruned versions of its backbone, not with modules")
        self.space.validate(architecture)

    def record(self, parts: Parts) -> None:
        """Leave what a report needs to know of the text in the run folder."""
        from rankitect.tasks.language.text import record_text

        record_text(self.data.text, self.config.backbone, parts)

    def exporter(self, parts: Parts) -> Exporter:
        """Draws each candidate's graph, and exports its program where the device runs programs."""
        from rankitect.tasks.exporting import exporter

        return exporter(self._programs(parts))

    def baseline_exporter(self, parts: Parts) -> Exporter:
        """Exports what may be the production model, the backbone and registered models: to export and time a program
        takes minutes, and of all baselines predicted latencies are known."""
        from rankitect.tasks.exporting import program_exporter

        def wanted(architecture: Architecture) -> bool:
            return architecture == self.reference or self.registered.entry(architecture) is not None

        return program_exporter(self._programs(parts), wanted)

    def _programs(self, parts: Parts) -> Programs:
        from rankitect.recipes.export import JudgesPrograms
        from rankitect.tasks.exporting import Programs

        judge = self.judge_program if offers(self, JudgesPrograms) else None
        return Programs(parts, self._costs.latency_of, self.sample_text, judge)
