"""Attention and feed-forward blocks of decoder-only language models.

Shapes: B batch, T tokens, D model width, K key/value heads, G query heads for each of them, h size of a head.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F

from rankitect.graph import Block, Call, Elementwise, Expr, P, Param, Params, T, TensorType, as_expr
from rankitect.space.expr import ExprLike, minimum

__all__ = ["GQA", "Rope", "SwiGLU", "attended"]

CHUNK_ABOVE = 3
"""Windowed attention is computed in chunks where tokens are more than this many windows: below, chunks cost more."""

QUERIES = 256
"""Queries of a deployed prompt that are attended together: fewer save keys that none of them sees, and memory."""
HIDDEN = -1e9
"""Added to the scores of what is not seen. Finite: a runtime's softmax may subtract two of them."""


class Rope(Elementwise):
    """Cosines and sines of rotary positions (arXiv 2104.09864): ids [B, T] -> [2, T, half]."""

    ports: ClassVar[str] = "B T : int -> 2 T half"
    plain: ClassVar[tuple[str, ...]] = ("half",)
    half: int
    base: float = 10000.0

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        ids = inputs[0]
        frequency = self.base ** (-torch.arange(self.half, dtype=torch.float32, device=ids.device) / self.half)
        angle = torch.arange(ids.shape[1], dtype=torch.float32, device=ids.device)[:, None] * frequency
        return torch.stack([angle.cos(), angle.sin()])

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        tokens = call.capacity if call.decode else inputs[0].shape[1]

        def table() -> torch.Tensor:
            return self.run(p, torch.zeros(1, tokens)).transpose(0, 1).flatten(1)

        rows = call.constant((self, tokens), table)
        if call.decode:
            rows = F.embedding(call.position, rows)
        return rows.view(-1, 2, self.half).permute(1, 0, 2)


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
    plain: ClassVar[tuple[str, ...]] = ("head", "window")
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
        x, rope = inputs[0], inputs[1].to(inputs[0].dtype)  # positions are computed in float32
        kv, group, head, _ = p.q.shape
        batch, tokens, _ = x.shape
        q = p.linear(x, "q").view(batch, tokens, kv * group, head).transpose(1, 2)
        k = p.linear(x, "k").view(batch, tokens, kv, head).transpose(1, 2)
        v = p.linear(x, "v").view(batch, tokens, kv, head).transpose(1, 2)
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

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.deploy`. Kept are the rotated keys [K, T, h] and the values [K, h, T], as they are multiplied."""
        x, rope = inputs
        kv, group, head = p.size("kv"), p.size("group"), self.head
        tokens = x.shape[1]
        q = p.linear(x, "q").view(tokens, kv, group, head).permute(1, 2, 0, 3)
        k = p.linear(x, "k").view(tokens, kv, head).transpose(0, 1)
        v = p.linear(x, "v").view(tokens, kv, head)
        q, k = _turn(q, rope) * head**-0.5, _turn(k, rope)
        call.keep(k, v.permute(1, 2, 0))
        if call.decode:
            h = self._one(call, q.view(kv, group, head), k, v.permute(1, 2, 0))
        else:
            h = prompt_attention(call, q, k.transpose(1, 2), v.transpose(0, 1), self.window)
        h = h.permute(2, 0, 1, 3).reshape(1, tokens, kv, group, head)
        return p.read(h, "o", ("kv", "group", None))

    def _one(self, call: Call, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention of one token: the cache is only read, and stands on the side of a product that is not copied."""
        kv, group, head = q.shape
        keys, values, mask = call.past(self.window, (kv, -1, head), (kv, head, -1))
        q = q.transpose(1, 2)
        old = torch.bmm(keys, q) + mask.view(1, -1, 1)
        slots = old.shape[1]
        chances = torch.cat([old, torch.bmm(k, q)], dim=1).transpose(1, 2).softmax(-1).transpose(1, 2)
        h = torch.bmm(values, chances[:, :slots]) + torch.bmm(v, chances[:, slots:])
        return h.transpose(1, 2).view(kv, group, 1, head)

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


def _turn(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """What `rotate` gives, with slices that keep their axis, as mobile runtimes want them."""
    half = x.shape[-1] // 2
    left, right, cos, sin = x[..., :half], x[..., half:], rope[:1], rope[1:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def prompt_attention(call: Call, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """Causal attention of a prompt with itself, a chunk of queries after another against the keys that any of it sees.

    Args:
        call: Holds the masks.
        q: Scaled queries [K, G, T, h].
        k: Keys [K, h, T].
        v: Values [K, T, h].
        window: Tokens that are seen back, the present one included; None for all.

    Returns:
        [K, G, T, h].
    """
    kv, group, tokens, head = q.shape
    step = min(window or QUERIES, QUERIES)
    made = []
    for start in range(0, tokens, step):
        end = min(tokens, start + step)
        first = 0 if window is None else max(0, start - window + 1)
        part = _part(q, 2, start, end).reshape(kv, group * (end - start), head)
        scores = torch.bmm(part, _part(k, 2, first, end)).view(kv, group, end - start, end - first)
        shape = (end - start, start - first, window)
        mask = call.constant(("mask", *shape), partial(_mask, *shape))
        chances = (scores + mask).softmax(-1).view(kv, group * (end - start), end - first)
        made.append(torch.bmm(chances, _part(v, 1, first, end)).view(kv, group, end - start, head))
    while len(made) > 1:  # XNNPACK joins at most five tensors at once
        made = [torch.cat(made[i : i + 4], dim=2) if made[i + 1 : i + 2] else made[i] for i in range(0, len(made), 4)]
    return made[0]


def _part(x: torch.Tensor, axis: int, start: int, end: int) -> torch.Tensor:
    """A slice; the tensor itself where it is the whole, as an exported slice of everything ends a delegated piece."""
    return x if end - start == x.shape[axis] else x.narrow(axis, start, end - start)


def _mask(queries: int, before: int, window: int | None) -> torch.Tensor:
    """What is added to scores, [queries, before + queries]: query i stands at key `before` + i."""
    back = before + torch.arange(queries)[:, None] - torch.arange(before + queries)[None, :]
    hidden = (back < 0) | (back >= window) if window is not None else back < 0
    return torch.zeros(hidden.shape).masked_fill(hidden, HIDDEN)


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
        h = F.silu(p.linear(x, "gate")) * p.linear(x, "up")
        return p.read(h, "down", ("width",))

    def flops(self, *inputs: TensorType) -> Expr:
        return 6 * inputs[0].numel * self.width
