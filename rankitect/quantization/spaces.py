"""A space whose blocks compute in few bits."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from rankitect.blocks import Embed, Head, Tables
from rankitect.errors import ConfigError
from rankitect.graph import SearchSpace, as_expr
from rankitect.graph.nodes import Node
from rankitect.graph.quantized import INTEGER_BITS, Quantized
from rankitect.models.plan import bounds

if TYPE_CHECKING:
    from rankitect.quantization.settings import NumericsConfig, QuantizeConfig

__all__ = ["check_calibration", "quantized_space", "with_ranges"]


def quantized_space(space: SearchSpace, config: NumericsConfig, ranges: str) -> SearchSpace:
    """A space in which every block with weights computes in the bits of a configuration.

    Blocks whose bits are choices keep them.

    Args:
        space: Any space.
        config: The bits.
        ranges: "minmax" or "stored" (see `Quantized`).

    Raises:
        SpaceError: A group does not divide a weight's inputs; names the weight.
    """
    nodes = [node for node in space.graph.nodes if isinstance(node.block, Quantized)]
    return space.with_blocks({node.path: _block(node, config, ranges) for node in nodes})


def _block(node: Node, config: NumericsConfig, ranges: str) -> Quantized:
    block = node.block
    assert isinstance(block, Quantized)
    if block.has_open_numerics:
        return replace(block, ranges=ranges)
    if isinstance(block, Embed | Tables):
        return replace(block, bits=config.embedding_bits, scale_group=config.embedding_group, ranges=ranges)
    if isinstance(block, Head):
        bits, group = config.head_bits, config.head_group
        act_bits = config.act_bits if config.head_act_bits is None else config.head_act_bits
    else:
        bits, group, act_bits = config.bits, config.group, config.act_bits
    kept = config.cache_bits if node.cache != 0 else block.cache_bits
    return replace(block, bits=bits, scale_group=group, act_bits=act_bits, cache_bits=kept, ranges=ranges)


def with_ranges(space: SearchSpace, ranges: str) -> SearchSpace:
    """A space whose weights of few bits get their scales in this way.

    Args:
        space: With blocks that compute in few bits.
        ranges: "minmax" or "stored" (see `Quantized`).

    Raises:
        ConfigError: There is no such block.
    """
    blocks = {}
    for node in space.graph.nodes:
        if isinstance(node.block, Quantized) and any(p.bits.le(INTEGER_BITS) != 0 for p in node.params.values()):
            blocks[node.path] = replace(node.block, ranges=ranges)
    if not blocks:
        raise ConfigError(
            f"no weight of space {space.name!r} is of few bits here: a stage `quantize` must stand before this one"
        )
    return space.with_blocks(blocks)


def check_calibration(space: SearchSpace, config: QuantizeConfig) -> None:
    """Refuse calibration text whose tokens cannot span the inputs of a matrix, before any work.

    Args:
        space: In which weights store their scales.
        config: How they are rounded.

    Raises:
        ConfigError: Names the matrix, the rank of its moments and how many tokens it takes.
    """
    if config.method != "gptq":
        return
    tokens, bound = config.windows * config.calibration_context, bounds(space)
    widest, name = 0, ""
    for node in space.graph.nodes:
        if isinstance(node.block, Embed | Tables):
            continue
        for key, param in node.params.items():
            if param.is_matrix and param.bits.le(INTEGER_BITS) != 0:
                inputs = bound(prod(param.shape[param.rows :], start=as_expr(1)))
                if inputs > widest:
                    widest, name = inputs, f"{node.weights}.{key}"
    if tokens < widest:
        raise ConfigError(
            f"calibration_tokens={config.calibration_tokens} are too few for GPTQ: the moments of the {widest} inputs "
            f"of {name} would be of rank {tokens} at most. Give at least {widest} tokens, or method=searched or rtn."
        )
