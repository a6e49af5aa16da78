"""NASRec-Full (arXiv 2207.07187) as a space of `ranking_blocks`, and its best published architecture for Criteo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.search_spaces.ranking_blocks import ranking_blocks

if TYPE_CHECKING:
    from rankitect.data.ranking.features import Features

__all__ = ["NASREC_WIDTHS", "nasrec", "nasrec_best_criteo"]

NASREC_WIDTHS = (16, 32, 64, 128, 256, 512, 768, 1024)
NASREC_PAIRS = (6, 8, 11, 16, 23, 32, 39, 45)
"""Fields before the dot product for each of NASRec's widths: the rounded root of twice the width."""


def nasrec(features: Features, **options: Any) -> SearchSpace:
    """The space with the blocks, widths and operators of NASRec-Full (arXiv 2207.07187, and its public code).

    Its sigmoid gate multiplies two projections and projects the product, where NASRec's multiplies a padded input:
    more, as the projection may be a padding. Dense features that are made into fields, and factorization machines
    merged into vectors, are as there.

    Args:
        features: The data's features.
        options: Other settings of `ranking_blocks`.
    """
    settings: dict[str, Any] = {
        "blocks": 7,
        "embedding": (16,),
        "widths": NASREC_WIDTHS,
        "counts": (16, 32, 48, 64),
        "pairs": NASREC_PAIRS,
        "heads": (8,),
        "head": 2,
        "dense_ops": ("linear", "dot", "gate", "sum"),
        "field_ops": ("linear", "attention"),
        "wide": ("no",),
        "towers": (1,),
        "eps": 1e-5,
    }
    return ranking_blocks(features, **(settings | options))


_BEST_CRITEO: tuple[tuple[str, int, str, int, bool, bool, tuple[int, ...], tuple[int, ...], int, int], ...] = (
    ("gate", 128, "attention", 64, True, False, (0,), (0,), 0, 0),
    ("dot", 32, "linear", 64, False, False, (0,), (0,), 0, 1),
    ("dot", 768, "linear", 32, False, True, (1, 2), (0, 1, 2), 1, 2),
    ("gate", 768, "linear", 48, True, False, (0, 3), (0, 1, 2, 3), 2, 0),
    ("linear", 16, "linear", 16, False, True, (0, 2, 3, 4), (0, 1, 2, 3), 3, 1),
    ("linear", 768, "attention", 16, True, False, (0, 3, 4, 5), (1, 4), 2, 3),
    ("linear", 128, "attention", 48, False, True, (0, 2, 3), (1, 3), 6, 1),
)
"""Blocks of NASRec-Full's best one-shot architecture on Criteo: operator and width of the vector, operator and count of
the fields, whether the vector becomes fields, whether a factorization machine is merged, inputs of the vector and of
the fields, left and right input. From `nasrec/configs/criteo/ea_criteo_kaggle_xlarge_best_1shot.json` of the public
code."""


def nasrec_best_criteo(space: SearchSpace) -> Architecture:
    """NASRec-Full's best published architecture for Criteo.

    Args:
        space: A space made by `nasrec`, of any features.

    Raises:
        SpaceError: The space is another one.
    """
    if "block6.dense.op" not in space.choices or space.choices["block0.dense.width"].values != NASREC_WIDTHS:
        raise SpaceError("NASRec's best Criteo architecture needs a space made by nasrec(features)")
    widths: list[int] = [0]  # of the vectors so far: the first is the numbers
    values: dict[str, Any] = {"embedding": 16}
    for i, (op, width, field_op, count, merged, fm, vectors, fields, left, right) in enumerate(_BEST_CRITEO):
        larger = max(widths[left], widths[right])
        block = {
            "dense.op": op,
            "dense.width": width,
            "dense.from": vectors,
            "dense.left": (left,),
            "dense.right": (right,),
            "dense.fm": "yes" if fm else "no",
            "dense.op.gate.hidden": next(w for w in NASREC_WIDTHS if w >= larger),
            "dense.op.dot.pairs": NASREC_PAIRS[NASREC_WIDTHS.index(width)],
            "fields.op": field_op,
            "fields.count": count,
            "fields.from": fields,
            "fields.op.attention.heads": 8,
            "to_fields": "yes" if merged else "no",
        }
        values |= {f"block{i}.{key}": value for key, value in block.items()}
        widths.append(width)
    return space.architecture({path: value for path, value in values.items() if path in space.choices})
