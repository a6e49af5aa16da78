"""Attention and feed-forward blocks of decoder-only language models.

Shapes: B batch, T tokens, D model width, K key/value heads, G query heads for each of them, h size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F

from rankitect.blocks.dense import ACTIVATIONS, deployed_rms, norm_start
from rankitect.blocks.hadamard import (
    check_flag,
    check_size,
    deployed_turn,
    hadamard_factors,
    turned,
    turning_flops,
)
from rankitect.blocks.rotary import Rope, rotate, turn
from rankitect.errors import SpaceError
from rankitect.graph import Call, Expr, P, Packing, Param, Params, Quantized, T, TensorType, added, as_expr
from rankitect.space.expr import ExprLike, minimum

__all__ = ["GQA", "QK_NORMS", "Rope", "SwiGLU", "attended"]

QK_NORMS = ("none", "head", "all")
"""What is normalised of queries and of keys: nothing, each head (arXiv 2302.05442), or all heads of a layer at once."""

CHUNK_ABOVE = 3
"""Windowed attention is computed in chunks where tokens are more than this many windows: below, chunks cost more."""

QUERIES = 256
"""Queries of a deployed prompt that are attended together: fewer save keys that none of them sees, and memory."""
HIDDEN = -1e9
"""Added to the scores of what is not seen. Finite: a runtime's softmax may subtract two of them."""


def attended(window: int | None) -> Expr:
    """Pairs of query and key that are multiplied in one call, of T tokens after P cached ones."""
    full = T * (P + T)
    if window is None:
        return full
    short = T.le(CHUNK_ABOVE * window)
    prefill = short * T * T + (1 - short) * ((T + window - 1) // window) * (2 * window * window)
    first = P.eq(0)
    return first * prefill + (1 - first) * T * minimum(P + T, window)


class GQA(Quantized):
    """Causal grouped-query attention (arXiv 2305.13245) with rotary positions: [B, T, D], [2, T, h/2] -> [B, T, D].

    Heads are two axes, key/value heads and the query heads of each, so that any smaller count is a prefix of both.

    Args:
        kv: Key/value heads K.
        group: Query heads of each key/value head, G.
        head: Size of a head.
        window: How many tokens back a query sees, itself included; None for all.
        bias: Whether queries, keys and values have one.
        qk_norm: One of `QK_NORMS`: which RMS norm queries and keys go through before they are turned. That over all
            heads takes its mean over the heads that the architecture keeps.
        eps: Of these norms.
        offset: Of these norms (see `Norm`).
        scale: Of the products of queries and keys; None for 1 / sqrt(h).
        rotary: Whether heads are turned by their positions. Where they are not, the block has only its first input.
        hadamard: Whether queries and keys are multiplied by a Hadamard matrix in the end (SpinQuant's R3, arXiv
            2405.16406): their products are the same, and keys have no channels that stand out.
    """

    free_axes: ClassVar = ((("v", 1), ("v_bias", 1), ("o", 3)),)
    plain: ClassVar[tuple[str, ...]] = ("head", "window", "scale")
    kv: ExprLike
    group: ExprLike
    head: int
    window: int | None = None
    bias: bool = False
    qk_norm: str = "none"
    eps: float = 1e-5
    offset: float = 0.0
    scale: float | None = None
    rotary: bool = True
    hadamard: bool = added(default=False)

    def __post_init__(self) -> None:
        if check_flag("GQA", "hadamard", self.hadamard):
            hadamard_factors(check_size(self.head))  # refuses a size of which there is none
        if self.qk_norm not in QK_NORMS:
            raise SpaceError(f"GQA: qk_norm is {self.qk_norm!r}; allowed: {', '.join(QK_NORMS)}")
        norm_start("GQA", self.offset)

    @property
    def ports(self) -> str:  # type: ignore[override]
        """The types: positions only where heads are turned by them."""
        return "B T D, 2 T half -> B T D" if self.rotary else "B T D -> B T D"

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][-1]
        if self.rotary and (half := inputs[1][-1]).constant is not None and 2 * half != self.head:
            raise SpaceError(f"GQA: heads have {self.head} channels, and are turned by positions for {2 * half}")
        heads = {"q": (self.kv, self.group, self.head), "k": (self.kv, self.head), "v": (self.kv, self.head)}
        params = {name: Param.of(*dims, width) for name, dims in heads.items()}
        params["o"] = Param.of(width, self.kv, self.group, self.head, inputs=(1, 2, 3))
        if self.bias:
            params |= {f"{name}_bias": Param.of(*dims, init="zeros") for name, dims in heads.items()}
        if self.qk_norm != "none":
            start = norm_start("GQA", self.offset)
            for name in ("q", "k"):
                params[f"{name}_norm"] = Param.of(*heads[name] if self.qk_norm == "all" else [self.head], init=start)
        return params

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return self._mixed(p, None, *inputs)

    def packed(self, p: Params, packing: Packing, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.packed`."""
        return self._mixed(p, packing, *inputs)

    def _mixed(self, p: Params, packing: Packing | None, *inputs: torch.Tensor) -> torch.Tensor:
        """The outputs; a token sees what a packing says, or all that stand before it."""
        x = inputs[0]
        kv, group, head, _ = p.q.shape
        batch, tokens, _ = x.shape
        q, k, v = (self._heads(p, x, name) for name in "qkv")
        if self.qk_norm != "none":
            q, k = self._normed(p, q, "q_norm", ("kv", "group")), self._normed(p, k, "k_norm", ("kv",))
        q = q.view(batch, tokens, kv * group, head).transpose(1, 2)
        k = k.view(batch, tokens, kv, head).transpose(1, 2)
        v = v.view(batch, tokens, kv, head).transpose(1, 2)
        if self.rotary:
            rope = inputs[1].to(x.dtype)  # positions are computed in float32
            q, k = rotate(q, rope), rotate(k, rope)
        if self.hadamard:
            q, k = turned(q, head), turned(k, head)
        k, v = p.kept(k), p.kept(v)
        if packing is None:
            h = self._attend(q, k, v)
        else:
            h = packing.attended(q, k, v, self.window, self.scale)
        h = h.transpose(1, 2).unflatten(2, (kv, group))
        return p.read(h, "o", ("kv", "group", None))

    def _heads(self, p: Params, x: torch.Tensor, name: str) -> torch.Tensor:
        """Queries, keys or values of all heads side by side: [B, T, D] -> [B, T, heads * h]."""
        y = p.linear(x, name)
        return y + self._weight(p, f"{name}_bias").flatten() if self.bias else y

    def _weight(self, p: Params, name: str) -> torch.Tensor:
        weight: torch.Tensor = getattr(p, name)
        return weight

    def _gain(self, p: Params, name: str) -> torch.Tensor:
        weight = self._weight(p, name)
        return weight + self.offset if self.offset else weight

    def _normed(self, p: Params, x: torch.Tensor, name: str, axes: Sequence[str]) -> torch.Tensor:
        """Queries or keys after their norm, [B, T, heads * h] -> [B, T, heads * h].

        Args:
            p: Holds the norm's weight.
            x: Heads side by side.
            name: Of the norm's weight.
            axes: The fields that count the heads.
        """
        gain = self._gain(p, name)
        if self.qk_norm == "head":
            heads = F.rms_norm(x.unflatten(-1, (-1, self.head)), (self.head,), gain, self.eps)
            return heads.flatten(-2)
        masks, sizes = [p.mask(axis) for axis in axes], [p.size(axis) for axis in axes]
        if all(mask is None for mask in masks):
            return F.rms_norm(x, (x.shape[-1],), gain.flatten(), self.eps)
        square = x.square().unflatten(-1, gain.shape)
        for i, mask in enumerate(masks):
            if mask is not None:
                square = square * mask.view(-1, *([1] * (len(axes) - i)))
        total = square.flatten(-len(axes) - 1).sum(-1, keepdim=True)
        return x * torch.rsqrt(total / (prod(sizes) * self.head) + self.eps) * gain.flatten()

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        gqa, scale = q.shape[1] != k.shape[1], self.scale
        tokens, window = q.shape[2], self.window
        if window is None or tokens <= window:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
        if tokens > CHUNK_ABOVE * window:
            return _chunked(q, k, v, window, scale)
        at = torch.arange(tokens, device=q.device)
        back = at[:, None] - at[None, :]
        seen = (back >= 0) & (back < window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=gqa)

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.deploy`. Kept are the rotated keys [K, T, h] and the values [K, h, T], as they are multiplied."""
        x = inputs[0]
        kv, group, head = p.size("kv"), p.size("group"), self.head
        tokens = x.shape[1]
        q, k, v = (self._heads(p, x, name) for name in "qkv")
        if self.qk_norm != "none":
            q, k = self._deployed_norm(p, call, q, "q_norm"), self._deployed_norm(p, call, k, "k_norm")
        q = q.view(tokens, kv, group, head).permute(1, 2, 0, 3)
        k = k.view(tokens, kv, head).transpose(0, 1)
        v = v.view(tokens, kv, head)
        if self.rotary:
            q, k = turn(q, inputs[1]), turn(k, inputs[1])
        if self.hadamard:
            q, k = deployed_turn(call, q, head), deployed_turn(call, k, head)
        k, v = p.kept(k), p.kept(v)
        q = q * (head**-0.5 if self.scale is None else self.scale)
        call.keep(k, v.permute(1, 2, 0))
        if call.decode:
            h = self._one(call, q.view(kv, group, head), k, v.permute(1, 2, 0))
        else:
            h = prompt_attention(call, q, k.transpose(1, 2), v.transpose(0, 1), self.window)
        h = h.permute(2, 0, 1, 3).reshape(1, tokens, kv, group, head)
        return p.read(h, "o", ("kv", "group", None))

    def _deployed_norm(self, p: Params, call: Call, x: torch.Tensor, name: str) -> torch.Tensor:
        """What `_normed` gives."""
        gain = self._gain(p, name)
        if self.qk_norm == "all":
            return deployed_rms(call, x, gain.flatten(), self.eps)
        return deployed_rms(call, x.view(-1, self.head), gain, self.eps)

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
        products = 4 * x.numel * self.head * (heads + kv) + 4 * x[0] * attended(self.window) * heads * self.head
        if not self.hadamard:
            return products
        return products + turning_flops(x[0] * x[1] * (heads + kv) * self.head, self.head)

    def cache(self, *inputs: TensorType) -> Expr:
        seen = P + T if self.window is None else minimum(P + T, self.window)
        return 2 * inputs[0][0] * seen * self.kv * self.head

    @property
    def cache_width(self) -> int:
        """Elements of a cached vector: those of a head."""
        return self.head


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
    chunks = []
    for start in range(0, tokens, step):
        end = min(tokens, start + step)
        first = 0 if window is None else max(0, start - window + 1)
        part = _part(q, 2, start, end).reshape(kv, group * (end - start), head)
        scores = torch.bmm(part, _part(k, 2, first, end)).view(kv, group, end - start, end - first)
        shape = (end - start, start - first, window)
        mask = call.constant(("mask", *shape), partial(_mask, *shape))
        chances = (scores + mask).softmax(-1).view(kv, group * (end - start), end - first)
        chunks.append(torch.bmm(chances, _part(v, 1, first, end)).view(kv, group, end - start, head))
    while len(chunks) > 1:  # XNNPACK joins at most five tensors at once
        chunks = [
            torch.cat(chunks[i : i + 4], dim=2) if chunks[i + 1 : i + 2] else chunks[i]
            for i in range(0, len(chunks), 4)
        ]
    return chunks[0]


def _part(x: torch.Tensor, axis: int, start: int, end: int) -> torch.Tensor:
    """A slice; the tensor itself where it is the whole, as an exported slice of everything ends a delegated piece."""
    return x if end - start == x.shape[axis] else x.narrow(axis, start, end - start)


def _mask(queries: int, before: int, window: int | None) -> torch.Tensor:
    """What is added to scores, [queries, before + queries]: query i stands at key `before` + i."""
    back = before + torch.arange(queries)[:, None] - torch.arange(before + queries)[None, :]
    hidden = (back < 0) | (back >= window) if window is not None else back < 0
    return torch.zeros(hidden.shape).masked_fill(hidden, HIDDEN)


def _chunked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, scale: float | None = None
) -> torch.Tensor:
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
    out = F.scaled_dot_product_attention(q, pairs(k), pairs(v), attn_mask=mask, scale=scale, enable_gqa=heads != kv)
    return out.view(batch, chunks, heads, window, head).transpose(1, 2).flatten(2, 3)[:, :, :tokens]


class SwiGLU(Quantized):
    """Gated feed-forward (arXiv 2002.05202): [..., D] -> [..., D] through `width` hidden units.

    Args:
        width: Hidden units.
        act: Activation of the gate: "silu" for SwiGLU itself, "gelu_tanh" for GeGLU as Gemma has it.
        hadamard: The hidden units are multiplied by Hadamard matrices of this size before the last weight reads them
            (SpinQuant's R4, arXiv 2405.16406), in blocks where it is less than the width; 0 for none.
    """

    ports: ClassVar[str] = "... D -> ... D"
    plain: ClassVar[tuple[str, ...]] = ("hadamard",)
    width: ExprLike
    act: str = "silu"
    hadamard: int = added(default=0)

    def __post_init__(self) -> None:
        if self.hadamard != 0:
            hadamard_factors(check_size(self.hadamard))  # refuses a size of which there is none
        if self.act not in ACTIVATIONS:
            raise SpaceError(f"SwiGLU: activation {self.act!r} is unknown; allowed: {', '.join(ACTIVATIONS)}")

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        model = inputs[0][-1]
        return {
            "gate": Param.of(self.width, model),
            "up": Param.of(self.width, model),
            "down": Param.of(model, self.width),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        h = ACTIVATIONS[self.act](p.linear(x, "gate")) * p.linear(x, "up")
        return p.read(turned(h, self.hadamard) if self.hadamard else h, "down", ("width",))

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        if not self.hadamard:
            return self.run(p, *inputs)
        x = inputs[0]
        h = ACTIVATIONS[self.act](p.linear(x, "gate")) * p.linear(x, "up")
        return p.read(deployed_turn(call, h, self.hadamard), "down", ("width",))

    def flops(self, *inputs: TensorType) -> Expr:
        x = inputs[0]
        products = 6 * x.numel * self.width
        if not self.hadamard:
            return products
        return products + turning_flops(TensorType(x.dims[:-1]).numel * self.width, self.hadamard)
