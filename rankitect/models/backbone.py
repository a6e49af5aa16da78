"""A pretrained Llama as a supernet: weights sorted by importance, so that any architecture is the pruned model.

Where calibration statistics are given, the weights that read a layer's hidden units are also refitted for what is kept
(`refit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.checkpoints import LlamaCheckpoint, LlamaConfig
from rankitect.models.importance import Statistics, unit_scores
from rankitect.models.refit import Refit
from rankitect.models.supernet import Standalone, Supernet
from rankitect.space.choices import ChoiceValue

__all__ = ["Backbone", "Orders", "largest", "llama_tensors", "rank"]

Key = tuple[str, str]


def largest(space: SearchSpace) -> Architecture:
    """The architecture that keeps everything once: the backbone itself in a space made from one."""
    values: dict[str, ChoiceValue] = {}
    for path, choice in space.choices.items():
        if path.endswith(".runs"):
            values[path] = 1
        elif choice.numeric:
            values[path] = max(choice.values)
        else:
            values[path] = "full" if "full" in choice.values else choice.values[0]
    return space.architecture(values)


@dataclass(frozen=True)
class Orders:
    """Positions in order of importance, best first. Empty means: as they are.

    Attributes:
        channels: Of the residual stream, [D].
        kv: Of the key/value heads of each layer, [K].
        group: Of the query heads of each (sorted) key/value head, [K, G].
        ffn: Of the feed-forward units of each layer, [F].
    """

    channels: torch.Tensor | None = None
    kv: Mapping[int, torch.Tensor] = field(default_factory=dict)
    group: Mapping[int, torch.Tensor] = field(default_factory=dict)
    ffn: Mapping[int, torch.Tensor] = field(default_factory=dict)


def llama_tensors(checkpoint: LlamaCheckpoint, orders: Orders | None = None) -> dict[Key, torch.Tensor]:
    """A checkpoint's weights under the names and shapes of `mobile_llm`, sorted.

    Raises:
        SpaceError: The checkpoint has an output table of its own (the space ties it to the embedding).
    """
    c, t, o = checkpoint.config, checkpoint.tensors, orders or Orders()
    if not c.tied_embeddings:
        raise SpaceError(
            f"{checkpoint.source}: its output table is not tied to the embedding; tied models are supported"
        )
    kv, group, head = c.n_kv_heads, c.n_heads // c.n_kv_heads, c.head_dim
    channels = o.channels if o.channels is not None else torch.arange(c.d_model)
    found: dict[Key, torch.Tensor] = {
        ("embed", "weight"): t["model.embed_tokens.weight"][:, channels],
        ("norm", "weight"): t["model.norm.weight"][channels],
    }
    for i in range(c.n_layers):
        source, scope = f"model.layers.{i}.", f"layers.{i}."
        k_order = o.kv.get(i, torch.arange(kv))
        g_order = o.group.get(i, torch.arange(group).expand(kv, group))
        f_order = o.ffn.get(i, torch.arange(c.ffn))
        pick = (k_order[:, None], g_order)
        q = t[source + "self_attn.q_proj.weight"].view(kv, group, head, -1)[pick][..., channels]
        out = t[source + "self_attn.o_proj.weight"].view(-1, kv, group, head)[:, pick[0], pick[1]][channels]
        found[scope + "norm1", "weight"] = t[source + "input_layernorm.weight"][channels]
        found[scope + "norm2", "weight"] = t[source + "post_attention_layernorm.weight"][channels]
        found[scope + "attn.shared", "q"] = q
        for name in ("k", "v"):
            weight = t[f"{source}self_attn.{name}_proj.weight"].view(kv, head, -1)
            found[scope + "attn.shared", name] = weight[k_order][..., channels]
        found[scope + "attn.shared", "o"] = out
        for name in ("gate", "up"):
            found[scope + "mlp", name] = t[f"{source}mlp.{name}_proj.weight"][f_order][:, channels]
        found[scope + "mlp", "down"] = t[source + "mlp.down_proj.weight"][channels][:, f_order]
    return {key: tensor.contiguous() for key, tensor in found.items()}


def huggingface_tensors(model: Standalone, layers: list[str]) -> dict[str, torch.Tensor]:
    """The inverse of `llama_tensors` for a model whose layers, at these scopes, are alike."""
    found: dict[str, torch.Tensor] = {
        "model.embed_tokens.weight": model.owner("embed").get_parameter("weight"),
        "model.norm.weight": model.owner("norm").get_parameter("weight"),
    }
    for i, scope in enumerate(layers):
        target, attention, mlp = f"model.layers.{i}.", model.owner(f"{scope}.attn.shared"), model.owner(f"{scope}.mlp")
        found[target + "input_layernorm.weight"] = model.owner(f"{scope}.norm1").get_parameter("weight")
        found[target + "post_attention_layernorm.weight"] = model.owner(f"{scope}.norm2").get_parameter("weight")
        found[target + "self_attn.q_proj.weight"] = attention.get_parameter("q").flatten(0, 2)
        found[target + "self_attn.k_proj.weight"] = attention.get_parameter("k").flatten(0, 1)
        found[target + "self_attn.v_proj.weight"] = attention.get_parameter("v").flatten(0, 1)
        found[target + "self_attn.o_proj.weight"] = attention.get_parameter("o").flatten(1)
        for name in ("gate", "up", "down"):
            found[f"{target}mlp.{name}_proj.weight"] = mlp.get_parameter(name)
    return {name: t.detach().clone().contiguous() for name, t in found.items()}


def rank(config: LlamaConfig, plain: Supernet, statistics: Statistics, criterion: str = "energy") -> Orders:
    """Orders of all axes from calibration statistics of the unsorted backbone.

    A key/value head counts as much as all its query heads together.

    Args:
        config: The backbone's sizes.
        plain: The backbone with weights as they are.
        statistics: Gathered on `plain` at its largest architecture.
        criterion: For hidden units and heads; a key of `importance.CRITERIA`.
    """
    kv, group, ffn = {}, {}, {}
    for i in range(config.n_layers):
        attention = plain.weights.owner(f"layers.{i}.attn.shared").get_parameter("o")
        heads = unit_scores(statistics, (f"layers.{i}.attn.shared", "o"), attention, criterion).sum(-1)
        kv[i] = heads.sum(1).argsort(descending=True, stable=True)
        group[i] = heads[kv[i]].argsort(dim=1, descending=True, stable=True)
        down = plain.weights.owner(f"layers.{i}.mlp").get_parameter("down")
        ffn[i] = unit_scores(statistics, (f"layers.{i}.mlp", "down"), down, criterion).argsort(
            descending=True, stable=True
        )
    return Orders(statistics.residual.argsort(descending=True, stable=True), kv, group, ffn)


class Backbone:
    """A pretrained model in a space: sorted weights, and refits for every size where statistics are given.

    Args:
        checkpoint: The pretrained model.
        space: Made from it (`from_backbone`).
        orders: Of all axes.
        gram: Second moments of hidden units in the *unsorted* order, by (owner, name) of the weight that reads them;
            with them, pruned weights are refitted.
        influence: Block influence of each layer, by scope.
    """

    def __init__(
        self,
        checkpoint: LlamaCheckpoint,
        space: SearchSpace,
        orders: Orders | None = None,
        gram: Mapping[Key, torch.Tensor] | None = None,
        influence: Mapping[str, float] | None = None,
    ) -> None:
        self.checkpoint, self.space, self.orders = checkpoint, space, orders or Orders()
        self.supernet = Supernet(space, tensors=llama_tensors(checkpoint, self.orders))
        self.largest = largest(space)
        self.influence = dict(influence or {})
        for (owner, name), moments in (gram or {}).items():
            module = self.supernet.weights.owner(owner)
            weight = getattr(module, name).detach()
            module.variants[name] = Refit(weight, self._sorted(owner, moments), self._options(owner))

    def _options(self, owner: str) -> list[tuple[int, ...]]:
        scope = ".".join(owner.split(".")[:2])
        if owner.endswith(".mlp"):
            return [(int(f),) for f in self._values(f"{scope}.ffn")]
        head = self.checkpoint.config.head_dim
        return [(k, g, head) for k, g in product(self._values(f"{scope}.kv_heads"), self._values(f"{scope}.group"))]

    def _values(self, path: str) -> list[int]:
        return [int(v) for v in self.space.choices[path].values]  # type: ignore[arg-type]

    def _sorted(self, owner: str, gram: torch.Tensor) -> torch.Tensor:
        c, layer = self.checkpoint.config, int(owner.split(".")[1])
        if owner.endswith(".mlp"):
            order = self.orders.ffn.get(layer, torch.arange(c.ffn))
        else:
            kv, group = c.n_kv_heads, c.n_heads // c.n_kv_heads
            at = torch.arange(c.n_heads * c.head_dim).view(kv, group, c.head_dim)
            k_order = self.orders.kv.get(layer, torch.arange(kv))
            order = at[k_order[:, None], self.orders.group.get(layer, torch.arange(group).expand(kv, group))].flatten()
        return gram[order][:, order]

    def inherit(self, architecture: Architecture) -> Standalone:
        """The pruned backbone as a model of its own."""
        return self.supernet.extract(architecture)
