"""The typed block graph: choices, blocks' contract, spaces, architectures and their readings without tensors."""

from rankitect.graph.block import Block, Call, Elementwise, Param, Params, Sum, Zero
from rankitect.graph.graph import Edge, Graph, Node, Wire
from rankitect.graph.space import SearchSpace, Size
from rankitect.graph.types import B, P, T, TensorType
from rankitect.space.architecture import Architecture
from rankitect.space.choices import Choice
from rankitect.space.expr import Expr, all_of, any_of, as_expr, sym

__all__ = [
    "Architecture",
    "B",
    "Block",
    "Call",
    "Choice",
    "Edge",
    "Elementwise",
    "Expr",
    "Graph",
    "Node",
    "P",
    "Param",
    "Params",
    "SearchSpace",
    "Size",
    "Sum",
    "T",
    "TensorType",
    "Wire",
    "Zero",
    "all_of",
    "any_of",
    "as_expr",
    "sym",
]
