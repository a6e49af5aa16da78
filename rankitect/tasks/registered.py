"""Registered production models, as a search meets them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.guard import guarded
from rankitect.data.tensors import read_tensors
from rankitect.documents import read_text
from rankitect.errors import BaselineError, ConfigError, RankitectError, SpaceError, brief, short
from rankitect.production.registry import Entry, Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Baseline
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Registered", "make_module", "module_costs"]

_LONGEST = 200
"""Characters of somebody else's message."""


class Registered:
    """The production models of one task in a registry. What does not fit is said once and left out; what fits and
    cannot be run stops a search that begins (`require_runnable`).

    Args:
        folder: The registry; None for none.
        task: Name of the task.
        fits: Raises where an entry does not fit the task.
        allowed: Packages that modules and spaces may come from.
        say: Shows a sentence to the user.
    """

    def __init__(
        self,
        folder: str | None,
        task: str,
        fits: Callable[[Entry, Architecture], None],
        allowed: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self._registry = None if folder is None else Registry(Path(folder))
        self._task, self._fits, self._allowed, self._say = task, fits, allowed, say
        self._known: dict[str, Entry] = {}
        self._refused: dict[str, str] = {}
        self._broken: dict[str, str] = {}

    @classmethod
    def of(cls, parts: Parts, fits: Callable[[Entry, Architecture], None]) -> Registered:
        """The models that the registry of a configuration holds for its task."""
        config = parts.config
        return cls(config.report.registry, parts.names.get("task", ""), fits, config.allowed_packages, parts.say)

    def live(self) -> list[tuple[Entry, Architecture]]:
        """What is to be compared with now."""
        if self._registry is None:
            return []
        for damage in self._registry.read()[1]:
            self._refuse(str(damage.path), f"a baseline is left out: {damage.reason}")
        entries = []
        for entry in self._registry.live(self._task):
            if (architecture := self._architecture(entry)) is None:
                continue
            try:
                self._known[architecture.fingerprint] = entry  # `fits` may ask for its space
                self._fits(entry, architecture)
            except BaselineError as error:
                self._broken[entry.label] = str(error)
                self._refuse(entry.label, f"baseline {entry.label} cannot be run and is left out: {error}")
                continue
            except (RankitectError, OSError, ValueError) as error:
                self._refuse(entry.label, f"baseline {entry.label} does not fit this search and is left out: {error}")
                continue
            entries.append((entry, architecture))
        return entries

    def require_runnable(self) -> None:
        """Refuse a production model that cannot be run, before a search that would be compared with it begins.

        Raises:
            BaselineError: There is one.
        """
        able = {entry.label for entry, _ in self.live()}
        wanted = [] if self._registry is None else [entry.label for entry in self._registry.live(self._task)]
        for label, why in self._broken.items():
            if label in wanted and label not in able:
                name = label.rpartition(" v")[0]
                raise BaselineError(
                    f"{short(why, 400)} Mend it, or take it out: python -m rankitect.baseline retire {name}."
                )

    def left_out(self) -> dict[str, str]:
        """What should be compared with now and cannot be, and why."""
        if self._registry is None:
            return {}
        live = {entry.label for entry, _ in self.live()}
        wanted = [str(damage.path) for damage in self._registry.read()[1]]
        wanted += [entry.label for entry in self._registry.live(self._task) if entry.label not in live]
        return {name: self._refused[name] for name in wanted if name in self._refused}

    def baselines(self) -> list[Baseline]:
        """All registered models of the task; those that are to be compared with now have `live`."""
        from rankitect.contracts import Baseline

        live = {entry.label: architecture for entry, architecture in self.live()}
        if self._registry is None:
            return []
        kept = ("version", "added", "retired", "note")
        baselines = []
        for entry in self._registry.entries():
            if entry.task != self._task or entry.label in self._refused:
                continue
            if (architecture := live.get(entry.label) or self._architecture(entry)) is not None:
                about = {**{key: getattr(entry, key) for key in kept}, "live": entry.label in live}
                baselines.append(Baseline(entry.label, architecture, about))
        return baselines

    def _architecture(self, entry: Entry) -> Architecture | None:
        """The architecture of an entry; None where it holds none, which older versions let in."""
        from rankitect.graph import Architecture

        try:
            return Architecture.from_json(json.dumps(entry.identity))
        except SpaceError as error:
            file = self._registry.file(entry) if self._registry is not None else entry.label
            self._refuse(entry.label, f"baseline {entry.label} is left out: {file}: {error}. Delete the file.")
            return None

    def _refuse(self, name: str, sentence: str) -> None:
        if name not in self._refused:
            self._refused[name] = sentence
            logging.getLogger("rankitect").warning("%s", sentence)
            self._say(sentence)

    def entry(self, architecture: Architecture) -> Entry | None:
        """The registered model with this architecture, if it is one."""
        if architecture.fingerprint not in self._known and architecture.space == "module":
            self.live()
        return self._known.get(architecture.fingerprint)

    def space(self, architecture: Architecture) -> SearchSpace | None:
        """The space that came with a registered architecture, if one did."""
        from rankitect.graph import SearchSpace

        if architecture.fingerprint not in self._known:
            self.live()
        entry = self._known.get(architecture.fingerprint)
        if entry is None or entry.space is None or self._registry is None:
            return None
        return SearchSpace.from_json(read_text(self._registry.path(entry, entry.space), BaselineError), self._allowed)

    def module(self, entry: Entry, features: Any, seed: int) -> nn.Module:
        """A registered module, with its weights where it has some.

        Raises:
            BaselineError: See `make_module`.
        """
        assert self._registry is not None
        weights = None if entry.weights is None else self._registry.path(entry, entry.weights)
        return make_module(str(entry.module), weights, features, self._allowed, f"baseline {entry.label}", seed)


def make_module(
    target: str, weights: Path | None, features: Any, allowed: Sequence[str], called: str, seed: int = 0
) -> nn.Module:
    """A module that a function of somebody else's makes, with its weights where it has some.

    Args:
        target: Dotted path of the function, features to module.
        weights: Safetensors file; None where it is to be trained.
        features: What the data give to it.
        allowed: Packages that it may come from.
        called: What it is called in messages.
        seed: Of its first weights.

    Raises:
        BaselineError: The function is not allowed, is not there, raises, gives no module, or the weights are not its
            own.
    """
    import torch

    from rankitect.config.plugins import load_target

    try:
        make = load_target(target, allowed, called, ("Module",))
    except ConfigError as error:
        raise BaselineError(str(error)) from error
    torch.manual_seed(seed)
    try:
        module = make(features)
    except Exception as error:  # whatever somebody else's code raises
        said = short(f"{type(error).__name__}: {' '.join(str(error).split())}", _LONGEST)
        raise BaselineError(f"{called}: {target}(features) raises {said}.") from error
    if not isinstance(module, torch.nn.Module):
        raise BaselineError(f"{called}: {target} gives {type(module).__name__}, not a torch module.")
    if weights is not None:
        wrong = f"{called}: {brief(weights.name)} holds no weights of {target}"
        tensors = read_tensors(weights, wrong, BaselineError)
        with guarded(wrong, BaselineError):
            module.load_state_dict(tensors)
    return module


def module_costs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """FLOPs of one example, parameters, and rows and bytes of embedding tables, counted in a module.

    Args:
        model: The module.
        inputs: One example.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tables = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding | torch.nn.EmbeddingBag)]
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    model.train(training)
    return {
        "flops": float(counter.get_total_flops()),
        "params": float(sum(p.numel() for p in model.parameters())),
        "table_rows": float(sum(t.shape[0] for t in tables)),
        "table_bytes": float(sum(t.numel() * t.element_size() for t in tables)),
    }
