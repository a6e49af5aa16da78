"""The vocabulary of blocks. Written once each; see `rankitect.graph.Block` for the contract."""

from rankitect.blocks.attention import GQA, Rope, SwiGLU
from rankitect.blocks.dense import Embed, Linear, Norm, TiedHead
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
from rankitect.blocks.tables import Tables
from rankitect.blocks.vectors import Activation, Concat, Gate, LayerNorm, Pad, Scale, TiedLinear, Total

__all__ = [
    "FM",
    "GQA",
    "Activation",
    "AsField",
    "Bilinear",
    "Concat",
    "Cross",
    "Dot",
    "Embed",
    "FieldAttention",
    "FieldLinear",
    "FieldNorm",
    "FieldPad",
    "FlatLinear",
    "Flatten",
    "Gate",
    "Join",
    "LayerNorm",
    "Linear",
    "LowRankCross",
    "Norm",
    "Pad",
    "Rope",
    "Scale",
    "SwiGLU",
    "Tables",
    "TiedHead",
    "TiedLinear",
    "ToFields",
    "Total",
]
