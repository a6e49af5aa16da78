"""A space whose blocks compute in few bits."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from rankitect.blocks import Embed, Head, Tables
from rankitect.errors import ConfigError
from rankitect.graph import Expr, SearchSpace, as_expr
from rankitect.graph.nodes import Node
from rankitect.graph.quantized import FLOAT, INTEGER_BITS, Quantized
from rankitect.models.plan import bounds
from rankitect.quantization.settings import NumericsConfig

if TYPE_CHECKING:
    from rankitect.quantization.settings import QuantizeConfig

__all__ = ["check_calibration", "idle_keys", "quantized_space", "with_ranges"]


def quantized_space(space: SearchSpace, config: NumericsConfig, ranges: str) -> SearchSpace:
    """A space in which every block with weights computes in the bits of a configuration.

    Blocks whose bits are choices keep them, and of a cache those that the space states, unless the configuration has
    fewer than floats for it.

    Args:
        space: Any space.
        config: The bits.
        ranges: "minmax" or "stored" (see `Quantized`).

    Raises:
        SpaceError: A group does not divide a weight's inputs; names the weight.
    """
    return space.with_blocks(
        {node.path: replace(block, **_decided(node, block, config)[0], ranges=ranges) for node, block in _blocks(space)}
    )


def idle_keys(space: SearchSpace, config: NumericsConfig) -> list[str]:
    """Keys that are not as they are by default, and have no effect on the blocks of a space.

    Args:
        space: The space that `quantized_space` is given.
        config: The bits.
    """
    used: set[str] = set()
    for node, block in _blocks(space):
        used |= _decided(node, block, config)[1]
    return [
        name
        for name, field in NumericsConfig.model_fields.items()
        if name not in used and getattr(config, name) != field.default
    ]


def _blocks(space: SearchSpace) -> list[tuple[Node, Quantized]]:
    return [(node, node.block) for node in space.graph.nodes if isinstance(node.block, Quantized)]


def _decided(node: Node, block: Quantized, config: NumericsConfig) -> tuple[dict[str, Any], set[str]]:
    """The fields of a block that a configuration decides, and the keys that it does so by."""
    if isinstance(block, Embed | Tables):
        keys = {"bits": "embedding_bits", "scale_group": "embedding_group"}
    elif isinstance(block, Head):
        act_bits = "act_bits" if config.head_act_bits is None else "head_act_bits"
        keys = {"bits": "head_bits", "scale_group": "head_group", "act_bits": act_bits}
    else:
        keys = {"bits": "bits", "scale_group": "group", "act_bits": "act_bits"}
    if node.cache != 0 and not (block.has_open_numerics and config.cache_bits == FLOAT):
        keys["cache_bits"] = "cache_bits"
    # Groups and activations are chosen with the bits, of which not all go with all.
    together = {"bits", "scale_group", "act_bits"} if _is_open(block.bits) else set()
    keys = {n: key for n, key in keys.items() if n not in together and not _is_open(getattr(block, n))}
    return {name: getattr(config, key) for name, key in keys.items()}, set(keys.values())


def _is_open(value: object) -> bool:
    """Whether choices of the space decide it."""
    return isinstance(value, Expr) and bool(value.paths)


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
