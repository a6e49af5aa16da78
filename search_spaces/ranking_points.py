"""Known rankers by name, as architectures: the baselines that a search has to beat.

All but FinalMLP are points of `ranking_engineered`, in a space that is opened just as far as the model's sizes need. To
tune a baseline is to ask for it at other sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rankitect.contracts import plugin
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Graph, SearchSpace, Sum, Wire
from rankitect.search_spaces.ranking_engineered import POINTS, point, ranking_engineered

if TYPE_CHECKING:
    from rankitect.data.ranking.features import Features

__all__ = ["MODELS", "baseline", "finalmlp"]

MODELS = (*POINTS, "finalmlp")
"""Those of `ranking_engineered`, and FinalMLP (arXiv 2304.00902)."""


@plugin
def baseline(
    name: str,
    features: Features,
    *,
    embedding: int = 16,
    hidden: Sequence[int] = (256, 128, 64),
    bottom: Sequence[int] = (64,),
    cross_layers: int = 3,
    cross_rank: int | None = None,
    attention_layers: int = 2,
    heads: int = 2,
    head: int = 8,
) -> tuple[SearchSpace, Architecture]:
    """A named model at given sizes, and the space that it is an architecture of.

    Args:
        name: A key of `MODELS`.
        features: The data's features.
        embedding: Width of all tables.
        hidden: Widths of the (top) MLP's layers; those of both streams of FinalMLP.
        bottom: Widths of DLRM's MLP on numbers, before its last layer, which has the embedding's width.
        cross_layers: Layers of DCN-V2's cross network.
        cross_rank: Their rank; None for whole matrices.
        attention_layers: Layers of AutoInt's self-attention.
        heads: Heads of a layer.
        head: Size of a head.

    Raises:
        SpaceError: The name is unknown, or a size impossible.

    >>> from rankitect.data.ranking.features import CategoricalFeature, Features
    >>> features = Features(("age",), (CategoricalFeature("user", 1000), CategoricalFeature("item", 500)))
    >>> space, architecture = baseline("dcnv2", features, embedding=8)
    >>> space.cost(architecture, "table_rows")
    1500.0
    """
    if name not in MODELS:
        raise SpaceError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    if name == "finalmlp":
        space = finalmlp(features, embedding, hidden)
        return space, space.architecture({})
    space = ranking_engineered(
        features,
        embedding=(embedding,),
        width=(embedding,),
        group_rows=(),
        bottom_layers=len(bottom),
        bottom=tuple(dict.fromkeys(bottom)),
        top_layers=len(hidden),
        top=tuple(dict.fromkeys(hidden)),
        cross_layers=(cross_layers,),
        cross_kinds=("full",) if cross_rank is None else ("low_rank",),
        ranks=(cross_rank or 1,),
        attention_layers=(attention_layers,),
        heads=(heads,),
        head=head,
        towers=(1,),
    )
    standard = point(space, name, features)
    widths = {f"top.width{i}": w for i, w in enumerate(hidden)} | {f"bottom.width{i}": w for i, w in enumerate(bottom)}
    return space, space.architecture({**standard.choices, **{p: w for p, w in widths.items() if p in standard.choices}})


def finalmlp(features: Features, embedding: int = 16, hidden: Sequence[int] = (256, 128, 64)) -> SearchSpace:
    """FinalMLP (arXiv 2304.00902): two MLPs on gated features, fused by a bilinear form of one head. Nothing is open.

    Each stream's gate is made by an MLP of one hidden layer from one half of the fields: the first half for one stream,
    the second for the other.

    Args:
        features: The data's features.
        embedding: Width of the tables.
        hidden: Widths of both streams.
    """
    from rankitect.blocks import Bilinear, Concat, Flatten, Gate, Linear, Tables
    from rankitect.blocks.tables import columns_of

    g = Graph("finalmlp")
    numeric = g.input("numeric", B, len(features.numeric))
    ids = g.input("ids", B, sum(features.slots), dtype="int")
    count = len(features.categorical)
    half = max(1, count // 2)

    def flat(name: str, members: Sequence[int]) -> Wire:
        rows, slots = (tuple(sizes[i] for i in members) for sizes in (features.rows, features.slots))
        table = Tables(rows, slots, embedding, columns_of(features.slots, members))(ids, name=name)
        return Flatten()(table, name=f"{name}_flat")

    first = flat("tables_first", range(half))
    second = flat("tables_second", range(half, count)) if count > half else first
    both: Wire = Concat()(first, second, name="fields") if count > half else first
    raw = Concat()(numeric, both, name="raw") if features.numeric else both
    ends: list[Wire] = []
    for stream, source in (("first", first), ("second", second)):
        with g.inside(stream):
            gate = Linear(raw.type[-1])(Linear(hidden[0], "relu")(source, name="gate_in"), name="gate_out")
            x: Any = Gate(2.0)(gate, raw, name="gated")
            for i, width in enumerate(hidden):
                x = Linear(width, "relu")(x, name=f"layer{i}")
            ends.append(x)
    g.out = Sum()(Bilinear()(*ends, name="fusion"), Linear(1)(*ends, name="linear"), name="logit")
    return SearchSpace(g)
