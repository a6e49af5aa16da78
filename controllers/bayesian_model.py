"""What measuring an architecture promises: the acquisition functions of Bayesian optimisation."""

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

from rankitect.controllers.bayesian_process import Fitted, process, readings
from rankitect.data.assets import cache_root
from rankitect.data.files import folder_lock

if TYPE_CHECKING:
    from rankitect.contracts import Trial
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.methods.objectives import Objectives

__all__ = ["Acquisition"]

CHUNK = 256
"""Architectures that are screened at once."""
MARGIN = 0.1
"""How far beyond the front's ends the reference point is, in the front's ranges."""
_EXTENSIONS = "TORCH_EXTENSIONS_DIR"
_compiled: list[bool] = []
"""Not empty once this process has loaded the kernel; it need not wait for processes that compile it then."""


class Acquisition:
    """How much measuring an architecture is expected to improve on what was measured.

    Each metric has a Gaussian process; positive ones are modelled by their logarithm. Many architectures are screened
    by the closed form of the expected improvement (of the hypervolume, with several objectives) beyond the front of the
    processes' means, times the probability that the outcomes are allowed (Gardner et al. 2014). Of the best, the noisy
    expected improvement decides (arXiv 2105.08195, 2310.20708), which integrates over what the front may really be.

    Args:
        space: The space.
        costs: Metrics that need no measurement, by name. Screening models them like the others, which is quicker and
            errs little; the decision reads them.
        objectives: The objectives.
        trials: Finished trials with a measurement.
        pending: Architectures that are being measured.
        outcomes: Allowed ranges of metrics.
        draws: Monte-Carlo draws of the decision.
        seed: Of the draws.
        fitted: What earlier acquisitions of the same search fitted, and where this one leaves it.
        hints: For some metrics a rough guess of what is modelled (the logarithm, of a positive metric), float64 [n].

    Raises:
        TrainingError: No model could be fitted.
    """

    def __init__(
        self,
        space: ChoiceSpace,
        costs: Callable[[Architecture], dict[str, float]],
        objectives: Objectives,
        trials: Sequence[Trial],
        pending: Sequence[Architecture],
        outcomes: Mapping[str, tuple[float | None, float | None]],
        draws: int,
        seed: int,
        fitted: Fitted | None = None,
        hints: Mapping[str, Callable[[Sequence[Architecture]], np.ndarray]] | None = None,
    ) -> None:
        self._space, self._costs, self._draws, self._seed = space, costs, draws, seed
        measurements = [t.measurement for t in trials if t.measurement is not None]
        self._tried, self._pending = [t.architecture for t in trials], list(pending)
        signs = {s.name: -1.0 if s.direction == "min" else 1.0 for s in objectives.specs(measurements[0])}
        self._objectives = len(signs)
        self._names = [*signs, *(name for name in outcomes if name not in signs)]
        free = costs(self._tried[0])
        self._known = [name for name in self._names if name in free]
        self._logged = {name: all(m.metrics[name].value > 0 for m in measurements) for name in self._names}
        self._scales: dict[str, tuple[float, float]] = {}
        self._hints = {name: hint for name, hint in (hints or {}).items() if name in self._names}
        x, fitted = self._readings(self._tried), {} if fitted is None else fitted
        # All processes share one matrix; each reads the plain columns and, last, the column of its own hint.
        plain = list(range(x.shape[1] - len(self._hints)))
        models, values = [], []
        with _quiet(seed):
            for name in self._names:
                y = self._modelled(name, [m.metrics[name].value for m in measurements])
                hinted = name in self._hints
                columns = [*plain, len(plain) + list(self._hints).index(name)] if hinted else plain
                y = y * signs.get(name, 1.0)
                model, shift, scale = process(name, x, y, self._logged[name], fitted, columns, hinted)
                # Objectives were turned so that more is better: the scale of those to be minimised is negative.
                self._scales[name] = shift * signs.get(name, 1.0), scale * signs.get(name, 1.0)
                models.append(model)
                values.append(self._standard(name, [m.metrics[name].value for m in measurements]))
        self._models, self._values = models, torch.stack(values, dim=1)
        self._bounds = list(self._made_bounds(outcomes))
        self._screen()

    def _modelled(self, name: str, values: Sequence[float]) -> Tensor:
        numbers = np.asarray(values, dtype=np.float64)
        return torch.from_numpy(np.log(np.maximum(numbers, 1e-300)) if self._logged[name] else numbers)

    def _standard(self, name: str, values: Sequence[float]) -> Tensor:
        """Values as the models see them: standardised, with objectives turned so that more is better."""
        shift, scale = self._scales[name]
        return (self._modelled(name, values) - shift) / scale

    def _readings(self, architectures: Sequence[Architecture]) -> Tensor:
        """What the processes see: readings of the space, then a column for each hint; float64 [n, columns]."""
        guessed = [hint(architectures) for hint in self._hints.values()]
        return torch.from_numpy(np.column_stack([readings(self._space, architectures), *guessed]))

    def _made_bounds(
        self, outcomes: Mapping[str, tuple[float | None, float | None]]
    ) -> Iterator[tuple[int, float, float]]:
        """Position of the metric, sign, and limit: the sign times the standard value must not be above the limit."""
        for name, ends in outcomes.items():
            for end, sign in zip(ends, (-1.0, 1.0), strict=True):
                if end is not None:
                    # A negative scale swaps the two ends of a range.
                    sign = sign if self._scales[name][1] > 0 else -sign
                    yield self._names.index(name), sign, sign * float(self._standard(name, [end]))

    def _foreseen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of all metrics; float64 [n, metrics] each."""
        posteriors = [model.posterior(x[:, None]) for model in self._models]
        return torch.cat([p.mean[:, 0] for p in posteriors], 1), torch.cat([p.variance[:, 0] for p in posteriors], 1)

    def _allowed(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Logarithm of the probability that all outcomes are within their ranges, taken as independent; [n]."""
        log_chance = torch.zeros(len(mean), dtype=mean.dtype)
        for at, sign, limit in self._bounds:
            z = (limit - sign * mean[:, at]) / variance[:, at].clamp_min(1e-18).sqrt()
            log_chance = log_chance + torch.special.log_ndtr(z)
        return log_chance

    def _screen(self) -> None:
        """Prepare the closed form: expected improvement beyond the front of the measured architectures' means."""
        from botorch.acquisition.analytic import LogExpectedImprovement
        from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
        from botorch.models import ModelListGP
        from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning

        with torch.no_grad(), _quiet(self._seed):
            mean, variance = self._foreseen(self._readings([*self._tried, *self._pending]))
            self._keep = _plausible(mean, variance, len(self._tried), self._objectives)
            # The closed form wants a front without noise: the means of what is more likely allowed than not.
            reached = mean[self._allowed(mean, variance) >= float(np.log(0.5)), : self._objectives]
            self._closed: Any = None
            if not len(reached):
                return
            if self._objectives == 1:
                self._closed = LogExpectedImprovement(self._models[0], best_f=reached.max())
            else:
                reference = _reference_point(self._values[:, : self._objectives])
                parts = FastNondominatedPartitioning(ref_point=reference, Y=reached)
                model = ModelListGP(*self._models[: self._objectives])
                self._closed = ExpectedHypervolumeImprovement(model, reference.tolist(), parts)

    def screened(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """The logarithm of the closed form for each architecture, float64 [n]; higher is better.

        Where no measured architecture is allowed, the logarithm of the probability of being allowed.
        """
        x = self._readings(architectures)
        with torch.no_grad(), _quiet(self._seed):
            return np.concatenate([self._closed_form(part).numpy() for part in x.split(CHUNK)])

    def _closed_form(self, x: Tensor) -> Tensor:
        allowed = self._allowed(*self._foreseen(x)) if self._bounds else torch.zeros(len(x), dtype=x.dtype)
        if self._closed is None:
            return allowed
        improvement = self._closed(x[:, None])
        return allowed + (improvement if self._objectives == 1 else improvement.clamp_min(1e-300).log())

    def values(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """The logarithm of the noisy expected improvement for each architecture, float64 [n]; higher is better."""
        if self._closed is None:
            return self.screened(architectures)
        with torch.no_grad(), _quiet(self._seed):
            if not hasattr(self, "_noisy"):
                self._noisy = self._made_noisy()
            return np.asarray([float(v) for v in self._noisy(self._encoded(architectures)[:, None])])

    def _encoded(self, architectures: Sequence[Architecture]) -> Tensor:
        """Readings, then a column for each known metric; float64 [n, columns]."""
        x = self._readings(architectures)
        rows = [self._costs(a) for a in architectures] if self._known else []
        return torch.cat([x, *(self._standard(n, [r[n] for r in rows])[:, None] for n in self._known)], dim=1)

    def _made_noisy(self) -> Any:
        """qLogNEHVI for several objectives, qLogNEI for one."""
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.acquisition.objective import GenericMCObjective
        from botorch.models import ModelList
        from botorch.models.deterministic import GenericDeterministicModel
        from botorch.sampling.get_sampler import get_sampler

        x = self._encoded([a for a, keep in zip(self._tried, self._keep, strict=True) if keep])
        width = x.shape[1] - len(self._known)
        # A metric that is known without a measurement is read from its column instead of being predicted.
        parts = [
            GenericDeterministicModel(partial(_column, at=width + self._known.index(name)), num_outputs=1)
            if name in self._known
            else model
            for name, model in zip(self._names, self._models, strict=True)
        ]
        model = ModelList(*parts) if len(parts) > 1 else parts[0]
        common: dict[str, Any] = {
            "X_baseline": x,
            "sampler": get_sampler(model.posterior(x[:1]), torch.Size([self._draws]), seed=self._seed),
            "constraints": [partial(_beyond, at=at, sign=s, limit=limit) for at, s, limit in self._bounds] or None,
            "X_pending": self._encoded(self._pending) if self._pending else None,
        }
        if self._objectives == 1:
            objective = GenericMCObjective(lambda y, X=None: y[..., 0])
            return qLogNoisyExpectedImprovement(model, objective=objective, prune_baseline=False, **common)
        chosen = IdentityMCMultiOutputObjective(outcomes=list(range(self._objectives)), num_outcomes=len(self._names))
        reference = _reference_point(self._values[:, : self._objectives])
        with _kernel_folder():
            return qLogNoisyExpectedHypervolumeImprovement(
                model, ref_point=reference, objective=chosen, prune_baseline=False, **common
            )


def _reference_point(values: Tensor) -> Tensor:
    """A point a little worse than the ends of the measured front, [objectives].

    A reference at the worst measurement would pay for ever worse and cheaper models, which nobody wants.

    Args:
        values: Of the measured architectures, higher is better [n, objectives].
    """
    from botorch.utils.multi_objective.hypervolume import infer_reference_point
    from botorch.utils.multi_objective.pareto import is_non_dominated

    return infer_reference_point(values[is_non_dominated(values)], scale=MARGIN)


def _plausible(mean: Tensor, variance: Tensor, tried: int, objectives: int) -> list[bool]:
    """Which of the tried architectures may be on the front: those that no other is expected to beat, even
    supposing that they are two standard deviations better than they look.

    The noisy improvement integrates over these alone. BoTorch's own pruning takes seconds to find them among hundreds.
    """
    best = mean[:tried, :objectives] + 2 * variance[:tried, :objectives].sqrt()
    worse = (mean[None, :tried, :objectives] > best[:, None]).all(-1)
    return [not bool(beaten) for beaten in worse.any(1)]


def _column(x: Tensor, at: int) -> Tensor:
    """A known metric, which is a column of its own: [..., 1]."""
    return x[..., at : at + 1]


def _beyond(y: Tensor, at: int, sign: float, limit: float) -> Tensor:
    """How far a metric is beyond a limit; at most 0 where it is allowed."""
    return sign * y[..., at] - limit


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Silence warnings of jitter and the like, which nobody could act on, and keep torch's random state as it was."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


@contextmanager
def _kernel_folder() -> Iterator[None]:
    """Where BoTorch compiles a kernel at its first use: in a folder of ours, one process at a time.

    A process that is killed while it compiles leaves torch's lock file behind, and every later process would wait for
    it forever. Whoever holds the operating system's lock knows that nobody is compiling, so that any lock file it sees
    is such a leftover.
    """
    folder = cache_root() / "torch_extensions"
    folder.mkdir(parents=True, exist_ok=True)
    if _compiled:
        yield
        return
    before = os.environ.get(_EXTENSIONS)
    with folder_lock(folder) as alone:
        for leftover in folder.rglob("lock") if alone else ():
            leftover.unlink()
        os.environ[_EXTENSIONS] = str(folder)
        try:
            yield
            _compiled.append(True)
        finally:
            if before is None:
                del os.environ[_EXTENSIONS]
            else:
                os.environ[_EXTENSIONS] = before
