"""The models behind Bayesian optimisation: one Gaussian process a metric, and the acquisition over architectures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rankitect.data.assets import cache_root
from rankitect.data.files import folder_lock
from rankitect.errors import TrainingError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.study.aims import Aims
    from rankitect.study.records import Trial

__all__ = ["Acquisition"]

_CHUNK = 64
_EXTENSIONS = "TORCH_EXTENSIONS_DIR"
_ITERATIONS = 75


def _categories(space: SearchSpace) -> list[int]:
    """Positions of the features that are one-hot or bits; the others are ordinal numbers."""
    from rankitect.graph.features import feature_names

    ordinal = {path for path, choice in space.choices.items() if choice.kind == "ordinal"}
    return [i for i, name in enumerate(feature_names(space)) if name not in ordinal]


def _column(x: Tensor, at: int) -> Tensor:
    """A known metric, which is a column of its own: [..., 1]."""
    return x[..., at : at + 1]


def _beyond(y: Tensor, at: int, sign: float, limit: float) -> Tensor:
    """How far a metric is beyond a limit; at most 0 where it is allowed."""
    return sign * (y[..., at] - limit)


class Acquisition:
    """How much measuring an architecture is expected to improve on what was measured.

    Quality and modelled outcomes have a Gaussian process each, with an ordinal and a categorical kernel over the
    space's features and an inferred noise. Positive metrics are modelled by their logarithm.

    Args:
        space: The space.
        costs: Metrics that need no measurement, by name; the rest is modelled.
        aims: The objectives.
        trials: Finished trials with a measurement.
        pending: Architectures that are being measured.
        outcomes: Allowed ranges of metrics.
        draws: Monte-Carlo draws.
        seed: Of the draws.

    Raises:
        TrainingError: No model could be fitted.
    """

    def __init__(
        self,
        space: SearchSpace,
        costs: Callable[[Architecture], dict[str, float]],
        aims: Aims,
        trials: Sequence[Trial],
        pending: Sequence[Architecture],
        outcomes: Mapping[str, tuple[float | None, float | None]],
        draws: int,
        seed: int,
    ) -> None:
        self._space, self._costs = space, costs
        measurements = [t.measurement for t in trials if t.measurement is not None]
        architectures = [t.architecture for t in trials]
        specs = aims.specs(measurements[0])
        signs = {spec.name: -1.0 if spec.direction == "min" else 1.0 for spec in specs}
        self._names = [*signs, *(name for name in outcomes if name not in signs)]
        free = costs(architectures[0])
        self._known = [name for name in self._names if name in free]
        self._logged = {name: all(m.metrics[name].value > 0 for m in measurements) for name in self._names}
        values = {n: self._scaled(n, np.asarray([m.metrics[n].value for m in measurements])) for n in self._names}
        self._values = torch.tensor(np.stack([values[n] for n in self._names], axis=1))
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            warnings.simplefilter("ignore")  # of numbers of features and jitter: nothing that a user could act on
            torch.manual_seed(seed)
            x = self._encode(architectures)
            model = self._model(x)
            objective = [self._names.index(name) for name in signs]
            weights = torch.tensor([signs[name] for name in signs], dtype=torch.float64)
            bounds = self._bounds(outcomes)
            waiting = self._encode(pending) if pending else None
            self._function = _acquisition(model, x, self._values, objective, weights, bounds, waiting, draws, seed)

    def _scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values that are modelled."""
        return np.log(values) if self._logged[name] else np.asarray(values, dtype=np.float64)

    def _encode(self, architectures: Sequence[Architecture]) -> Tensor:
        """Features, then a column for each known metric, float64 [n, columns]."""
        found = self._space.features(architectures)
        if self._known:
            rows = [self._costs(a) for a in architectures]
            known = [self._scaled(n, np.asarray([max(r[n], 1e-300) for r in rows])) for n in self._known]
            found = np.concatenate([found, np.stack(known, axis=1)], axis=1)
        return torch.from_numpy(found)

    def _model(self, x: Tensor) -> Any:
        """All metrics, in the order of their names."""
        from botorch.models import ModelList
        from botorch.models.deterministic import GenericDeterministicModel

        width = x.shape[-1] - len(self._known)
        parts = []
        for i, name in enumerate(self._names):
            if name in self._known:
                at = width + self._known.index(name)
                parts.append(GenericDeterministicModel(partial(_column, at=at), num_outputs=1))
            else:
                parts.append(_Process(x[:, :width], self._values[:, i : i + 1], _categories(self._space)))
        return ModelList(*parts) if len(parts) > 1 else parts[0]

    def _bounds(self, outcomes: Mapping[str, tuple[float | None, float | None]]) -> list[Callable[[Tensor], Tensor]]:
        """Functions of modelled values [..., metrics] that are at most 0 where an outcome is allowed."""
        found: list[Callable[[Tensor], Tensor]] = []
        for name, ends in outcomes.items():
            at = self._names.index(name)
            for end, sign in zip(ends, (-1.0, 1.0), strict=True):
                if end is not None:
                    if self._logged[name] and end <= 0:
                        continue  # all values are positive
                    limit = float(self._scaled(name, np.asarray([end]))[0])
                    found.append(partial(_beyond, at=at, sign=sign, limit=limit))
        return found

    def values(self, architectures: Sequence[Architecture]) -> list[float]:
        """The acquisition value of each architecture; higher is better."""
        x = self._encode(architectures)[:, None]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [float(v) for part in x.split(_CHUNK) for v in self._function(part)]


def _Process(x: Tensor, y: Tensor, categories: list[int]) -> Any:
    """A fitted Gaussian process that reads the first columns of what it is given."""
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MixedSingleTaskGP, SingleTaskGP
    from botorch.models.transforms.input import FilterFeatures
    from gpytorch.mlls import ExactMarginalLogLikelihood

    keep = FilterFeatures(torch.arange(x.shape[-1]))
    if categories:
        made: Any = MixedSingleTaskGP(x, y, cat_dims=categories, input_transform=keep)
    else:
        made = SingleTaskGP(x, y, input_transform=keep)
    try:
        options = {"options": {"maxiter": _ITERATIONS}}
        fit_gpytorch_mll(ExactMarginalLogLikelihood(made.likelihood, made), optimizer_kwargs=options)
    except ModelFittingError as error:
        raise TrainingError(f"The Gaussian process could not be fitted to {len(x)} measurements: {error}") from error
    return made


def _acquisition(
    model: Any,
    x: Tensor,
    values: Tensor,
    objective: list[int],
    signs: Tensor,
    bounds: list[Callable[[Tensor], Tensor]],
    waiting: Tensor | None,
    draws: int,
    seed: int,
) -> Any:
    """qLogNEHVI for several objectives, qLogNEI for one."""
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
    from botorch.acquisition.objective import GenericMCObjective
    from botorch.sampling.get_sampler import get_sampler

    sampler = get_sampler(model.posterior(x[:1]), torch.Size([draws]), seed=seed)
    if len(objective) == 1:
        one, sign = objective[0], signs[0]
        return qLogNoisyExpectedImprovement(
            model,
            X_baseline=x,
            sampler=sampler,
            objective=GenericMCObjective(lambda y, X=None: sign * y[..., one]),
            constraints=bounds or None,
            X_pending=waiting,
            prune_baseline=False,
        )
    aimed = values[:, objective] * signs
    low, high = aimed.min(0).values, aimed.max(0).values
    with _kernel_folder():
        return qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=low - 0.1 * (high - low).clamp_min(1e-9),
            X_baseline=x,
            sampler=sampler,
            objective=WeightedMCMultiOutputObjective(signs, outcomes=objective),
            constraints=bounds or None,
            X_pending=waiting,
            prune_baseline=True,
        )


@contextmanager
def _kernel_folder() -> Iterator[None]:
    """Where BoTorch compiles a kernel at its first use: in a folder of ours, one process at a time.

    A process that is killed while it compiles leaves torch's lock file, for which every later one would wait forever.
    Who holds the operating system's lock knows that nobody compiles: a lock file that is there then is such a leftover.
    """
    folder = cache_root() / "torch_extensions"
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(_EXTENSIONS)
    with folder_lock(folder) as alone:
        for leftover in folder.rglob("lock") if alone else ():
            leftover.unlink()
        os.environ[_EXTENSIONS] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ[_EXTENSIONS]
            else:
                os.environ[_EXTENSIONS] = before
