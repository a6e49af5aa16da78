"""A latency model that is learned from few measurements: a prior, and a Gaussian process on what it misses.

Works on any table of features and latencies. Measurements on real devices have outliers (a phone that throttles, a
machine that was busy); one fit finds them, a second leaves them out. On the Raspberry Pi table of HAT
(arXiv 2005.14187) that halves the error. A new measurement may be an outlier as well, so all rows, those that were left
out too, count in the width of the intervals: it is that which, in units of the process's own deviation, would have held
95% of the rows, each predicted from the others (the jackknife+, arXiv 1905.02928).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.documents import parse_json
from rankitect.errors import AssetError, DataError, DeployError

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
    _widening: float = 1.0

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
        self._widening = self._calibrated(self._scaled(x), target, kept)
        return self

    def _calibrated(self, x: Array, target: Array, kept: NDArray[np.bool_]) -> float:
        """By what the deviations of the process are multiplied so that 95% of the rows lie inside of their intervals.

        Args:
            x: Scaled features of the rows that were learned from [n, d].
            target: What was learned of them [n].
            kept: Which of them the last fit has seen [n].
        """
        errors = np.empty(len(x))  # in standard deviations
        errors[kept] = _left_out(self._process, x[kept], target[kept])
        if not kept.all():
            mean, std = _posterior(self._process, x[~kept])
            errors[~kept] = (target[~kept] - mean) / std
        return _half_width(np.abs(errors)) / NORMAL

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
        x = _table(features, self._features.shape[1])
        if (prior is None) != (self._prior is None):
            raise DataError("A prior is given to both fit and predict, or to neither.")
        factor = np.ones(len(x)) if prior is None else _column(prior, "prior")
        mean, std = _posterior(self._process, self._scaled(x))
        value = factor * (self._center + self._scale * mean)
        spread = np.abs(factor) * self._scale * std
        return Prediction(np.maximum(value, 1e-9), np.hypot(self._widening * spread, NOISE * value))

    def cross_validated(self, folds: int = 5, seed: int = 0) -> float:
        """Mean absolute percentage error of rows that were left out, percent; outliers count."""
        if self._features is None or self._latency is None:
            raise DataError("The latency model has learned nothing yet: call fit first.")
        x, y, prior = self._features, self._latency, self._prior
        order = np.random.default_rng(seed).permutation(len(x))
        errors = []
        for part in np.array_split(order, min(folds, len(x))):
            rest = np.setdiff1d(order, part)
            if len(rest) < FEWEST:
                continue
            model = LatencyModel().fit(x[rest], y[rest], None if prior is None else prior[rest])
            prediction = model.predict(x[part], None if prior is None else prior[part])
            errors.append(np.abs(prediction.mean / y[part] - 1))
        return float(100 * np.concatenate(errors).mean()) if errors else float("inf")

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

        prediction = self.predict(candidates, prior)
        x, process = self._scaled(_table(candidates)), self._process
        relative = prediction.std / np.maximum(prediction.mean, 1e-9)
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
                relative = self._scale * std * np.abs(factor) / np.maximum(prediction.mean, 1e-9)
        return chosen

    def _scaled(self, x: Array) -> Array:
        return (x - self._low) / self._span

    # --- on disk ----------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the measurements; the fit is a function of them."""
        from safetensors.numpy import save_file

        from rankitect.data.files import write_atomically

        if self._features is None or self._latency is None:
            raise DataError("The latency model has learned nothing yet: call fit first.")
        tensors = {"features": self._features, "latency": self._latency}
        if self._prior is not None:
            tensors["prior"] = self._prior
        header = {"kind": "rankitect latency model", "metadata": json.dumps(self.metadata, sort_keys=True)}
        write_atomically(Path(path), lambda part: save_file(tensors, part, metadata=header))

    @classmethod
    def load(cls, path: str | Path, expected: Mapping[str, str] | None = None) -> LatencyModel:
        """Read what `save` wrote, and fit again.

        Args:
            path: The file.
            expected: What the metadata must say.

        Raises:
            AssetError: The file is damaged, or from another device, runtime version or precision.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "np") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = parse_json(header["metadata"], dict[str, Any], "its description")
            model = cls(metadata).fit(tensors["features"], tensors["latency"], tensors.get("prior"))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise AssetError(f"{path} is no latency model ({type(error).__name__}: {error}).") from error
        for name, value in (expected or {}).items():
            if metadata.get(name) != value:
                raise AssetError(f"{path} was learned with {name}={metadata.get(name)}, not {value}.")
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


def _left_out(process: Any, x: Array, y: Array) -> Array:
    """The error of each row predicted from all others, in standard deviations of that prediction.

    In closed form (Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 5.10 to 5.12), with the
    parameters of the kernel that were fitted to all rows.
    """
    import torch

    with _settled(), torch.no_grad():
        rows = torch.as_tensor(x)
        covariance = process.covar_module(rows).to_dense() + process.likelihood.noise * torch.eye(len(rows))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        errors = inverse @ (torch.as_tensor(y) - process.mean_module(rows)) / inverse.diagonal().sqrt()
        return np.asarray(errors.numpy())


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
