"""The typed block graph, in which a search space is written: tensor types, ports, the contract of a block, the graph
with its verbs, and `SearchSpace`, a space of choices (`rankitect.space`) that shape a graph.

What can be read from the pair of graph and architecture without tensors is here too: liveness, costs, a picture, JSON.
Models are built in `rankitect.models`, blocks are in `rankitect.blocks`.
"""

from rankitect.graph.block import Block, Call, Elementwise, Packing, Sum, Zero, added
from rankitect.graph.graph import Candidate, Edge, Graph, Node, Wire
from rankitect.graph.params import Param, Params
from rankitect.graph.quantized import Quantized
from rankitect.graph.space import SearchSpace, Size
from rankitect.graph.types import B, P, T, TensorType
from rankitect.space.architecture import Architecture
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.choices import Choice
from rankitect.space.declaring import Choices
from rankitect.space.expr import Expr, all_of, any_of, as_expr, sym
from rankitect.space.scales import linear_range, log_range
from rankitect.space.simplex import Simplex

__all__ = [
    "Architecture",
    "B",
    "Block",
    "Call",
    "Candidate",
    "Choice",
    "ChoiceSpace",
    "Choices",
    "Edge",
    "Elementwise",
    "Expr",
    "Graph",
    "Node",
    "P",
    "Packing",
    "Param",
    "Params",
    "Quantized",
    "SearchSpace",
    "Simplex",
    "Size",
    "Sum",
    "T",
    "TensorType",
    "Wire",
    "Zero",
    "added",
    "all_of",
    "any_of",
    "as_expr",
    "linear_range",
    "log_range",
    "sym",
]
