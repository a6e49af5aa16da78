"""The vocabulary of blocks. Written once each; see `rankitect.graph.Block` for the contract."""

from rankitect.blocks.attention import GQA, Rope, SwiGLU
from rankitect.blocks.dense import Embed, Linear, Norm, TiedHead

__all__ = ["GQA", "Embed", "Linear", "Norm", "Rope", "SwiGLU", "TiedHead"]
