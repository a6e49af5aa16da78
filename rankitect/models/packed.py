"""Likelihoods of continuations: sequences that share their beginnings are computed together, each token once.

The choices of a question begin with the same tokens, and so do questions with the same examples before them. Their
sequences are packed as a forest of tokens (`rankitect.models.forest`), in which a token sees its ancestors only, as in
the tree attention of speculative decoding (SpecInfer, arXiv 2305.09781); every block says what it gives for such tokens
(`Block.packed`). The rows of the forest stand one after the other without padding, and only attention goes row by row.
Logits are computed only where a continuation is predicted.

Shapes: T tokens of all rows of a forward, N of them that something is predicted from, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rankitect.blocks import Rope
from rankitect.data.continuations import Continuation
from rankitect.errors import DataError
from rankitect.metrics.losses import rows_at_a_time, tokens_at_a_time
from rankitect.models.forest import Forest, Row, pack
from rankitect.models.supernet import PlannedModel, device_of

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Forest",
    "Likelihood",
    "likelihoods",
    "next_logits",
    "pack",
    "packs_by_its_blocks",
    "plain_likelihoods",
    "turned_by_length",
]

WIDEST = 4096
"""Tokens of a row up to which sequences are packed: what each token sees takes the square of that."""
_OWN = "rankitect."
_TRIED = 3
"""Groups of sequences that a model is tried on, packed and alone."""
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""By how much the likelihood of a token may differ from rounding, nats; 0.1 in half precision."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """How likely a model holds continuations, in the order in which they were given.

    Attributes:
        nats: Sum of the log-likelihoods of the predicted tokens, [C] float64.
        greedy: Whether each of these tokens is the likeliest one, [C].
        forwarded: Tokens that went forward.

    Raises:
        DataError: A log-likelihood is no finite number.
    """

    nats: NDArray[np.float64]
    greedy: NDArray[np.bool_]
    forwarded: int

    def __post_init__(self) -> None:
        # A log-likelihood that is no number would win every comparison of choices.
        if bad := int((~np.isfinite(self.nats)).sum()):
            raise DataError(
                f"The model gives no finite log-likelihood for {bad:,} of {len(self.nats):,} continuations: its "
                "weights or what it computes are not finite."
            )


class _Batch:
    """Rows one after the other, without anything between them: the `Packing` that blocks see, and what is predicted
    from where. Only attention sees that there are rows."""

    def __init__(self, rows: Sequence[Row], device: torch.device, trunk: _Trunk | None = None) -> None:
        self._trunk, self._layer = trunk, 0
        before = 0 if trunk is None else trunk.positions.shape[1]
        starts = np.cumsum([0, *(len(row.tokens) for row in rows)])
        self._parts = [slice(int(a), int(b)) for a, b in pairwise(starts)]
        ids = np.concatenate([row.tokens for row in rows]).astype(np.int64)
        self._places = [before + row.depths() for row in rows]
        self._rows, self._device = rows, device
        edges = {(b, *edge): 0 for b, row in enumerate(rows) for _, path in row.ends for edge in path}
        number = {edge: n for n, edge in enumerate(edges)}
        at, self.row_of = np.unique([starts[b] + node for b, node, _ in edges], return_inverse=True)
        self.targets = np.asarray([token for _, _, token in edges], np.int64)
        self.sequences = [
            (one, [number[b, *edge] for edge in path]) for b, row in enumerate(rows) for one, path in row.ends
        ]
        self.ids = torch.from_numpy(ids).to(device)[None]
        self.positions = torch.from_numpy(np.concatenate(self._places)).to(device)[None]
        self._at = torch.from_numpy(at).to(device)
        self._masks: dict[tuple[int | None, torch.dtype], list[Tensor | None]] = {}

    def attended(
        self, queries: Tensor, keys: Tensor, values: Tensor, window: int | None, scale: float | None
    ) -> Tensor:
        """See `Packing.attended`."""
        kept: tuple[Tensor, Tensor] | None = None
        if self._trunk is not None:
            kept = self._trunk.kept[self._layer]
            self._layer += 1
        if (window, queries.dtype) not in self._masks:
            masks = [self._mask(row, places, window) for row, places in zip(self._rows, self._places, strict=True)]
            self._masks[window, queries.dtype] = [None if m is None else _added(m, queries) for m in masks]
        outputs = []
        for part, mask in zip(self._parts, self._masks[window, queries.dtype], strict=True):
            k, v = keys[:, :, part], values[:, :, part]
            if kept is not None:
                k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
            outputs.append(_attention(queries[:, :, part], k, v, mask, scale).transpose(1, 2))
        return torch.cat(outputs, 1).transpose(1, 2)

    def _mask(self, row: Row, places: NDArray[np.int64], window: int | None) -> NDArray[np.bool_] | None:
        """What each token of a row sees of the trunk and of its row; None for all that stand before it."""
        first = int(places[0])
        if first == 0 and row.chain and (window is None or len(row.tokens) <= window):
            return None
        seen = np.concatenate([np.ones((len(row.tokens), first), np.bool_), row.seen()], 1)
        if window is not None:
            seen &= places[:, None] - np.concatenate([np.arange(first), places]) < window
        return seen

    def last(self, x: Tensor) -> Tensor:
        """See `Packing.last`."""
        return x[:, self._at]


class _Trunk:
    """What all sequences begin with: the `Packing` of its forward, and the keys and values that are left of it."""

    def __init__(self, tokens: Sequence[int], device: torch.device) -> None:
        self.ids = torch.tensor([tokens], device=device)
        self.positions = torch.arange(len(tokens), device=device)[None]
        self.kept: list[tuple[Tensor, Tensor]] = []
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}

    def attended(
        self, queries: Tensor, keys: Tensor, values: Tensor, window: int | None, scale: float | None
    ) -> Tensor:
        """See `Packing.attended`."""
        self.kept.append((keys, values))
        mask = None
        if window is not None and window < keys.shape[2]:
            if (window, queries.dtype) not in self._masks:
                places = np.arange(keys.shape[2])
                back = places[:, None] - places
                self._masks[window, queries.dtype] = _added((back >= 0) & (back < window), queries)
            mask = self._masks[window, queries.dtype]
        return _attention(queries, keys, values, mask, scale)

    def last(self, x: Tensor) -> Tensor:
        """See `Packing.last`: nothing is predicted from it, and one row costs little."""
        return x[:, -1:]


def _added(seen: NDArray[np.bool_], like: Tensor) -> Tensor:
    """What is added to the products of queries and keys, so that only what is seen counts."""
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(torch.from_numpy(~seen).to(like.device), -torch.inf)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention with a mask; without one, each token sees all that stand before it."""
    gqa = queries.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=gqa
    )


def likelihoods(
    model: nn.Module, forest: Forest, *, check: Callable[[], None] | None = None, device: torch.device | None = None
) -> Likelihood:
    """How likely a model holds packed continuations.

    A model of blocks that cannot be packed, which is tried on the first groups, a module that is no model of blocks,
    and one that is asked very long sequences compute each sequence alone: `plain_likelihoods`.

    Args:
        model: Ids [B, T] to logits [B, T, V], causal; it keeps its mode.
        forest: What `pack` gave.
        check: Called before every forward; may raise, to stop.
        device: Where the model is; by default, where its first weight is.
    """
    device = device or device_of(model)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            wide = bool(forest.rows) and len(forest.rows[0].tokens) > WIDEST
            apart = wide or turned_by_length(model)
            if apart or not isinstance(model, PlannedModel) or not _packs(model, forest, device):
                flat = [one for group in forest.groups for one in group]
                return plain_likelihoods(model, flat, check=check, device=device)
            return _packed(model, forest, device, check)
    finally:
        model.train(training)


def _packed(
    model: PlannedModel,
    forest: Forest,
    device: torch.device,
    check: Callable[[], None] | None = None,
) -> Likelihood:
    nats, greedy = np.zeros(forest.count), np.ones(forest.count, np.bool_)
    trunk, forwarded = _read(model, forest.trunk, device, check), len(forest.trunk)
    for batch in _batches(forest.rows, tokens_at_a_time(device)):
        if check is not None:
            check()
        packed = _Batch(batch, device, trunk)
        logits = model.packed(packed.ids, packed)[0]
        each, likeliest = _scores(logits, packed.row_of, packed.targets)
        for number, edges in packed.sequences:
            nats[number], greedy[number] = each[edges].sum(), bool(likeliest[edges].all())
        forwarded += sum(len(row.tokens) for row in batch)
    return Likelihood(nats, greedy, forwarded)


def _read(
    model: PlannedModel, tokens: Sequence[int], device: torch.device, check: Callable[[], None] | None = None
) -> _Trunk | None:
    """The trunk of a forest after its forward; None where there is none."""
    if not tokens:
        return None
    if check is not None:
        check()
    trunk = _Trunk(tokens, device)
    model.packed(trunk.ids, trunk)
    return trunk


def _batches(rows: Sequence[Row], most: int) -> Iterator[Sequence[Row]]:
    """Consecutive rows, so many at a time that a forward has at most `most` tokens, or one row."""
    start = size = 0
    for end, row in enumerate(rows):
        if end > start and size + len(row.tokens) > most:
            yield rows[start:end]
            start, size = end, 0
        size += len(row.tokens)
    if rows:
        yield rows[start:]


def _scores(
    logits: Tensor, row_of: NDArray[np.int64], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The log-likelihood of tokens, and whether each is the likeliest.

    Args:
        logits: [N, V].
        row_of: The row that each token is predicted from, [K].
        targets: The tokens, [K].
    """
    order = np.argsort(row_of, kind="stable")
    nats, likeliest = np.zeros(len(targets)), np.zeros(len(targets), np.bool_)
    size = rows_at_a_time(logits.device)
    cuts = np.searchsorted(row_of[order], np.arange(0, len(logits) + size, size))
    for n, start in enumerate(range(0, len(logits), size)):
        part = logits[start : start + size].float()
        total, best = part.logsumexp(-1), part.argmax(-1)
        which = order[cuts[n] : cuts[n + 1]]
        rows = torch.from_numpy(row_of[which] - start).to(part.device)
        wanted = torch.from_numpy(targets[which]).to(part.device)
        nats[which] = (part[rows, wanted] - total[rows]).double().cpu().numpy()
        likeliest[which] = (best[rows] == wanted).cpu().numpy()
    return nats, likeliest


def next_logits(model: Callable[[Tensor], Tensor], sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """The logits of the token after each of some sequences, [N, V]; with gradients, where they are taken.

    A model of blocks computes what several sequences begin with once, and no logits in between.

    Args:
        model: Ids [B, T] to logits [B, T, V], causal.
        sequences: Token ids, none empty.
        device: Where the model is.
    """
    if isinstance(model, PlannedModel) and not turned_by_length(model):
        groups = [[Continuation((*sequence, 0), len(sequence))] for sequence in sequences]
        # A cache is for tokens that go forward once, and not again in a backward pass.
        forest = pack(groups, trunk=not torch.is_grad_enabled())
        batch = _Batch(forest.rows, device, _read(model, forest.trunk, device))
        logits: Tensor = model.packed(batch.ids, batch)[0]
        places = {number: batch.row_of[edges[0]] for number, edges in batch.sequences}
        return logits[torch.from_numpy(np.asarray([places[n] for n in range(len(sequences))])).to(device)]
    width = max(map(len, sequences))
    ids = np.zeros((len(sequences), width), np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    ends = torch.tensor([len(sequence) - 1 for sequence in sequences], device=device)
    given = model(torch.from_numpy(ids).to(device))
    return given[torch.arange(len(sequences), device=device), ends]


def plain_likelihoods(
    model: nn.Module,
    continuations: Sequence[Continuation],
    *,
    check: Callable[[], None] | None = None,
    device: torch.device | None = None,
) -> Likelihood:
    """The same of any causal module, each sequence alone in a row, which is filled up on the right if need be.

    Args:
        model: Ids [B, T] to logits [B, T, V], causal.
        continuations: What is predicted.
        check: Called before every forward; may raise, to stop.
        device: Where the model is; by default, where its first weight is.
    """
    device, by_length = device or device_of(model), turned_by_length(model)
    most = tokens_at_a_time(device)
    nats, greedy = np.zeros(len(continuations)), np.ones(len(continuations), np.bool_)
    order = sorted(range(len(continuations)), key=lambda i: -len(continuations[i].tokens))
    forwarded = start = 0
    with torch.inference_mode():
        while start < len(order):
            width = len(continuations[order[start]].tokens) - 1
            chosen = order[start : start + max(1, most // max(1, width))]
            if by_length:
                chosen = [i for i in chosen if len(continuations[i].tokens) - 1 == width]
            start += len(chosen)
            if check is not None:
                check()
            ids = np.zeros((len(chosen), width), np.int64)
            for b, i in enumerate(chosen):
                ids[b, : len(continuations[i].tokens) - 1] = continuations[i].tokens[:-1]
            logits = model(torch.from_numpy(ids).to(device))
            forwarded += sum(len(continuations[i].tokens) - 1 for i in chosen)
            for b, i in enumerate(chosen):
                one = continuations[i]
                part = logits[b, one.start - 1 : len(one.tokens) - 1]
                targets = np.asarray(one.tokens[one.start :], np.int64)
                each, likeliest = _scores(part, np.arange(len(targets)), targets)
                nats[i], greedy[i] = each.sum(), bool(likeliest.all())
    return Likelihood(nats, greedy, forwarded)


def _packs(model: PlannedModel, forest: Forest, device: torch.device) -> bool:
    """Whether a model gives for packed sequences what it gives for each alone: a block of the user's that mixes tokens
    may not know of packing. Those of `rankitect.blocks` are tested for it."""
    if packs_by_its_blocks(model):
        return True
    groups = [group for group in forest.groups if group][:_TRIED]
    some = pack(groups)
    together = _packed(model, some, device)
    flat = [one for group in groups for one in group]
    alone = plain_likelihoods(model, flat, device=device)
    tokens = np.asarray([len(one.tokens) - one.start for one in flat])
    weight = next(model.tree.parameters(), None)
    close = 0.1 if weight is None else _CLOSE.get(weight.dtype, 0.1)
    return bool((np.abs(together.nats - alone.nats) <= close * tokens).all())


def packs_by_its_blocks(model: PlannedModel) -> bool:
    """Whether all blocks of a model are of `rankitect.blocks`, which are tested for what they give for packed rows."""
    return all(type(step.block).__module__.startswith(_OWN) for step in model.plan.steps)


def turned_by_length(model: nn.Module) -> bool:
    """Whether what a model computes for a token depends on how long the text goes on, as its rotary positions do that
    are scaled by the length of each text: then only texts of one length can stand beside each other."""
    steps = model.plan.steps if isinstance(model, PlannedModel) else ()
    return any(isinstance(step.block, Rope) and step.block.scaling[:1] == ("dynamic",) for step in steps)
