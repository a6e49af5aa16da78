"""What the spaces of images have in common: a convolution with its norm, channels that divide, ends of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankitect.graph import Architecture, Expr, Graph, SearchSpace, Wire, as_expr
from rankitect.space.expr import ExprLike

__all__ = ["LARGE", "classifier", "conv_norm", "divisible", "divisible_open", "extreme", "share", "shortcut"]

LARGE = 96
"""Rows of an image from which it is taken for a photograph, such as ImageNet's; smaller ones lose less at the stem."""


def divisible(width: float, divisor: int = 8) -> int:
    """The multiple of a divisor that is nearest to a width and no less than nine tenths of it (MobileNet's rule).

    >>> divisible(18.0), divisible(20.0), divisible(2.0)
    (24, 24, 8)
    """
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest


def divisible_open(width: ExprLike, divisor: int = 8) -> Expr:
    """`divisible` of a width that choices decide, a whole number in each architecture."""
    width = as_expr(width)
    nearest = (width + divisor // 2) // divisor
    nearest = (nearest + nearest.eq(0)) * divisor
    return nearest + (10 * nearest + 1).le(9 * width) * divisor


def share(width: ExprLike, percent: ExprLike, divisor: int) -> Expr:
    """The multiple of a divisor nearest to a share of an open width, and no less than one of it.

    Args:
        width: The width.
        percent: The share.
        divisor: The divisor.
    """
    nearest = (as_expr(width) * percent + 50 * divisor) // (100 * divisor)
    return (nearest + nearest.eq(0)) * divisor


def conv_norm(
    x: Wire, width: ExprLike, kernel: ExprLike = 3, stride: int = 1, act: str = "none", name: str = "conv"
) -> Wire:
    """A convolution and the norm of its channels, as `<name>.weight` and `<name>_norm.weight`."""
    from rankitect.blocks import BatchNorm, Conv2d

    return BatchNorm(act)(Conv2d(width, kernel, stride)(x, name=name), name=f"{name}_norm")


def shortcut(x: Wire, width: ExprLike, stride: int, norm: bool = True) -> Wire:
    """What is added to a branch that changes rows or channels: means of windows, then a convolution of single pixels
    (ResNet-D, arXiv 1812.01187) and, perhaps, a norm."""
    from rankitect.blocks import AvgPool, BatchNorm, Conv2d

    pooled = AvgPool(stride, stride)(x, name="shortcut_pool") if stride > 1 else x
    conv = Conv2d(width, 1)(pooled, name="shortcut")
    return BatchNorm()(conv, name="shortcut_norm") if norm else conv


def classifier(g: Graph, x: Wire, classes: int) -> None:
    """The end of a network: the mean over the image, and a score for each class."""
    from rankitect.blocks import GlobalPool, Linear

    g.out = Linear(classes)(GlobalPool()(x, name="pool"), name="classifier")


def extreme(space: SearchSpace, best: Callable[..., Any]) -> Architecture:
    """The architecture in which every choice has its largest or smallest value ("yes" is more than "no").

    Args:
        space: A space whose choices are numbers, or "yes" and "no".
        best: `max` or `min`.
    """
    return space.architecture({path: best(choice.values) for path, choice in space.choices.items()})
