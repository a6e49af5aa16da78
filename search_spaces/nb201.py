"""`nb201`: the cell of NAS-Bench-201 (Dong & Yang, arXiv 2001.00326): 15,625 spellings of an architecture.

A cell has four nodes; each of its six edges is one of five operations, and a node is the sum of the edges into it. One
cell stands everywhere, with weights of its own: N times with C channels, N times with 2C and N times with 4C, with
residual blocks between that halve the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import HasImages
from rankitect.errors import SpaceError, short
from rankitect.graph import Architecture, B, Candidate, Graph, SearchSpace, Sum, Wire, Zero
from rankitect.search_spaces.image_parts import classifier, shortcut

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["NB201", "OPERATIONS", "arch_str", "architecture_of", "nb201"]

OPERATIONS = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")
"""What an edge may be, by the benchmark's names."""
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node to node, in the order of `arch_str`."""
RESNET = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def nb201(
    image: tuple[int, int, int] = (3, 32, 32), classes: int = 10, channels: int = 16, cells: int = 5
) -> SearchSpace:
    """The space of cells for images of a size.

    Args:
        image: Channels, rows and columns of an image.
        classes: How many.
        channels: C, channels of the first cells.
        cells: N, cells of each stage.
    """
    from rankitect.blocks import BatchNorm, Conv2d

    g = Graph("nb201")
    x = Conv2d(channels)(g.input("image", B, *image), name="stem")
    x = BatchNorm()(x, name="stem_norm")
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            with g.inside(f"reduction{stage}"):
                x = _reduction(x, width)
        for i in range(cells):
            with g.replicate(stage * cells + i), g.inside("cell"):
                x = _cell(g, x, width)
    classifier(g, BatchNorm("relu")(x, name="last_norm"), classes)
    space = SearchSpace(g)
    space.points["resnet"], space.spelling = architecture_of(space, RESNET), arch_str
    return space


def _convolved(x: Wire, width: int, kernel: int, stride: int = 1, name: str = "conv") -> Wire:
    """ReLU, convolution, norm."""
    from rankitect.blocks import Activation, BatchNorm, Conv2d

    h = Activation("relu")(x, name=f"{name}_act")
    return BatchNorm()(Conv2d(width, kernel, stride)(h, name=name), name=f"{name}_norm")


def _reduction(x: Wire, width: int) -> Wire:
    """A residual block that halves the rows."""
    h = _convolved(_convolved(x, width, 3, 2, "conv1"), width, 3, name="conv2")
    return h + shortcut(x, width, 2, norm=False)


def _cell(g: Graph, x: Wire, width: int) -> Wire:
    """Four nodes, the first the input and the last the output."""
    from rankitect.blocks import AvgPool

    kinds: Mapping[str, Candidate] = {
        "nor_conv_3x3": lambda h: _convolved(h, width, 3),
        "nor_conv_1x1": lambda h: _convolved(h, width, 1),
        "avg_pool_3x3": AvgPool(3),
        "skip_connect": lambda h: h,
        "none": Zero(),
    }
    nodes = [x]
    for node in range(1, 4):
        edges = [g.oneof(f"edge{before}{node}", kinds, nodes[before]) for before in range(node)]
        nodes.append(Sum()(*edges, name=f"node{node}"))
    return nodes[-1]


def _path(edge: tuple[int, int]) -> str:
    return f"cell.edge{edge[0]}{edge[1]}"


def architecture_of(space: SearchSpace, text: str) -> Architecture:
    """An architecture from the benchmark's spelling of it.

    Args:
        space: Made by `nb201`.
        text: Such as `RESNET`.

    Raises:
        SpaceError: It is no such text, or has an operation that there is not.
    """
    parts = re.fullmatch(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|", text.strip())
    unknown = [name for name in parts.groups() if name not in OPERATIONS] if parts else [text]
    if parts is None or unknown:
        raise SpaceError(
            f"nb201: {short(repr(unknown[0]), 120)} is no cell such as {RESNET}; operations: {', '.join(OPERATIONS)}"
        )
    return space.architecture({_path(edge): name for edge, name in zip(EDGES, parts.groups(), strict=True)})


def arch_str(architecture: Architecture) -> str:
    """The benchmark's spelling of an architecture; an edge that nothing reads is "none".

    Args:
        architecture: Of a space that `nb201` made.
    """
    names: dict[int, list[str]] = {}
    for before, node in EDGES:
        operation = architecture.get(_path((before, node)))
        names.setdefault(node, []).append(f"{operation or 'none'}~{before}")
    return "+".join(f"|{'|'.join(parts)}|" for parts in names.values())


class NB201:
    """The space `nb201` for a task's images, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        channels: int = Field(16, ge=1, le=4096, description="channels of the first cells")
        cells: int = Field(5, ge=1, le=100, description="cells of each of the three stages")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's images."""
        task = parts.require(HasImages, "space")
        return nb201(task.image_shape, len(task.classes), **config.model_dump())
