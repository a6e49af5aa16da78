"""A decoder whose layers differ in heads, feed-forward width and attention. See `configuration_rankitect`.

Shapes: B batch, T new tokens, S tokens with cached ones, H query heads, K key/value heads, h size of a head.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_rankitect import DeciLMConfig, Part, RankitectConfig

__all__ = ["DeciLMForCausalLM", "RankitectForCausalLM"]


class Norm(nn.Module):
    """RMS norm over the last dimension, in float32."""

    def __init__(self, size: int, eps: float, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * (self.weight.float() + self.offset)).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention, to all tokens or to a window of them."""

    def __init__(self, config: RankitectConfig, part: Part, index: int) -> None:
        super().__init__()
        blocks, self.head, self.index = config.blocks, config.head_dim, index
        self.kv, self.heads = part.num_key_value_heads, part.num_key_value_heads * part.n_heads_in_group
        self.rotary = part.get("rotary")
        self.scale = blocks.get("score_scale") or self.head**-0.5
        self.qk_norm = blocks.get("qk_norm", "none")
        bias = bool(blocks.get("bias"))
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.kv * self.head, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.kv * self.head, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head, config.hidden_size, bias=False)
        if self.qk_norm != "none":
            sizes = (self.heads * self.head, self.kv * self.head) if self.qk_norm == "all" else (self.head, self.head)
            self.q_norm, self.k_norm = (Norm(n, config.rms_norm_eps, blocks.get("norm_offset", 0.0)) for n in sizes)

    def forward(
        self, x: torch.Tensor, turns: list[torch.Tensor], seen: torch.Tensor, cache: DynamicCache | None
    ) -> torch.Tensor:
        """Attend: x [B, T, D], for each way of turning its cosines and sines [2, B, T, h/2], and what may be seen."""
        batch, tokens, _ = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.qk_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.view(batch, tokens, -1, self.head).transpose(1, 2) for y in (q, k, v))
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = turned(q, turns[self.rotary]), turned(k, turns[self.rotary])
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        k, v = (y.repeat_interleave(self.heads // self.kv, dim=1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        return self.o_proj(y.transpose(1, 2).flatten(2))


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Heads [B, H, T, h] turned by their positions."""
    cos, sin = turns.to(x.dtype)[:, :, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class FeedForward(nn.Module):
    """A gated feed-forward."""

    def __init__(self, width: int, hidden: int, gelu: bool) -> None:
        super().__init__()
        self.gelu = gelu
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute."""
        gate = self.gate_proj(x)
        gate = F.gelu(gate, approximate="tanh") if self.gelu else F.silu(gate)
        return self.down_proj(gate * self.up_proj(x))


def of_tokens(mask: Any, length: int) -> torch.Tensor:
    """A mask [B, S] of which tokens are no padding, cut to the length of the text.

    Raises:
        ValueError: It is of another kind, such as a mask of pairs of tokens, or does not tell of all tokens.
    """
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or mask.shape[1] < length:
        given = f"a tensor of shape {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ValueError(
            f"attention_mask is {given}; this model takes one of two dimensions, [batch, tokens] with those that are "
            f"cached ({length} tokens here), which is 0 at padding: what a token sees beside that is decided by layer."
        )
    return mask[:, :length].bool()


NORMS = {
    "pre": (("input_layernorm", None), ("post_attention_layernorm", None)),
    "post": ((None, "post_attention_layernorm"), (None, "post_feedforward_layernorm")),
    "both": (
        ("input_layernorm", "post_attention_layernorm"),
        ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
}
"""The norms before and behind attention, and before and behind the feed-forward, by where they stand."""


class Layer(nn.Module):
    """One layer; it may have no attention, or no feed-forward."""

    def __init__(self, config: RankitectConfig, part: Part, index: int) -> None:
        super().__init__()
        blocks = config.blocks
        attention, ffn = NORMS[blocks.get("norms", "pre")]
        self.attends, self.feeds, self.names = not part.attention.no_op, not part.ffn.no_op, (attention, ffn)
        for name in (*(attention if self.attends else ()), *(ffn if self.feeds else ())):
            if name is not None:
                self.add_module(name, Norm(config.hidden_size, config.rms_norm_eps, blocks.get("norm_offset", 0.0)))
        if self.attends:
            self.self_attn = Attention(config, part.attention, index)
        if self.feeds:
            self.mlp = FeedForward(config.hidden_size, part.ffn.intermediate_size, blocks.get("act") == "gelu_tanh")

    def normed(self, name: str | None, x: torch.Tensor) -> torch.Tensor:
        """Through the norm of a name, if there is one."""
        return x if name is None else self.get_submodule(name)(x)

    def forward(
        self, x: torch.Tensor, turns: list[torch.Tensor], seen: torch.Tensor, cache: DynamicCache | None
    ) -> torch.Tensor:
        """Add what attention and feed-forward compute."""
        (before, behind), (before_ffn, behind_ffn) = self.names
        if self.attends:
            x = x + self.normed(behind, self.self_attn(self.normed(before, x), turns, seen, cache))
        return x + self.normed(behind_ffn, self.mlp(self.normed(before_ffn, x))) if self.feeds else x


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: RankitectConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        indices = iter(range(len(config.block_configs)))  # only layers with attention have a place in the cache
        self.layers = nn.ModuleList(
            Layer(config, part, 0 if part.attention.no_op else next(indices)) for part in config.block_configs
        )
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, config.blocks.get("norm_offset", 0.0))

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        cache: DynamicCache | None,
    ) -> torch.Tensor:
        """Hidden states of embedded tokens: [B, T, D] -> [B, T, D]."""
        batch, tokens, _ = x.shape
        before = 0 if cache is None else cache.get_seq_length()
        slots = torch.arange(before, before + tokens, device=x.device)
        positions = slots.expand(batch, -1) if positions is None else positions.expand(batch, -1)
        turns = [self.turns(one, positions) for one in self.config.rotary]
        past = slots[:, None] - torch.arange(before + tokens, device=x.device)  # how far back a token is, [T, S]
        allowed = (past >= 0).expand(batch, 1, -1, -1)
        if mask is not None:
            allowed = allowed & of_tokens(mask, before + tokens)[:, None, None]
        # a row that sees nothing, as padding on the left does, would be no number
        allowed = allowed | (past == 0)
        seen: dict[int | None, torch.Tensor] = {None: allowed}
        for layer, part in zip(self.layers, self.config.block_configs, strict=True):
            window: int | None = part.attention.get("window")
            if window is not None and window not in seen:
                seen[window] = allowed & (past < window)
            x = layer(x, turns, seen[window], cache)
        return self.norm(x)

    def turns(self, one: dict[str, Any], positions: torch.Tensor) -> torch.Tensor:
        """Cosines and sines of positions, [2, B, T, h/2]."""
        if "frequencies" in one:
            frequencies, scale = torch.tensor(one["frequencies"], device=positions.device), one["scale"]
        else:
            head, base, scale = self.config.head_dim, one["base"], 1.0
            length = int(positions.max()) + 1
            if length > one["original"]:
                grown = one["factor"] * length / one["original"] - (one["factor"] - 1)
                base *= grown ** (head / (head - 2))
            powers = torch.arange(0, head, 2, dtype=torch.float32, device=positions.device) / head
            frequencies = 1.0 / base**powers
        angles = positions[..., None].float() * frequencies
        return torch.stack([angles.cos(), angles.sin()]) * scale


class RankitectForCausalLM(PreTrainedModel, GenerationMixin):
    """Token ids to the next token's logits."""

    config_class: type[RankitectConfig] = RankitectConfig
    base_model_prefix = "model"
    _no_split_modules: ClassVar[list[str]] = ["Layer"]
    _supports_sdpa = True

    def __init__(self, config: RankitectConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.vocab_size = config.vocab_size
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.model.embed_tokens

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Arguments and results are those of every decoder of `transformers`.

        The loss is that of all labels, whichever logits are kept.

        Raises:
            ValueError: `attention_mask` has not two dimensions, or does not tell of all tokens.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        scale = self.config.blocks.get("embed_scale", 1.0)
        x = self.model(x if scale == 1.0 else x * scale, attention_mask, position_ids, past_key_values)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        if labels is None:
            return CausalLMOutputWithPast(logits=self.logits(x[:, kept]), past_key_values=past_key_values)
        logits = self.logits(x)
        loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **others)
        return CausalLMOutputWithPast(loss=loss, logits=logits[:, kept], past_key_values=past_key_values)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """The output table's products with hidden states: [B, T, D] -> [B, T, V]."""
        tied = self.config.tie_word_embeddings
        return F.linear(x, self.model.embed_tokens.weight) if tied else self.lm_head(x)


class DeciLMForCausalLM(RankitectForCausalLM):
    """The same under the name that vLLM and TensorRT-LLM know; they have code of their own for it."""

    config_class = DeciLMConfig
