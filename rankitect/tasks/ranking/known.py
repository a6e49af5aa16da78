"""The rankers that a study knows beside those of its space: the ones with names, and the registered ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from rankitect.errors import BaselineError, ConfigError, SpaceError
from rankitect.graph import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline
    from rankitect.data.ranking.dataset import RankingData
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.production.registry import Entry
    from rankitect.tasks.ranking.models import NamedModel
    from rankitect.tasks.ranking.settings import RankingConfig
    from rankitect.tasks.registered import Registered

__all__ = ["KnownRankers"]


class KnownRankers:
    """Rankers by name, registered ones, and the space of each.

    Args:
        config: Which are known, and at what sizes.
        table: The rows, of which some are given to registered modules to see whether they run.
        parts: The study's; the searched space is made after the task.
    """

    def __init__(self, config: RankingConfig, table: RankingData, parts: Parts) -> None:
        self._config, self._table, self._parts = config, table, parts
        self._features: Features = table.features
        self._tried: dict[str, BaselineError | None] = {}

    @cached_property
    def models(self) -> Mapping[str, NamedModel]:
        """Known rankers by name, each an architecture of its own space.

        Raises:
            ConfigError: The configuration names one that it does not define, or has no `task.zoo` to make them.
        """
        from rankitect.tasks.ranking.models import production_models

        c = self._config
        wanted = set(c.models) if c.baselines is None else set(c.baselines)
        wanted |= {name for name in (c.reference, c.model) if name}
        for name in sorted(wanted - set(c.models)):
            raise ConfigError(f"task: there is no model '{name}' in task.models: {', '.join(c.models) or 'none'}.")
        used = {name: keys for name, keys in c.models.items() if name in wanted}
        if not used:
            return {}
        if c.zoo is None:
            raise ConfigError(
                f"task.zoo is not set, and task.models names {', '.join(used)}: give the dotted path of the function "
                "that makes them, or set task.models={}, task.baselines=[] and task.reference=null."
            )
        return production_models(c.zoo, used, self._features, self._parts.config.allowed_packages)

    @cached_property
    def registered(self) -> Registered:
        """The registry's production models for this task."""
        from rankitect.tasks.registered import Registered

        return Registered.of(self._parts, self._fits)

    def _fits(self, entry: Entry, architecture: Architecture) -> None:
        if entry.features is not None and entry.features != self._features.to_json():
            raise ConfigError("it was made for other features (names or table sizes) than this task's data give")
        if entry.module is None:
            self.space_of(architecture).validate(architecture)
            return
        # A production model is asked for before every trial, and is tried once.
        if architecture.fingerprint not in self._tried:
            self._tried[architecture.fingerprint] = self._trouble(entry)
        if (trouble := self._tried[architecture.fingerprint]) is not None:
            raise trouble

    def _trouble(self, entry: Entry) -> BaselineError | None:
        """Why a registered module cannot be run on the rows; None where it can."""
        from rankitect.tasks.ranking.tried import TRIED_ROWS, try_module

        rows = self._table.split("validation").batch(0, TRIED_ROWS)
        try:
            module = self.registered.module(entry, self._features, 0)
            try_module(module, rows, f"baseline {entry.label} ({entry.module})", trained=entry.weights is not None)
        except BaselineError as error:
            return error
        return None

    def production(self) -> tuple[str, Architecture] | None:
        """The production model at this moment, with its name: the one that `report.baseline` names, else the newest
        that is registered; None where there is neither."""
        name, live = self._parts.config.report.baseline, self.registered.live()
        if name is None:
            newest = max(live, key=lambda pair: pair[0].added, default=None)
            return None if newest is None else (newest[0].label, newest[1])
        named = [(entry.label, a) for entry, a in live if name in (entry.name, entry.label)]
        known = [(n, m.architecture) for n, m in self.models.items() if name in (n, n.replace("_", " "))]
        return next(reversed(named), None) or next(iter(known), None)

    def space_of(self, architecture: Architecture) -> ChoiceSpace:
        """The space that an architecture belongs to: the one that is searched, or a production model's.

        Raises:
            SpaceError: It belongs to neither.
        """
        for model in self.models.values():
            if model.architecture.fingerprint == architecture.fingerprint:
                return model.space
        searched: ChoiceSpace = self._parts.space
        if (architecture.space, architecture.version) == (searched.name, searched.version):
            return searched
        if (registered := self.registered.space(architecture)) is not None:
            return registered
        raise SpaceError(
            f"architecture {architecture.fingerprint[:8]} is of space {architecture.space!r}, which is not searched"
        )

    def model_of(self, architecture: Architecture) -> tuple[SearchSpace, Architecture]:
        """The graph that an architecture's model is built from, with the choices that close it: its own, or those of
        `task.model` where the searched space has no graph.

        Raises:
            ConfigError: The searched space has no graph, and the configuration names no model.
        """
        space = self.space_of(architecture)
        if isinstance(space, SearchSpace):
            return space, architecture
        if self._config.model is None:
            raise ConfigError(
                f"space={self._parts.names.get('space', space.name)} has no graph: say which ranker's settings are "
                f"searched, task.model=<name>. Known: {', '.join(self._config.models) or 'none'}."
            )
        fixed = self.models[self._config.model]
        return fixed.space, fixed.architecture

    def is_module(self, architecture: Architecture) -> bool:
        """Whether an architecture stands for a registered module, which no graph describes."""
        entry = self.registered.entry(architecture)
        return entry is not None and entry.module is not None

    def standalone(self, architecture: Architecture, seed: int) -> tuple[nn.Module, bool]:
        """A model of an architecture or a registered module, and whether it comes with its own weights."""
        from rankitect.models.supernet import build

        entry = self.registered.entry(architecture)
        if entry is not None and entry.module is not None:
            return self.registered.module(entry, self._features, seed), entry.weights is not None
        return build(*self.model_of(architecture), seed), False

    def baselines(self) -> list[Baseline]:
        """Those that candidates are compared with; models are trained exactly as candidates are."""
        from rankitect.contracts import Baseline
        from rankitect.tasks.ranking.logged import logged_baseline

        names = self._config.models if self._config.baselines is None else self._config.baselines
        score = self._config.data.table.score
        known = [Baseline(name, self.models[name].architecture) for name in names]
        return known if score is None else [*known, logged_baseline(score)]
