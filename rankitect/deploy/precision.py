"""The bits of a model's weights as the runtime has them: whether it does, what they are called, and 8da4w in a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from torch import nn

from rankitect.blocks import Embed, Tables
from rankitect.errors import DeployError
from rankitect.graph import Block, SearchSpace, as_expr
from rankitect.graph.quantized import FLOAT, GROUP, Quantized
from rankitect.graph.sizes import counterexample
from rankitect.models.deployed_weights import QuantizedMatrix, cache_trouble, matrix_trouble, table_trouble
from rankitect.models.numerics import Numerics
from rankitect.models.plan import Plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import weight_of
from rankitect.space.tables import Assignments

__all__ = [
    "in_8da4w",
    "precision_of",
    "quantized_share",
    "require_8da4w",
    "require_lowerable",
    "require_lowerable_space",
]

_TABLE = 8
"""Bits of its tables."""


def _is_table(block: Block) -> bool:
    return isinstance(block, Embed | Tables)


def require_lowerable(plan: Plan) -> None:
    """Refuse a model with bits that the runtime lacks, before any work.

    Raises:
        DeployError: Names the weight, its bits and what is allowed.
    """
    for step in plan.steps:
        _require(step.path, step.block, step.numerics, step.act_bits, step.cache_bits)


def require_lowerable_space(space: SearchSpace) -> None:
    """Refuse a space of which some architecture has bits that the runtime lacks.

    Raises:
        DeployError: Names the block, values of choices that make it so, the weight, its bits and what is allowed.
    """
    for node in space.graph.nodes:
        block = node.block
        if not isinstance(block, Quantized) or not block.numerics():
            continue
        matrices = {name: param.rows or 1 for name, param in node.params.items() if param.is_matrix}
        exprs = [as_expr(e) for e in (block.bits, block.scale_group, block.act_bits, block.cache_bits)]
        paths = sorted({path for e in exprs for path in e.paths})
        for values in product(*(space.choices[path].values for path in paths)):
            chosen = dict(zip(paths, values, strict=True))
            columns = {path: space.choices[path].position(value) for path, value in chosen.items()}
            assigned = Assignments(space.choices, columns, {})
            bits, group, act_bits, cache_bits = (int(e.evaluate(assigned)) for e in exprs)
            numerics = {} if bits == FLOAT else {name: Numerics(bits, group, rows) for name, rows in matrices.items()}
            where = "".join(f", {path}={value}" for path, value in chosen.items())
            _require(node.path + where, block, numerics, act_bits, cache_bits)


def _require(path: str, block: Block, numerics: Mapping[str, Numerics], act_bits: int, cache_bits: int) -> None:
    if (trouble := cache_trouble(cache_bits)) is not None:
        raise DeployError(f"{path} cannot be exported: {trouble}.")
    if not numerics and act_bits != FLOAT:
        raise DeployError(f"{path} cannot be exported: {matrix_trouble(FLOAT, 0, act_bits)}.")
    for name, n in numerics.items():
        trouble = table_trouble(n.bits) if _is_table(block) else matrix_trouble(n.bits, n.group, act_bits)
        if trouble is not None:
            raise DeployError(f"{path}, weight {name!r}, cannot be exported: {trouble}.")


def require_8da4w(space: SearchSpace) -> None:
    """Refuse a space that has no model of which `in_8da4w` could round a matrix, before any work.

    Raises:
        DeployError: It is such a space.
    """

    def fits(values: list[np.ndarray]) -> np.ndarray:
        return values[0] % GROUP == 0

    for node in space.graph.nodes:
        block = node.block
        if not isinstance(block, Quantized) or block.numerics() or _is_table(block):
            continue
        inputs = [prod(p.shape[p.rows or 1 :], start=as_expr(1)) for p in node.params.values() if p.is_matrix]
        gate = space.live.nodes[node.path]
        if inputs and all(counterexample(space.graph, [size], gate, fits) is not None for size in inputs):
            return
    raise _not_in_8da4w()


def _not_in_8da4w() -> DeployError:
    return DeployError(
        "precision=8da4w cannot be applied to this model: it has no block in floats whose matrices have a multiple of "
        f"{GROUP} inputs. Export it in float32."
    )


def precision_of(plan: Plan) -> str:
    """What a program's bits are called: of its matrices "float32", "8da4w", or several; tables of other than 8 bits are
    named beside them, and all where the matrices are in floats."""
    kinds, tables = set[str](), set[int]()
    for step in plan.steps:
        if _is_table(step.block):
            tables |= {numerics.bits for numerics in step.numerics.values()}
            continue
        for numerics in step.numerics.values():
            share = "by row" if not numerics.group else f"groups of {numerics.group}"
            usual = numerics.bits != 4 or numerics.group == GROUP
            kinds.add(f"8da{numerics.bits}w" if usual else f"8da{numerics.bits}w ({share})")
    named = [f"tables in {bits} bits" for bits in sorted(tables) if not kinds or bits != _TABLE]
    return ", ".join([*(sorted(kinds) or ["float32"]), *named])


def quantized_share(methods: Mapping[str, nn.Module]) -> float:
    """The share of the weights in matrices that have fewer bits than a float.

    Args:
        methods: As for `lower`.
    """
    few: dict[int, int] = {}
    whole: dict[int, int] = {}
    for method in methods.values():
        for part in method.modules():
            if isinstance(part, QuantizedMatrix):
                few[part.levels.data_ptr()] = part.levels.numel()
            elif isinstance(part, nn.Linear):
                whole[part.weight.data_ptr()] = part.weight.numel()
    total = sum(few.values()) + sum(whole.values())
    return sum(few.values()) / max(1, total)


def in_8da4w(space: SearchSpace, model: Standalone) -> Standalone:
    """A model with 4-bit matrices in groups of 32, 8-bit activations and 8-bit tables, which has the same weights.

    Blocks of which a matrix has inputs that are no multiple of 32, and blocks that have bits already, stay as they are.

    Args:
        space: That of the model.
        model: The model.

    Raises:
        DeployError: It applies to no matrix.
    """
    steps, applied = [], False
    for step in model.plan.steps:
        params = space.graph.node(step.path).params
        matrices = {name: shape for name, shape in step.shapes.items() if params[name].is_matrix}
        rows = {name: params[name].rows or 1 for name in matrices}
        if not isinstance(step.block, Quantized) or not step.is_float:
            matrices = {}
        elif _is_table(step.block):
            step = replace(step, numerics={name: Numerics(_TABLE, 0, n) for name, n in rows.items()})
            matrices = {}
        if matrices and not any(prod(shape[rows[name] :]) % GROUP for name, shape in matrices.items()):
            step = replace(step, numerics={name: Numerics(4, GROUP, n) for name, n in rows.items()}, act_bits=8)
            applied = True
        steps.append(step)
    if not applied:
        raise _not_in_8da4w()
    plan = replace(model.plan, steps=tuple(steps))
    return Standalone(plan, {(owner, name): weight_of(model.owner(owner), name) for owner, name in plan.shapes()})
