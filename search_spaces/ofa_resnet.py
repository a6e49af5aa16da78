"""`ofa_resnet`: residual networks of open depth, width and expansion, to be trained once for every budget.

Once-for-all's ResNet-50 (arXiv 1908.09791, with the D variant's stem and shortcuts, arXiv 1812.01187) for photographs;
for small images, where a bottleneck's three convolutions would be memory traffic alone, CIFAR's network of pairs of 3x3
convolutions (arXiv 1512.03385, section 4.2), open in the same ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.quantities import Size
from rankitect.contracts import HasImages
from rankitect.errors import SpaceError
from rankitect.graph import B, Graph, SearchSpace, Wire, Zero
from rankitect.search_spaces.image_parts import LARGE, classifier, conv_norm, divisible, extreme, share, shortcut
from rankitect.space.expr import ExprLike

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["OfaResNet", "ofa_resnet"]

_Share = Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)]


@dataclass(frozen=True)
class _Sizes:
    """What is usual for a kind of image: the block, channels and blocks of each stage, what is open."""

    block: str
    widths: Sequence[int]
    depths: Sequence[Sequence[int]]
    scales: Sequence[float]
    expand: Sequence[int]
    divisor: int


_PHOTOGRAPHS = _Sizes(
    "bottleneck", (256, 512, 1024, 2048), ((4, 3, 2), (4, 3, 2), (6, 5, 4), (4, 3, 2)),
    (1.0, 0.8, 0.65), (35, 25, 20), 8,
)  # fmt: skip
_SMALL = _Sizes("basic", (16, 32, 64), ((3, 2, 1),) * 3, (1.0, 0.75, 0.5), (100, 75, 50), 4)


def ofa_resnet(
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    block: str | None = None,
    widths: Sequence[int] | None = None,
    depths: Sequence[Sequence[int]] | None = None,
    scales: Sequence[float] | None = None,
    expand: Sequence[int] | None = None,
    stem_stride: int = 1,
) -> SearchSpace:
    """The space of residual networks for images of a size.

    Args:
        image: Channels, rows and columns of an image. From 96 rows on the sizes are those of once-for-all's ResNet-50.
        classes: How many.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1); None for what suits the images.
        widths: Channels of each stage at their most; each stage after the first has half of the rows. None as above.
        depths: For each stage, how many blocks it may have, the most first.
        scales: Shares of the widths that a stage may have.
        expand: Channels inside of a block, in percent of its stage's.
        stem_stride: Of the first convolution on small images.

    Raises:
        SpaceError: The block is unknown, or there are not as many depths as widths.
    """
    usual = _PHOTOGRAPHS if image[1] >= LARGE else _SMALL
    block = block or usual.block
    if block not in ("basic", "bottleneck"):
        raise SpaceError(f"ofa_resnet: block {block!r} is unknown; allowed: basic, bottleneck")
    widths, scales, expand = widths or usual.widths, scales or usual.scales, expand or usual.expand
    depths = depths or (usual.depths if len(usual.depths) == len(widths) else [usual.depths[0]] * len(widths))
    if len(depths) != len(widths):
        raise SpaceError(f"ofa_resnet: {len(widths)} stages have widths, and {len(depths)} have depths")
    sizes = _Sizes(block, widths, depths, scales, expand, usual.divisor)
    g = Graph("ofa_resnet")
    x = _stem(g, g.input("image", B, *image), sizes, image[1] >= LARGE, stem_stride)
    for i in range(len(widths)):
        with g.inside(f"stages.{i}"):
            x = _stage(g, x, sizes, i)
    classifier(g, x, classes)
    space = SearchSpace(g)
    space.points |= {"largest": extreme(space, max), "smallest": extreme(space, min)}
    return space


def _open_width(g: Graph, width: int, sizes: _Sizes) -> ExprLike:
    """Channels of which a share is chosen; of shares that come to the same, one."""
    options = list(dict.fromkeys(divisible(width * scale, sizes.divisor) for scale in sizes.scales))
    return g.choice("width", options) if len(options) > 1 else options[0]


def _stem(g: Graph, x: Wire, sizes: _Sizes, photographs: bool, stride: int) -> Wire:
    """From the image to the first stage's input."""
    from rankitect.blocks import MaxPool

    with g.inside("stem"):
        if not photographs:
            return conv_norm(x, _open_width(g, sizes.widths[0], sizes), 3, stride, "relu")
        width = _open_width(g, 64, sizes)
        half = share(width, 50, sizes.divisor)
        x = conv_norm(x, half, 3, 2, "relu")
        x = x + g.oneof("extra", {"yes": lambda h: conv_norm(h, half, 3, 1, "relu"), "no": Zero()}, x)
        x = conv_norm(x, width, 3, 1, "relu", name="conv2")
        return MaxPool(3, 2)(x, name="pool")


def _stage(g: Graph, x: Wire, sizes: _Sizes, number: int) -> Wire:
    """Blocks at one number of rows; the first halves them, but in the first stage."""
    width, stride = _open_width(g, sizes.widths[number], sizes), 1 if number == 0 else 2
    with g.inside("first"):
        x = _block(g, x, width, sizes, stride, shortcut(x, width, stride))
    more = [blocks - 1 for blocks in sizes.depths[number]]
    depth = g.choice("depth", more) if len(more) > 1 else more[0]
    return g.repeat("blocks", depth, lambda i, h: _block(g, h, width, sizes, 1, h), x)


def _block(g: Graph, x: Wire, width: ExprLike, sizes: _Sizes, stride: int, beside: Wire) -> Wire:
    """A branch of convolutions, added to what stands beside it."""
    from rankitect.blocks import Activation

    percent: ExprLike = g.choice("expand", list(sizes.expand)) if len(sizes.expand) > 1 else sizes.expand[0]
    inner = share(width, percent, sizes.divisor)
    if sizes.block == "basic":
        h = conv_norm(conv_norm(x, inner, 3, stride, "relu", "conv1"), width, 3, name="conv2")
    else:
        h = conv_norm(x, inner, 1, 1, "relu", "conv1")
        h = conv_norm(conv_norm(h, inner, 3, stride, "relu", "conv2"), width, 1, name="conv3")
    return Activation("relu")(h + beside, name="act")


class OfaResNet:
    """The space `ofa_resnet` for a task's images, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        block: Literal["basic", "bottleneck"] | None = Field(
            None, description="the block; by default bottleneck from 96 rows of an image on, else basic"
        )
        widths: list[Size] | None = Field(None, min_length=1, description="most channels of each stage")
        depths: list[list[Size]] | None = Field(None, min_length=1, description="numbers of blocks of each stage")
        scales: list[_Share] | None = Field(None, min_length=1, description="shares of its channels a stage may have")
        expand: list[Size] | None = Field(None, min_length=1, description="channels inside of a block, in percent")
        stem_stride: int = Field(1, ge=1, le=4, description="stride of the first convolution on small images")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's images."""
        task = parts.require(HasImages, "space")
        return ofa_resnet(task.image_shape, len(task.classes), **config.model_dump())
