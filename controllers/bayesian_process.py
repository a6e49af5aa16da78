"""Gaussian processes over a space's architectures: what they see, and how they are fitted."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rankitect.errors import TrainingError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["Fitted", "process", "readings"]

ITERATIONS = 60
"""Of the optimiser of a process's parameters, at most."""
LEAST, NOISE = 1e-2, 1e-6
"""Of length scales and the signal's variance, and of the noise's: standardised values."""
REFITS = 20
"""Parameters are fitted anew whenever there are about a twentieth more measurements: from 40 on, not every time."""


def readings(space: ChoiceSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    """What the processes see: the space's features, and their means over repeated parts.

    Choices whose paths differ in numbers only ("layers.3.ffn") are of one kind. A layer-wise space has a few kinds and
    many choices, of which few measurements cannot tell each one's effect, but soon that of their mean over the layers
    that are there, and of how many there are.

    Returns:
        float64 [n, columns].
    """
    plain = space.features(architectures)
    groups: dict[tuple[str, bool], list[int]] = {}
    names = iter(enumerate(space.feature_names))
    at, name = next(names, (-1, ""))
    for path, choice in space.choices.items():
        kind = re.sub(r"\d+", "*", path)
        while at >= 0 and (name == path or name.startswith((f"{path}=", f"{path}:"))):
            groups.setdefault((kind + name[len(path) :], choice.ordered), []).append(at)
            at, name = next(names, (-1, ""))
    means = []
    for (_, ordinal), columns in groups.items():
        if len(columns) > 1:
            part = plain[:, columns]
            live = part >= 0 if ordinal else np.ones_like(part, dtype=bool)
            means.append(np.where(live, part, 0.0).sum(1) / np.maximum(live.sum(1), 1))
            if ordinal:
                means.append(live.mean(1))
    return np.column_stack([plain, *means])


Fitted: TypeAlias = dict[str, tuple[int, bool, dict[str, Tensor], float, float]]
"""By metric, of the latest model: to how many measurements it was fitted, whether by their logarithms, its parameters,
and the shift and the scale of its values."""


def process(
    name: str, x: Tensor, y: Tensor, logged: bool, fitted: Fitted, columns: Sequence[int], hinted: bool = False
) -> tuple[Any, float, float]:
    """A process given all measurements, its parameters fitted to all but the latest few.

    To how many depends on nothing but how many there are: a search that was resumed fits to the same ones.

    Args:
        name: The metric.
        x: float64 [n, columns].
        y: float64 [n].
        logged: Whether these are logarithms.
        fitted: Where parameters are kept.
        columns: Those that the process reads.
        hinted: Whether the last of these is a rough guess of the values, which the process's mean follows.

    Returns:
        A BoTorch model of standardised values, and the shift and the scale by which they were.

    Raises:
        TrainingError: It could not be fitted.
    """
    some = len(y) - len(y) % max(1, len(y) // REFITS)
    known = fitted.get(name)
    if known is None or known[:2] != (some, logged):
        shift, scale = float(y[:some].mean()), float(y[:some].std(unbiased=False)) or 1.0
        model = _model(x[:some], (y[:some] - shift) / scale, columns, hinted)
        _fit(model)
        known = fitted[name] = (some, logged, model.state_dict(), shift, scale)
    _, _, parameters, shift, scale = known
    whole = _model(x, (y - shift) / scale, columns, hinted)
    whole.load_state_dict(parameters)
    return whole.eval(), shift, scale


def _model(x: Tensor, y: Tensor, read: Sequence[int], hinted: bool) -> Any:
    """A process with a Matérn-5/2 kernel, a length scale for each column and an inferred noise.

    The priors of its length scales grow with the number of columns (Hvarfner et al., arXiv 2402.02229), without which
    some tens of measurements in as many dimensions say nothing. They, and the variances of signal and noise, are found
    by their logarithms, in which the priors are normal and the optimiser's steps are alike.
    """
    from botorch.models import SingleTaskGP
    from botorch.models.transforms.input import FilterFeatures
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.priors import NormalPrior

    columns = len(read)
    kernel = MaternKernel(nu=2.5, ard_num_dims=columns, lengthscale_constraint=_above(LEAST))
    scaled = ScaleKernel(kernel, outputscale_constraint=_above(LEAST))
    noise = GaussianLikelihood(noise_constraint=_above(NOISE))
    wide = 2**0.5 + 0.5 * float(np.log(columns))
    # The last function of each sets what the second reads: a fit that fails starts again from draws of the priors.
    kernel.register_prior(
        "length_prior",
        NormalPrior(wide, 3**0.5),
        lambda m: m.lengthscale.log(),
        lambda m, v: m.initialize(lengthscale=v.exp().clamp_min(2 * LEAST)),
    )
    scaled.register_prior(
        "signal_prior",
        NormalPrior(0.0, 1.0),
        lambda m: m.outputscale.log(),
        lambda m, v: m.initialize(outputscale=v.exp().clamp_min(2 * LEAST)),
    )
    noise.register_prior(
        "noise_prior",
        NormalPrior(-7.0, 2.0),
        lambda m: m.noise.log(),
        lambda m, v: m.initialize(noise=v.exp().clamp_min(2 * NOISE)),
    )
    kernel.lengthscale, scaled.outputscale, noise.noise = float(np.exp(wide - 1)), 1.0, float(np.exp(-7))
    return SingleTaskGP(
        x,
        y[:, None],
        likelihood=noise,
        covar_module=scaled,
        mean_module=_trend(x[:, read[-1]], y) if hinted else None,
        outcome_transform=None,
        input_transform=FilterFeatures(torch.as_tensor(read)),
    )


def _trend(hint: Tensor, y: Tensor) -> Any:
    """A mean that is linear in the last column; it starts as the least-squares line."""
    from gpytorch.means import Mean

    class Trend(Mean):
        def __init__(self, slope: float, start: float) -> None:
            super().__init__()
            self.register_parameter("slope", torch.nn.Parameter(torch.tensor(slope, dtype=torch.float64)))
            self.register_parameter("start", torch.nn.Parameter(torch.tensor(start, dtype=torch.float64)))

        def forward(self, x: Tensor) -> Tensor:
            return self.start + self.slope * x[..., -1]

    centred = hint - hint.mean()
    slope = float((centred * y).sum() / centred.square().sum().clamp_min(1e-12))
    return Trend(slope, float(y.mean()) - slope * float(hint.mean()))


def _above(least: float) -> Any:
    from gpytorch.constraints import GreaterThan

    return GreaterThan(least, transform=torch.exp, inv_transform=torch.log)


def _fit(model: Any) -> None:
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(len(model.train_targets))  # of restarts: the same in a search that was resumed
            likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
            fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": ITERATIONS}})
    except ModelFittingError as error:
        raise TrainingError(
            f"The Gaussian process could not be fitted to {len(model.train_targets)} measurements: {error}"
        ) from error
