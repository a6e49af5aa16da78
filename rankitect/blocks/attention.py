"""Attention and feed-forward blocks of decoder-only language models.

Shapes: B batch, T tokens, D model width, K key/value heads, G query heads for each of them, h size of a head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from rankitect.graph import Block, Elementwise, Expr, P, Param, Params, T, TensorType, as_expr
from rankitect.graph.expr import ExprLike, minimum

__all__ = ["GQA", "Rope", "SwiGLU", "attended"]

CHUNK_ABOVE = 3
"""Windowed attention is computed in chunks where tokens are more than this many windows: below, chunks cost more."""


class Rope(Elementwise):
    """Cosines and sines of rotary positions (arXiv 2104.09864): ids [B, T] -> [2, T, half]."""

    ports: ClassVar[str] = "B T : int -> 2 T half"
    half: int
    base: float = 10000.0

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        ids = inputs[0]
        frequency = self.base ** (-torch.arange(self.half, dtype=torch.float32, device=ids.device) / self.half)
        angle = torch.arange(ids.shape[1], dtype=torch.float32, device=ids.device)[:, None] * frequency
        return torch.stack([angle.cos(), angle.sin()])


def attended(window: int | None) -> Expr:
    """Pairs of query and key that are multiplied in one call, of T tokens after P cached ones."""
    full = T * (P + T)
    if window is None:
        return full
    short = T.le(CHUNK_ABOVE * window)
    prefill = short * T * T + (1 - short) * ((T + window - 1) // window) * (2 * window * window)
    first = P.eq(0)
    return first * prefill + (1 - first) * T * minimum(P + T, window)


class GQA(Block):
    """Causal grouped-query attention (arXiv 2305.13245) with rotary positions: [B, T, D], [2, T, h/2] -> [B, T, D].

    Heads are two axes, key/value heads and the query heads of each, so that any smaller count is a prefix of both.

    Args:
        kv: Key/value heads K.
        group: Query heads of each key/value head, G.
        head: Size of a head.
        window: How many tokens back a query sees, itself included; None for all.
    """

    ports: ClassVar[str] = "B T D, 2 T half -> B T D"
    kv: ExprLike
    group: ExprLike
    head: int
    window: int | None = None

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][-1]
        return {
            "q": Param.of(self.kv, self.group, self.head, width),
            "k": Param.of(self.kv, self.head, width),
            "v": Param.of(self.kv, self.head, width),
            "o": Param.of(width, self.kv, self.group, self.head, inputs=(1, 2, 3)),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x, rope = inputs
        kv, group, head, _ = p.q.shape
        batch, tokens, _ = x.shape
        q = F.linear(x, p.q.flatten(0, 2)).view(batch, tokens, kv * group, head).transpose(1, 2)
        k = F.linear(x, p.k.flatten(0, 1)).view(batch, tokens, kv, head).transpose(1, 2)
        v = F.linear(x, p.v.flatten(0, 1)).view(batch, tokens, kv, head).transpose(1, 2)
        h = self._attend(rotate(q, rope), rotate(k, rope), v)
        h = h.transpose(1, 2).unflatten(2, (kv, group))
        return p.read(h, "o", ("kv", "group", None))

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        gqa = q.shape[1] != k.shape[1]
        tokens, window = q.shape[2], self.window
        if window is None or tokens <= window:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        if tokens > CHUNK_ABOVE * window:
            return _chunked(q, k, v, window)
        at = torch.arange(tokens, device=q.device)
        back = at[:, None] - at[None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < window), enable_gqa=gqa)

    def flops(self, *inputs: TensorType) -> Expr:
        x = inputs[0]
        heads, kv = as_expr(self.kv) * self.group, as_expr(self.kv)
        return 4 * x.numel * self.head * (heads + kv) + 4 * x[0] * attended(self.window) * heads * self.head

    def cache(self, *inputs: TensorType) -> Expr:
        seen = P + T if self.window is None else minimum(P + T, self.window)
        return 2 * inputs[0][0] * seen * self.kv * self.head


def rotate(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Rotate the two halves of each head by the positions' angles: [B, H, T, h], [2, T, h/2] -> [B, H, T, h]."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rope
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _chunked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """Windowed attention in chunks of one window, each against itself and the chunk before."""
    batch, heads, tokens, head = q.shape
    kv = k.shape[1]
    chunks = -(-tokens // window)
    pad = chunks * window - tokens
    q = F.pad(q, (0, 0, 0, pad)).view(batch, heads, chunks, window, head).transpose(1, 2).flatten(0, 1)

    def pairs(t: torch.Tensor) -> torch.Tensor:
        own = F.pad(t, (0, 0, 0, pad)).view(batch, kv, chunks, window, head)
        before = F.pad(own, (0, 0, 0, 0, 1, 0))[:, :, :-1]
        return torch.cat([before, own], dim=3).transpose(1, 2).flatten(0, 1)

    at = torch.arange(window, device=q.device)
    back = at[:, None] + window - torch.arange(2 * window, device=q.device)[None, :]
    mask = ((back >= 0) & (back < window)).expand(chunks, window, 2 * window).clone()
    mask[0, :, :window] = False  # nothing is before the first chunk
    mask = mask.repeat(batch, 1, 1)[:, None]
    out = F.scaled_dot_product_attention(q, pairs(k), pairs(v), attn_mask=mask, enable_gqa=heads != kv)
    return out.view(batch, chunks, heads, window, head).transpose(1, 2).flatten(2, 3)[:, :, :tokens]


class SwiGLU(Block):
    """Gated feed-forward (arXiv 2002.05202): [..., D] -> [..., D] through `width` hidden units."""

    ports: ClassVar[str] = "... D -> ... D"
    width: ExprLike

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        model = inputs[0][-1]
        return {
            "gate": Param.of(self.width, model),
            "up": Param.of(self.width, model),
            "down": Param.of(model, self.width),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        h = F.silu(F.linear(x, p.gate)) * F.linear(x, p.up)
        return p.read(h, "down", ("width",))

    def flops(self, *inputs: TensorType) -> Expr:
        return 6 * inputs[0].numel * self.width
