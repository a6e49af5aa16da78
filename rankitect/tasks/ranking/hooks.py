"""What a ranking task adds to a study: checks, models to compare with, and the files of candidates and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankitect.errors import ConfigError
from rankitect.tasks.costed import CostedTask
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from pathlib import Path

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline, Exporter
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture
    from rankitect.metrics.ranking import RankingQuality
    from rankitect.tasks.ranking.costs import RankingCosts
    from rankitect.tasks.ranking.known import KnownRankers
    from rankitect.tasks.ranking.settings import RankingConfig
    from rankitect.tasks.registered import Registered

__all__ = ["RankingHooks"]


class RankingHooks(CostedTask):
    """Base of a ranking task; see `rankitect.contracts.hooks`.

    Attributes:
        config: The keys of `task`.
        data: The rows, in batches.
        features: What the data give to a model.
    """

    config: RankingConfig
    data: RankingBatches
    features: Features
    _known: KnownRankers
    _costs: RankingCosts

    @property
    def registered(self) -> Registered:
        """The registry's production models for this task."""
        return self._known.registered

    def check(self, parts: Parts) -> None:
        """Raise what can be known only now: splits of one class, constraints that no architecture meets."""
        from rankitect.metrics.ranking import require_classes
        from rankitect.tasks.ranking.rows import check_slices

        for split in ("train", "validation", "test"):
            require_classes(self.data, split)
        check_slices(self.data.table, parts.config.report.slices)
        if self.config.one_pass and parts.config.runner.together > 1:
            raise ConfigError(
                "task.one_pass predicts every row before it is learnt from, which runner.together="
                f"{parts.config.runner.together} processes that share rows out cannot do: use runner.together=1."
            )
        if placement().shard:
            raise ConfigError(
                "placement.shard=true divides language models. A ranker's tables are divided with runner.together=N "
                "and task.tables.backend=torchrec; the rest of it is small."
            )
        self._known.registered.require_runnable()
        self._costs.check()

    def try_module(self, target: str, weights: Path | None, allowed: Sequence[str]) -> Mapping[str, Any]:
        """Make somebody else's module and call it on validation rows; gives the features that it was made for.

        Raises:
            BaselineError: It cannot be made or run, or gives no logits.
        """
        from rankitect.tasks.ranking.tried import TRIED_ROWS, try_module
        from rankitect.tasks.registered import make_module

        module = make_module(target, weights, self.features, allowed, f"module={target}")
        rows = self.data.table.split("validation").batch(0, TRIED_ROWS)
        try_module(module, rows, f"module={target}", trained=weights is not None)
        return self.features.to_json()

    def baselines(self, parts: Parts) -> list[Baseline]:
        """Known rankers, trained exactly as candidates are, and what the log says that production answered."""
        self._costs.keep_reference()
        return self._known.baselines()

    def logged(self, architecture: Architecture, split: str) -> RankingQuality | None:
        """The quality of the scores that production logged; None for an architecture that stands for a model."""
        from rankitect.tasks.ranking.logged import LOGGED, logged_quality

        return logged_quality(self.data.table, architecture, split) if architecture.space == LOGGED else None

    def exporter(self, parts: Parts) -> Exporter:
        """Draws each candidate's graph, and exports its dense part where the device runs programs."""
        from rankitect.tasks.ranking.exporting import ranking_exporter
        from rankitect.tasks.ranking.models import mend_losses

        mend_losses(parts.folder, self.data, parts.config.allowed_packages, parts.say)
        return ranking_exporter(parts, self.data, self._known.model_of)

    def baseline_exporter(self, parts: Parts) -> Exporter:
        """Exports the dense part of a baseline where the device runs programs; a registered module has none."""
        from rankitect.tasks.ranking.exporting import program_exporter

        return program_exporter(parts, self.data)

    def record(self, parts: Parts) -> None:
        """Leave what a report needs of the test rows in the run folder."""
        from rankitect.tasks.ranking.rows import record_rows

        table = self.config.data.table
        label, timestamp = (column.name if column is not None else "" for column in (table.label, table.timestamp))
        record_rows(self.data.table, parts.folder, parts.config.report.slices, label, timestamp or "the timestamp")
