"""Likelihoods of continuations: sequences that share their beginnings are computed together, each token once.

The choices of a question begin with the same tokens, and so do questions with the same examples before them. Their
sequences are packed as a forest of tokens into the rows of a batch, in which a token sees its ancestors only, as in the
tree attention of speculative decoding (SpecInfer, arXiv 2305.09781); every block says what it gives for such rows
(`Block.packed`). Logits are computed only where a continuation is predicted.

Shapes: B rows, T tokens of a row, N tokens that something is predicted from, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rankitect.blocks import Rope
from rankitect.data.continuations import Continuation
from rankitect.errors import DataError
from rankitect.metrics.losses import rows_at_a_time, tokens_at_a_time
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

ROW = 256
"""Tokens of a row, where no sequence is longer: few enough for attention to cost little beside the other layers."""
WIDEST = 4096
"""Tokens of a row up to which sequences are packed: what each token sees takes the square of that."""
_OPEN = 4
"""Rows that are tried for the next group of sequences."""
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


@dataclass
class _Row:
    """A forest: tokens in an order in which each comes after what it follows.

    The last token of a sequence is in it only where another sequence goes on from there: nothing is predicted from it.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    ends: list[tuple[int, tuple[tuple[int, int], ...]]] = field(default_factory=list)
    """For each sequence its number, and its predicted tokens, each with the node that it is predicted from."""

    def new(self, group: Sequence[tuple[int, Continuation]]) -> int:
        """How many tokens a group would add."""
        added: dict[tuple[int, int], int] = {}
        for _, one in group:
            node = -1
            for token in one.tokens[:-1]:
                child = self.children.get((node, token))
                node = added.setdefault((node, token), -2 - len(added)) if child is None else child
        return len(added)

    def add(self, group: Sequence[tuple[int, Continuation]]) -> None:
        """Put a group in."""
        for number, one in group:
            node, path = -1, []
            for depth, token in enumerate(one.tokens):
                if depth >= one.start:
                    path.append((node, token))
                if depth == len(one.tokens) - 1:
                    break
                child = self.children.get((node, token))
                if child is None:
                    child = self.children[node, token] = len(self.tokens)
                    self.tokens.append(token)
                    self.parents.append(node)
                node = child
            self.ends.append((number, tuple(path)))


@dataclass(frozen=True, eq=False)
class Forest:
    """Continuations as they are packed into rows, for any number of models; made by `pack`.

    Attributes:
        count: Continuations.
        tokens: Tokens of all rows.
        groups: The continuations as they were given.
        rows: The rows, the longest first.
    """

    count: int
    tokens: int
    groups: tuple[tuple[Continuation, ...], ...]
    rows: tuple[_Row, ...]


def pack(groups: Sequence[Sequence[Continuation]], row: int = ROW) -> Forest:
    """Pack continuations into rows.

    Args:
        groups: Continuations that begin alike, as the choices of a question do, together.
        row: Tokens of a row beyond what all groups begin with; one that holds a longer group has that group's.
    """
    numbered, count = [], 0
    for group in groups:
        numbered.append([(count + i, one) for i, one in enumerate(group)])
        count += len(group)
    rows: list[_Row] = []
    opened: list[_Row] = []
    # In the order of their tokens, groups with a long beginning in common come one after the other.
    ordered = sorted((g for g in numbered if g), key=lambda g: g[0][1].tokens)
    if ordered:  # what the first and the last have in common, all have: answered examples before each question, say
        pairs = zip(ordered[0][0][1].tokens, ordered[-1][0][1].tokens, strict=False)
        row += sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    for numbers in ordered:
        fits = [(size, i) for i, r in enumerate(opened) if len(r.tokens) + (size := r.new(numbers)) <= row]
        if fits:
            _, best = min(fits, key=lambda fit: (fit[0], -len(opened[fit[1]].tokens)))
            opened[best].add(numbers)
            continue
        if len(opened) == _OPEN:
            opened.remove(max(opened, key=lambda r: len(r.tokens)))
        opened.append(_Row())
        opened[-1].add(numbers)
        rows.append(opened[-1])
    rows.sort(key=lambda r: -len(r.tokens))
    whole = tuple(tuple(group) for group in groups)
    return Forest(count, sum(len(r.tokens) for r in rows), whole, tuple(rows))


class _Batch:
    """Some rows as tensors: the `Packing` that blocks see, and what is predicted from where."""

    def __init__(self, rows: Sequence[_Row], device: torch.device) -> None:
        width = len(rows[0].tokens)
        shape = (len(rows), width)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        seen = np.zeros((*shape, width), np.bool_)
        for b, row in enumerate(rows):
            ids[b, : len(row.tokens)] = row.tokens
            for i, parent in enumerate(row.parents):
                if parent >= 0:
                    seen[b, i] = seen[b, parent]
                    positions[b, i] = positions[b, parent] + 1
                seen[b, i, i] = True
            filled = np.arange(len(row.tokens), width)
            seen[b, filled, filled] = True  # a row of nothing but hidden keys has no softmax
        edges = {(b, *edge): 0 for b, row in enumerate(rows) for _, path in row.ends for edge in path}
        number = {edge: n for n, edge in enumerate(edges)}
        at, self.row_of = np.unique([b * width + node for b, node, _ in edges], return_inverse=True)
        self.targets = np.asarray([token for _, _, token in edges], np.int64)
        self.sequences = [
            (one, [number[b, *edge] for edge in path]) for b, row in enumerate(rows) for one, path in row.ends
        ]
        self.ids = torch.from_numpy(ids).to(device)
        self.positions = torch.from_numpy(positions).to(device)
        self._at = torch.from_numpy(at).to(device)
        self._seen = torch.from_numpy(seen).to(device)
        self._windows: dict[int | None, Tensor] = {}

    def seen(self, window: int | None) -> Tensor:
        """See `Packing.seen`."""
        if window not in self._windows:
            seen = self._seen
            if window is not None:
                seen = seen & (self.positions[:, :, None] - self.positions[:, None, :] < window)
            self._windows[window] = seen[:, None]
        return self._windows[window]

    def held(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Packing.held`: nothing went before."""
        return keys, values

    def last(self, x: Tensor) -> Tensor:
        """See `Packing.last`."""
        return x.flatten(0, 1)[self._at][None]


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
            return _packed(model, forest.rows, forest.count, device, check)
    finally:
        model.train(training)


def _packed(
    model: PlannedModel,
    rows: Sequence[_Row],
    count: int,
    device: torch.device,
    check: Callable[[], None] | None = None,
) -> Likelihood:
    nats, greedy = np.zeros(count), np.ones(count, np.bool_)
    forwarded = 0
    for batch in _batches(rows, tokens_at_a_time(device)):
        if check is not None:
            check()
        packed = _Batch(batch, device)
        logits = model.packed(packed.ids, packed)[0]
        each, likeliest = _scores(logits, packed.row_of, packed.targets)
        for number, edges in packed.sequences:
            nats[number], greedy[number] = each[edges].sum(), bool(likeliest[edges].all())
        forwarded += sum(len(row.tokens) for row in batch)
    return Likelihood(nats, greedy, forwarded)


def _batches(rows: Sequence[_Row], most: int) -> Iterator[Sequence[_Row]]:
    """Rows, of which the first is the longest, so many at a time that a forward has about `most` tokens."""
    start = 0
    while start < len(rows):
        count = max(1, most // max(1, len(rows[start].tokens)))
        yield rows[start : start + count]
        start += count


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
        rows = pack(groups).rows
        batch = _Batch(rows, device)
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
    together = _packed(model, some.rows, some.count, device)
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
