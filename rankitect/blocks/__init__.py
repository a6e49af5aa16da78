"""The vocabulary of blocks: what a node of a graph computes, each fact of it stated once.

Here belongs one class for each operation, with its tensor types, parameters, computation, FLOPs, and how it is sliced
and deployed; the contract is `rankitect.graph.Block`. How blocks are wired, and what is open, belongs to a space.
Nothing here knows a task or a whole model.

Begin with `dense.py`; a new block is written like `Linear`.
"""

from rankitect.blocks.attention import GQA, SwiGLU
from rankitect.blocks.convolution import BatchNorm, Conv2d, Depthwise, SqueezeExcite
from rankitect.blocks.dense import Embed, Head, Linear, Norm, TiedHead
from rankitect.blocks.fields import (
    AsField,
    FieldAttention,
    FieldLinear,
    FieldNorm,
    FieldPad,
    FlatLinear,
    Flatten,
    Join,
    ToFields,
)
from rankitect.blocks.interaction import FM, Bilinear, Cross, Dot, LowRankCross
from rankitect.blocks.pooling import AvgPool, GlobalPool, MaxPool
from rankitect.blocks.rotary import Rope
from rankitect.blocks.tables import Tables
from rankitect.blocks.vectors import Activation, Concat, Gate, LayerNorm, Pad, Scale, TiedLinear, Total

__all__ = [
    "FM",
    "GQA",
    "Activation",
    "AsField",
    "AvgPool",
    "BatchNorm",
    "Bilinear",
    "Concat",
    "Conv2d",
    "Cross",
    "Depthwise",
    "Dot",
    "Embed",
    "FieldAttention",
    "FieldLinear",
    "FieldNorm",
    "FieldPad",
    "FlatLinear",
    "Flatten",
    "Gate",
    "GlobalPool",
    "Head",
    "Join",
    "LayerNorm",
    "Linear",
    "LowRankCross",
    "MaxPool",
    "Norm",
    "Pad",
    "Rope",
    "Scale",
    "SqueezeExcite",
    "SwiGLU",
    "Tables",
    "TiedHead",
    "TiedLinear",
    "ToFields",
    "Total",
]
