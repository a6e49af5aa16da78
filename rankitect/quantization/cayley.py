"""Descent among orthogonal matrices: gradient steps that stay on the Stiefel manifold, by Cayley's transform.

A step follows the gradient's skew part (Li et al., Efficient Riemannian optimization on the Stiefel manifold via the
Cayley transform, arXiv 2002.01113), which is what SpinQuant learns its rotations with (arXiv 2405.16406).
"""

from __future__ import annotations

import torch

__all__ = ["CayleySGD"]


class CayleySGD:
    """Steps of one orthogonal matrix R [n, n], of a length that is relative to the matrix.

    Args:
        rotation: Where to begin.
        momentum: Share of the last direction that is kept.
    """

    def __init__(self, rotation: torch.Tensor, momentum: float = 0.9) -> None:
        self.rotation = rotation
        self._momentum = momentum
        self._direction = torch.zeros_like(rotation)

    def step(self, slope: torch.Tensor, length: float) -> None:
        """Turn the matrix against a slope.

        Args:
            slope: The gradient of the loss by the matrix, [n, n].
            length: How far rows move, root mean square, in the units of their length.
        """
        product = slope @ self.rotation.T
        skew = product - product.T
        skew = skew / skew.norm().clamp_min(1e-30) * len(skew) ** 0.5
        self._direction = self._momentum * self._direction + (1 - self._momentum) * skew
        half = 0.5 * length * self._direction
        one = torch.eye(len(half), dtype=half.dtype)
        turned = torch.linalg.solve(one + half, (one - half) @ self.rotation)
        # A step of Newton and Schulz toward the nearest orthogonal matrix keeps rounding errors from adding up.
        self.rotation = 1.5 * turned - 0.5 * turned @ (turned.T @ turned)
