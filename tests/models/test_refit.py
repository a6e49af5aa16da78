"""Closed-form refits: they solve the ridge problem that they state, and never make calibration worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.models.refit import RIDGE, Refit, refit_change


def problem(seed: int, units: tuple[int, ...], outputs: int = 5, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [outputs, *units] and correlated hidden units [rows, n]."""
    generator = torch.Generator().manual_seed(seed)
    n = int(np.prod(units))
    mixing = torch.randn(n, n, generator=generator) / n**0.5 + 0.5 * torch.eye(n)
    hidden = torch.randn(rows, n, generator=generator) @ mixing
    return torch.randn(outputs, *units, generator=generator), hidden


def moments(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.T @ hidden / hidden.shape[0]


def test_the_change_is_the_ridge_solution() -> None:
    weight, hidden = problem(0, (8,))
    change = refit_change(weight, moments(hidden), (5,))
    kept, lost = hidden[:, :5].double().numpy(), hidden[:, 5:].double().numpy()
    target = lost @ weight[:, 5:].double().numpy().T
    ridge = RIDGE * float((hidden.double().numpy() ** 2).mean(0).mean())
    rows = np.concatenate([kept / len(kept) ** 0.5, ridge**0.5 * np.eye(5)])  # least squares with the ridge as rows
    goal = np.concatenate([target / len(kept) ** 0.5, np.zeros((5, 5))])
    expected = np.linalg.lstsq(rows, goal, rcond=None)[0].T
    np.testing.assert_allclose(change.numpy(), expected, rtol=1e-3, atol=1e-5)


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_one_factor_serves_every_prefix(seed: int, kept: int) -> None:
    weight, hidden = problem(seed, (8,))
    refit = Refit(weight, moments(hidden), [(n,) for n in range(1, 9)])
    alone = refit_change(weight, moments(hidden), (kept,))
    torch.testing.assert_close(refit.change((5, kept)), alone, rtol=1e-4, atol=1e-4)


def test_a_lost_copy_of_a_kept_unit_is_made_up_for() -> None:
    weight, hidden = problem(1, (4,))
    hidden[:, 3] = hidden[:, 1]
    change = refit_change(weight, moments(hidden), (3,), ridge=1e-8)
    expected = torch.zeros(5, 3)
    expected[:, 1] = weight[:, 3]
    torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-3)


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([1e-6, RIDGE, 1.0]))
def test_reconstruction_is_never_worse(seed: int, kept: int, ridge: float) -> None:
    weight, hidden = problem(seed, (8,))
    change = refit_change(weight, moments(hidden), (kept,), ridge)
    whole = hidden @ weight.T
    before = (whole - hidden[:, :kept] @ weight[:, :kept].T).square().mean()
    after = (whole - hidden[:, :kept] @ (weight[:, :kept] + change).T).square().mean()
    assert after <= before * (1 + 1e-4)


def test_a_dead_unit_does_not_break_the_solution() -> None:
    weight, hidden = problem(2, (6,))
    hidden[:, 0] = 0
    assert refit_change(weight, moments(hidden), (4,)).isfinite().all()
    assert refit_change(weight, torch.zeros(6, 6), (4,)).abs().max() == 0


def test_heads_are_cut_along_two_axes() -> None:
    weight, hidden = problem(3, (3, 2, 4), rows=400)
    gram = moments(hidden)
    change = refit_change(weight, gram, (2, 1, 4))
    assert change.shape == (5, 2, 1, 4)
    flat = torch.zeros(5, 3, 2, 4)
    flat[:, :2, :1] = weight[:, :2, :1]
    whole = hidden @ weight.flatten(1).T
    before = (whole - hidden @ flat.flatten(1).T).square().mean()
    flat[:, :2, :1] += change
    after = (whole - hidden @ flat.flatten(1).T).square().mean()
    assert after < before


def test_a_refit_gives_each_size_and_fewer_outputs() -> None:
    weight, hidden = problem(4, (6,))
    refit = Refit(weight, moments(hidden), [(6,), (4,), (2,)])
    assert refit.change((5, 6)) is None
    whole, narrow = refit.change((5, 4)), refit.change((3, 4))
    assert whole is not None
    assert narrow is not None
    torch.testing.assert_close(whole, refit_change(weight, moments(hidden), (4,)))
    assert torch.equal(narrow, whole[:3])


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_error_estimate_is_the_expected_square_of_what_is_lost(kept: int) -> None:
    weight, hidden = problem(5, (6,))
    refit = Refit(weight, moments(hidden), [(6,), (4,), (2,)])
    units = [None, (2,), (4,)][kept]
    slopes = torch.eye(5)
    lost = hidden @ weight.T
    if units is not None:
        change = refit.change((5, *units))
        assert change is not None
        lost = lost - hidden[:, : units[0]] @ (weight[:, : units[0]] + change).T
    expected = 0.5 * lost.square().sum(1).mean()
    assert refit.error(units, slopes) == pytest.approx(float(expected), rel=1e-4)
