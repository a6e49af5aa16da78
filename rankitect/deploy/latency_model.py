"""A latency model that is learned from few measurements: a prior, and a Gaussian process on what it misses.

Works on any table of features and latencies. Measurements on real devices have outliers (a phone that throttles, a
machine that was busy); one fit finds them, a second leaves them out. On the Raspberry Pi table of HAT
(arXiv 2005.14187) that halves the error. A new measurement may be an outlier as well, so that all rows count in the
width of the intervals, those that were left out too: it is the width that would have held 95% of the rows, each
predicted from others (conformal prediction by cross-validation, arXiv 1905.02928).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.errors import AssetError, DataError, DeployError, brief

__all__ = ["LatencyModel", "Prediction", "space_filling"]

Array = NDArray[np.float64]
FEWEST = 4
"""Rows that a fit needs."""
OUTLYING = 3.0
"""Residuals of so many robust standard deviations are outliers."""
TRIMMED_FROM = 20
"""With fewer rows nothing is left out: a wrong fit and a wrong row cannot be told apart."""
COVERED = 0.95
NORMAL = 1.96
"""Standard deviations to each side that hold 95% of a normal distribution."""
FOLDS = 5
"""Parts of the rows that are predicted from the other ones."""
UNKNOWN = 100.0
"""Half a width, in deviations, where there are too few rows to predict one from others."""
ENOUGH_ROWS = 39
"""Rows from which on the 95% quantile of their errors is one of them, and not an extrapolation."""
NOISE = 0.003
"""Deviation, relative to the latency, that a prediction's interval holds at least."""


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies, ms.

    Attributes:
        mean: [n].
        std: Standard deviation of a new measurement [n]: of a normal distribution with the same 95% interval.
    """

    mean: Array
    std: Array

    @property
    def low(self) -> Array:
        """Lower end of the 95% interval, at least 0."""
        return np.maximum(self.mean - NORMAL * self.std, 0.0)

    @property
    def high(self) -> Array:
        """Upper end of the 95% interval."""
        return self.mean + NORMAL * self.std


@dataclass(frozen=True)
class _HeldOut:
    """How far rows are from what models say that have not seen them.

    Attributes:
        relative: Absolute errors relative to the latency [n].
        usual: Their median, from which on a deviation counts as one: with few rows, a process may believe to have none.
        half_width: Of the 95% interval, in deviations of the process and of `usual` together.
    """

    relative: Array
    usual: float
    half_width: float


@dataclass
class LatencyModel:
    """A Gaussian process that learns latencies from measured rows of features. Needs BoTorch.

    Attributes:
        metadata: What the measurements depend on (device, runtime version, precision); saved with the model.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    _features: Array | None = None
    _latency: Array | None = None
    _prior: Array | None = None
    _process: Any = None
    _kept: NDArray[np.bool_] | None = None
    _errors: _HeldOut | None = None

    def fit(self, features: Array, latency: Array, prior: Array | None = None) -> LatencyModel:
        """Learn from measurements.

        Args:
            features: [n, d].
            latency: Milliseconds [n].
            prior: A rough latency of each row [n], such as a sum over blocks, whose ratio to the truth is learned;
                None where there is none.

        Raises:
            DataError: A value is missing or not positive (says row and column), or there are fewer than 4 rows.
            DeployError: BoTorch is not installed.
        """
        x, y = _table(features), _column(latency, "latency")
        given = None if prior is None else _column(prior, "prior")
        if len(x) < FEWEST or len(x) != len(y) or (given is not None and len(given) != len(x)):
            raise DataError(f"A latency model needs at least {FEWEST} rows, each with its latency; got {len(x)}.")
        self._features, self._latency, self._prior = x, y, given
        self._low, self._span = x.min(0), np.maximum(np.ptp(x, axis=0), 1e-12)
        target = y if given is None else y / given
        self._center, self._scale = float(target.mean()), float(max(target.std(), 1e-9 * abs(target.mean())))
        target = (target - self._center) / self._scale
        kept = np.ones(len(x), dtype=bool)
        self._process = _fitted(self._scaled(x), target)
        if len(x) >= TRIMMED_FROM:
            residual = np.abs(target - _posterior(self._process, self._scaled(x))[0])
            kept = residual <= OUTLYING * 1.4826 * max(float(np.median(residual)), 1e-6)
            if not kept.all() and kept.sum() >= FEWEST:
                self._process = _fitted(self._scaled(x)[kept], target[kept])
        self._kept = kept
        self._errors = None
        return self

    @property
    def outliers(self) -> list[int]:
        """The rows that were left out of the fit, because they disagree with all others."""
        return [] if self._kept is None else np.nonzero(~self._kept)[0].tolist()

    def predict(self, features: Array, prior: Array | None = None) -> Prediction:
        """Latencies of rows like those of `fit`.

        Raises:
            DataError: Another number of columns, a value that is missing, or a prior where none was learned with.
        """
        if self._features is None:
            raise DataError("The latency model has learned nothing yet: call fit first.")
        value, spread = self._posterior_of(features, prior)
        errors = self._held_out
        return Prediction(value, errors.half_width * np.hypot(spread, errors.usual * value) / NORMAL)

    def _posterior_of(self, features: Array, prior: Array | None) -> tuple[Array, Array]:
        """Latencies, and the deviations of the process, which know nothing of outliers; ms [n] each."""
        assert self._features is not None
        x = _table(features, self._features.shape[1])
        if (prior is None) != (self._prior is None):
            raise DataError("A prior is given to both fit and predict, or to neither.")
        factor = np.ones(len(x)) if prior is None else _column(prior, "prior")
        mean, std = _posterior(self._process, self._scaled(x))
        return np.maximum(factor * (self._center + self._scale * mean), 1e-9), np.abs(factor) * self._scale * std

    @property
    def _held_out(self) -> _HeldOut:
        """The errors of all rows, each predicted by a model that was learned from others."""
        if self._errors is None:
            self._errors = self._cross_validate()
        return self._errors

    def _cross_validate(self) -> _HeldOut:
        if self._features is None or self._latency is None:
            raise DataError("The latency model has learned nothing yet: call fit first.")
        x, y, prior = self._features, self._latency, self._prior
        order = np.random.default_rng(0).permutation(len(x))
        parts = []
        for part in np.array_split(order, min(FOLDS, len(x))):
            rest = np.setdiff1d(order, part)
            if len(rest) < FEWEST:
                continue
            model = LatencyModel().fit(x[rest], y[rest], None if prior is None else prior[rest])
            value, spread = model._posterior_of(x[part], None if prior is None else prior[part])
            parts.append((value, spread, y[part]))
        if not parts:
            return _HeldOut(np.full(1, np.inf), 1.0, UNKNOWN)
        value, spread, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
        usual = max(float(np.median(np.abs(truth / value - 1))), NOISE)
        return _HeldOut(
            np.abs(value / truth - 1), usual, _half_width(np.abs(truth - value) / np.hypot(spread, usual * value))
        )

    def cross_validated(self) -> float:
        """Mean absolute percentage error of rows that were left out, percent; outliers count."""
        return float(100 * self._held_out.relative.mean())

    def choose(self, candidates: Array, prior: Array | None = None, count: int = 1) -> list[int]:
        """What to measure next: the most uncertain, each given that those before it will be known.

        Args:
            candidates: [m, d].
            prior: [m], as in `fit`.
            count: How many.

        Returns:
            Rows of `candidates`.
        """
        import torch

        value, spread = self._posterior_of(candidates, prior)
        x, process = self._scaled(_table(candidates)), self._process
        relative = spread / value
        chosen: list[int] = []
        with _settled(), torch.no_grad():
            for _ in range(min(count, len(x))):
                open_rows = relative.copy()
                open_rows[chosen] = -1
                chosen.append(int(open_rows.argmax()))
                at = torch.as_tensor(x[chosen[-1:]])
                process = process.condition_on_observations(at, process.posterior(at).mean)
                _mean, std = _posterior(process, x)
                factor = np.ones(len(x)) if prior is None else np.asarray(prior)
                relative = self._scale * std * np.abs(factor) / value
        return chosen

    def _scaled(self, x: Array) -> Array:
        return (x - self._low) / self._span

    # --- on disk ----------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the measurements; the fit is a function of them."""
        from rankitect.data.kept import write_sealed

        if self._features is None or self._latency is None:
            raise DataError("The latency model has learned nothing yet: call fit first.")
        tensors = {"features": self._features, "latency": self._latency}
        if self._prior is not None:
            tensors["prior"] = self._prior
        write_sealed(Path(path), tensors, dict(self.metadata))

    @classmethod
    def load(cls, path: str | Path, expected: Mapping[str, str] | None = None) -> LatencyModel:
        """Read what `save` wrote, and fit again.

        Args:
            path: The file.
            expected: What the metadata must say.

        Raises:
            AssetError: The file is damaged, or from another device, runtime version or precision.
        """
        from rankitect.data.guard import guarded
        from rankitect.data.kept import read_sealed

        refused = f"{brief(path)} is no latency model"
        tensors, metadata = read_sealed(Path(path), refused)
        with guarded(refused):
            model = cls(metadata).fit(tensors["features"], tensors["latency"], tensors.get("prior"))
        for name, value in (expected or {}).items():
            if metadata.get(name) != value:
                raise AssetError(f"{brief(path)} was learned with {name}={brief(metadata.get(name))}, not {value}.")
        return model


def space_filling(candidates: Array, count: int, seed: int = 0) -> list[int]:
    """Choose rows far from each other to measure first: the smallest, the largest, then the one farthest from those.

    Args:
        candidates: [m, d].
        count: How many.
        seed: Breaks ties.
    """
    x = _table(candidates)
    x = (x - x.min(0)) / np.maximum(np.ptp(x, axis=0), 1e-12)
    x = x + 1e-6 * np.random.default_rng(seed).random(x.shape)
    total = x.sum(1)
    chosen = list(dict.fromkeys([int(total.argmin()), int(total.argmax())]))[:count]
    near = np.min([np.linalg.norm(x - x[i], axis=1) for i in chosen], axis=0) if chosen else np.zeros(len(x))
    while len(chosen) < min(count, len(x)):
        chosen.append(int(near.argmax()))
        near = np.minimum(near, np.linalg.norm(x - x[chosen[-1]], axis=1))
    return chosen


def _table(features: Array, columns: int | None = None) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or (columns is not None and x.shape[1] != columns):
        raise DataError(f"Features are a table of {columns or 'one or more'} columns, not of shape {list(x.shape)}.")
    if not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise DataError(f"features, row {row}, column {column}: {x[row, column]} is no number.")
    return x


def _column(values: Array, name: str) -> Array:
    y = np.asarray(values, dtype=np.float64).ravel()
    bad = ~(np.isfinite(y) & (y > 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}, row {row}: {y[row]} is no positive number of milliseconds.")
    return y


@contextmanager
def _settled() -> Iterator[None]:
    """The same random numbers every time, and without notes that nobody could act on."""
    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def _fitted(x: Array, y: Array) -> Any:
    """A Gaussian process with BoTorch's priors, which scale with the number of features (arXiv 2402.02229)."""
    try:
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood
    except ImportError as error:
        raise DeployError("A latency model needs BoTorch: pip install 'rankitect[bayesian]'.") from error
    import torch

    with _settled():
        process = SingleTaskGP(torch.as_tensor(x), torch.as_tensor(y)[:, None], outcome_transform=None)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
    return process


def _posterior(process: Any, x: Array) -> tuple[Array, Array]:
    import torch

    with _settled(), torch.no_grad():
        posterior = process.posterior(torch.as_tensor(x), observation_noise=True)
        return posterior.mean[..., 0].numpy().ravel(), posterior.variance[..., 0].sqrt().numpy().ravel()


def _half_width(errors: Array) -> float:
    """How many deviations to each side hold 95% of new rows.

    Args:
        errors: Absolute errors of rows that were predicted from others, in deviations [n].
    """
    n = len(errors)
    if n >= ENOUGH_ROWS:
        return float(np.sort(errors)[int(np.ceil(COVERED * (n + 1))) - 1])
    from scipy.stats import t

    return float(t.ppf((1 + COVERED) / 2, n - 1) * np.sqrt((1 + 1 / n) * np.mean(errors**2)))
