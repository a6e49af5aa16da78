"""`ofa_mobilenet`: inverted residual blocks of open depth, kernel and expansion: once-for-all's MobileNetV3.

Cai et al., arXiv 1908.09791; blocks and stages of MobileNetV3-Large, arXiv 1905.02244.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.quantities import Size
from rankitect.contracts import HasImages
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Expr, Graph, SearchSpace, Wire, as_expr
from rankitect.search_spaces.image_parts import LARGE, conv_norm, divisible, divisible_open
from rankitect.space.expr import ExprLike

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["OfaMobileNet", "ofa_mobilenet"]

WIDTHS = (16, 16, 24, 40, 80, 112, 160)
"""Channels of the stem, of the first block, and of the stages."""
_STRIDES = (2, 2, 2, 1, 2)
_ACTS = ("relu", "relu", "hardswish", "hardswish", "hardswish")
_EXCITED = (False, True, False, True, True)
ENDS = (960, 1280)
"""Channels of the last convolution, and of the layer before the classes."""


@dataclass(frozen=True)
class _Options:
    """What is open in every stage, and in every block of it."""

    depths: Sequence[int]
    kernels: Sequence[int]
    expand: Sequence[int]


def ofa_mobilenet(
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    scale: float = 1.0,
    depths: Sequence[int] = (4, 3, 2),
    kernels: Sequence[int] = (7, 5, 3),
    expand: Sequence[int] = (6, 4, 3),
    stem_stride: int | None = None,
) -> SearchSpace:
    """The space of MobileNetV3's blocks for images of a size.

    Its points are the uniform architectures, by once-for-all's own names (`ofa_d4_e6_k7`), and "largest" and
    "smallest" among them.

    Args:
        image: Channels, rows and columns of an image.
        classes: How many.
        scale: All widths are multiplied by this.
        depths: Blocks that a stage may have, the most first.
        kernels: Kernels of a depthwise convolution.
        expand: Channels inside of a block, as multiples of those that come into it.
        stem_stride: Of the first convolution; None for 2 from 96 rows on, else 1.

    Raises:
        SpaceError: A kernel is even.
    """
    if even := [kernel for kernel in kernels if not kernel % 2]:
        raise SpaceError(f"ofa_mobilenet: a kernel of {even[0]} rows has no centre: kernels must be odd")
    widths = [divisible(width * scale) for width in WIDTHS]
    g = Graph("ofa_mobilenet")
    x = g.input("image", B, *image)
    stride = stem_stride or (2 if image[1] >= LARGE else 1)
    with g.inside("stem"):
        x = conv_norm(x, widths[0], 3, stride, "hardswish")
    with g.inside("first"):
        x = _block(x, widths[1], 3, 1, None, "relu", False)
    options = _Options(depths, kernels, expand)
    for i in range(len(_STRIDES)):
        with g.inside(f"stages.{i}"):
            x = _stage(g, x, i, widths[i + 1], widths[i + 2], options)
    _ends(g, x, classes, scale)
    space = SearchSpace(g)
    for d in depths:
        for e in expand:
            for k in kernels:
                space.points[f"ofa_d{d}_e{e}_k{k}"] = _uniform(space, d, e, k)
    space.points["largest"] = _uniform(space, max(depths), max(expand), max(kernels))
    space.points["smallest"] = _uniform(space, min(depths), min(expand), min(kernels))
    return space


def _choice(g: Graph, name: str, values: Sequence[int]) -> Expr:
    return as_expr(g.choice(name, list(values)) if len(values) > 1 else values[0])


def _stage(g: Graph, x: Wire, number: int, before: int, width: int, options: _Options) -> Wire:
    """Blocks at one number of rows, of which the first may halve them."""

    def block(h: Wire, channels: int, stride: int) -> Wire:
        kernel, inner = _choice(g, "kernel", options.kernels), _choice(g, "expand", options.expand) * channels
        return _block(h, width, kernel, stride, inner, _ACTS[number], _EXCITED[number])

    with g.inside("first"):
        x = block(x, before, _STRIDES[number])
    more = [blocks - 1 for blocks in options.depths]
    depth = g.choice("depth", more) if len(more) > 1 else more[0]
    return g.repeat("blocks", depth, lambda i, h: block(h, width, 1), x)


def _block(x: Wire, width: int, kernel: ExprLike, stride: int, inner: Expr | None, act: str, excited: bool) -> Wire:
    """Channels are widened, convolved each by itself, weighed, and narrowed; the input is added where it fits."""
    from rankitect.blocks import BatchNorm, Depthwise, SqueezeExcite

    h = x if inner is None else conv_norm(x, inner, 1, 1, act, "expand_conv")
    h = BatchNorm(act)(Depthwise(kernel, stride)(h, name="depthwise"), name="depthwise_norm")
    if excited and inner is not None:
        h = SqueezeExcite(divisible_open(inner // 4))(h, name="excite")
    h = conv_norm(h, width, 1, name="project")
    return x + h if stride == 1 and x.type == h.type else h


def _ends(g: Graph, x: Wire, classes: int, scale: float) -> None:
    """From the last stage to the scores of the classes."""
    from rankitect.blocks import GlobalPool, Linear

    last, mixed = (divisible(width * scale) for width in ENDS)
    with g.inside("end"):
        x = conv_norm(x, last, 1, 1, "hardswish")
    x = Linear(mixed, "hardswish", bias=False)(GlobalPool()(x, name="pool"), name="mix")
    g.out = Linear(classes)(x, name="classifier")


def _uniform(space: SearchSpace, depth: int, expand: int, kernel: int) -> Architecture:
    """The architecture with one depth, expansion and kernel everywhere."""
    values = {"depth": depth - 1, "expand": expand, "kernel": kernel}
    return space.architecture({path: values[path.rpartition(".")[2]] for path in space.choices})


class OfaMobileNet:
    """The space `ofa_mobilenet` for a task's images, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        scale: float = Field(1.0, gt=0, le=16, allow_inf_nan=False, description="all widths are multiplied by this")
        depths: list[Size] = Field([4, 3, 2], min_length=1, description="numbers of blocks of a stage")
        kernels: list[Size] = Field([7, 5, 3], min_length=1, description="rows of depthwise kernels, odd")
        expand: list[Size] = Field([6, 4, 3], min_length=1, description="channels inside of a block, as multiples")
        stem_stride: int | None = Field(
            None, ge=1, le=4, description="stride of the first convolution; by default 2 from 96 rows on, else 1"
        )

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's images."""
        task = parts.require(HasImages, "space")
        return ofa_mobilenet(task.image_shape, len(task.classes), **config.model_dump())
