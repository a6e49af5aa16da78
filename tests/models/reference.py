"""A plain Llama in PyTorch, written by hand: the platform's own models are compared with it, in logits and in speed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig


class ReferenceLayer(nn.Module):
    """One pre-norm transformer layer: grouped-query attention with RoPE, then SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, head = config.d_model, config.head_dim
        self.heads, self.kv_heads, self.head, self.eps = config.n_heads, config.n_kv_heads, head, config.norm_eps
        self.input_layernorm = nn.RMSNorm(width, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=config.norm_eps)
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(width, self.heads * head, bias=False),
                "k_proj": nn.Linear(width, self.kv_heads * head, bias=False),
                "v_proj": nn.Linear(width, self.kv_heads * head, bias=False),
                "o_proj": nn.Linear(self.heads * head, width, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(width, config.ffn, bias=False),
                "up_proj": nn.Linear(width, config.ffn, bias=False),
                "down_proj": nn.Linear(config.ffn, width, bias=False),
            }
        )

    def forward(self, x_BTD: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor) -> torch.Tensor:
        x_BTD = x_BTD + self._attention(self.input_layernorm(x_BTD), cos_TE, sin_TE)
        return x_BTD + self._feed_forward(self.post_attention_layernorm(x_BTD))

    def _attention(self, x_BTD: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor) -> torch.Tensor:
        def split(projection: str, heads: int) -> torch.Tensor:
            return self.self_attn[projection](x_BTD).unflatten(-1, (heads, self.head)).transpose(1, 2)

        q_BHTE = rotate(split("q_proj", self.heads), cos_TE, sin_TE)
        k_BKTE = rotate(split("k_proj", self.kv_heads), cos_TE, sin_TE)
        v_BKTE = split("v_proj", self.kv_heads)
        grouped = self.heads != self.kv_heads
        y_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=grouped)
        return self.self_attn["o_proj"](y_BHTE.transpose(1, 2).flatten(-2))

    def _feed_forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](x_BTD)) * self.mlp["up_proj"](x_BTD))


def rotate(x_BHTE: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor) -> torch.Tensor:
    """RoPE in Hugging Face's layout: element i of a head turns with element i + head / 2."""
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cos_TE + torch.cat((-second, first), dim=-1) * sin_TE


class ReferenceLlama(nn.Module):
    """A whole Llama, `ids` of shape (B, T) to logits of shape (B, T, vocab). Parameter names are Hugging Face's."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab, config.d_model),
                "layers": nn.ModuleList(ReferenceLayer(config) for _ in range(config.n_layers)),
                "norm": nn.RMSNorm(config.d_model, eps=config.norm_eps),
            }
        )
        self.lm_head = nn.Linear(config.d_model, config.vocab, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.model["embed_tokens"].weight

    @classmethod
    def load(cls, checkpoint: DecoderCheckpoint) -> ReferenceLlama:
        """The model of a checkpoint, with its own copy of the weights."""
        with torch.device("meta"):
            model = cls(checkpoint.config)
        weights = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
        if checkpoint.config.tied_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        model.load_state_dict(weights, assign=True)
        if checkpoint.config.tied_embeddings:
            model.lm_head.weight = model.model["embed_tokens"].weight
        return model

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        exponents = torch.arange(0, self.config.head_dim, 2, dtype=torch.float64) / self.config.head_dim
        angles_TE = torch.arange(ids_BT.shape[1])[:, None] * self.config.rope_base ** -exponents.repeat(2)
        cos_TE, sin_TE = angles_TE.cos().float(), angles_TE.sin().float()
        x_BTD = self.model["embed_tokens"](ids_BT)
        for layer in self.model["layers"]:
            x_BTD = layer(x_BTD, cos_TE, sin_TE)
        return self.lm_head(self.model["norm"](x_BTD))


def perplexity(model: nn.Module, ids_NT: torch.Tensor, batch: int = 4) -> float:
    """exp of the mean negative log likelihood, nats a token, of tokens 1 to T-1 of each row."""
    total, count = 0.0, 0
    with torch.no_grad():
        for rows in ids_NT.split(batch):
            logits = model(rows)
            logits = getattr(logits, "logits", logits)[:, :-1].flatten(0, 1)
            total += F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum").item()
            count += rows[:, 1:].numel()
    return float(torch.tensor(total / count, dtype=torch.float64).exp())
