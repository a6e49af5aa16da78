"""A small space of perceptrons over the pixels of images, made of blocks that stand."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict

from rankitect.blocks import Linear
from rankitect.config.parts import Parts
from rankitect.contracts import HasImages
from rankitect.graph import B, Elementwise, Graph, Params, SearchSpace

__all__ = ["Pixels", "pixels"]


class Rows(Elementwise):
    """Images as rows of their pixels."""

    ports: ClassVar[str] = "B C H W -> B C*H*W"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].flatten(1)


def pixels(shape: tuple[int, int, int], classes: int) -> SearchSpace:
    """Perceptrons of open width and depth."""
    g = Graph("pixels")
    x = Rows()(g.input("images", B, *shape), name="rows")
    width, depth = g.choice("width", [48, 32, 16]), g.choice("depth", [2, 1])
    first = Linear(width, "relu")(x, name="first")
    h = g.repeat("mlp", depth, lambda i, h: Linear(width, "relu")(h, name="linear"), first)
    g.out = Linear(classes)(h, name="classes")
    return SearchSpace(g)


class Pixels:
    """The same as a plug-in."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        task = parts.require(HasImages, "space")
        return pixels(task.image_shape, len(task.classes))
