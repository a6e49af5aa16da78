"""Turning a model into another basis (SpinQuant, arXiv 2405.16406; QuaRot, arXiv 2404.00456).

What stands out in a few channels is spread over all of them, and is rounded with less error. R1 turns a residual
stream, R2 the values of a layer's heads; both are merged into the weights, and the model computes what it did. R3
(queries and keys) and R4 (hidden units of a feed-forward) are Hadamard matrices that are multiplied while the model
runs: they are fields of blocks, `GQA.hadamard` and `SwiGLU.hadamard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from rankitect.blocks import GQA, Head, SwiGLU, TiedHead
from rankitect.blocks.hadamard import block_matrix, hadamard, hadamard_block
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Block, Node, SearchSpace
from rankitect.models.plan import Plan, Step, make_plan
from rankitect.models.supernet import Standalone
from rankitect.quantization.streams import Key, Stream, streams
from rankitect.quantization.trials import random_rotation, turn_axis

__all__ = ["HeadBasis", "Turning", "draw", "refuse_rotated", "rotated_space", "turning"]

HeadBasis = Literal["mix", "untied"]
"""What becomes of a head that shares the embedding's table, which cannot take over the gain of the norm before it: a
matrix of channels by channels before the table, or a table of its own."""

Axes = frozenset[tuple[Key, int]]
_B = TypeVar("_B", bound=Block)


@dataclass(frozen=True)
class Turning:
    """A model that is ready to be turned: gains of norms are folded into the matrices behind them.

    Attributes:
        space: The space with the blocks of the turned model.
        plan: Of the turned model.
        tensors: Its weights in float32, in the basis that they had.
        axes: By the name of a basis ("stream", "stream2" …; the owner of a layer's heads), the axes that are in it.
        sizes: Channels of each basis.
    """

    space: SearchSpace
    plan: Plan
    tensors: Mapping[Key, torch.Tensor]
    axes: Mapping[str, Axes]
    sizes: Mapping[str, int]

    def turned(self, rotations: Mapping[str, torch.Tensor]) -> dict[Key, torch.Tensor]:
        """The weights in other bases, multiplied in the precision of these.

        Args:
            rotations: Orthogonal matrices by the name of the basis; those that are left out stay.
        """
        tensors = dict(self.tensors)
        for name, rotation in rotations.items():
            for key, axis in sorted(self.axes[name]):  # a set's order differs from process to process
                tensors[key] = turn_axis(tensors[key].to(rotation.dtype), rotation, axis)
        return {key: tensor.to(self.tensors[key].dtype) for key, tensor in tensors.items()}

    def model(self, rotations: Mapping[str, torch.Tensor], like: Standalone) -> Standalone:
        """The turned model, in the precision and at the place of another."""
        reference = next(like.parameters())
        with torch.no_grad():
            tensors = {key: t.to(reference).contiguous() for key, t in self.turned(rotations).items()}
        return Standalone(self.plan, tensors).eval()


def draw(sizes: Mapping[str, int], seed: int) -> dict[str, torch.Tensor]:
    """Random rotations: Hadamard matrices with random signs, or uniformly drawn where there is none of a size.

    Args:
        sizes: Channels by the name of the basis.
        seed: Of the draws.
    """
    generator, rotations = torch.Generator().manual_seed(seed), {}
    for name, n in sizes.items():
        if hadamard_block(n) == n:
            signs = torch.randint(0, 2, (n, 1), generator=generator).double() * 2 - 1
            rotations[name] = signs * hadamard(n)
        else:
            rotations[name] = random_rotation(n, generator)
    return rotations


def turning(
    space: SearchSpace,
    model: Standalone,
    *,
    head: HeadBasis = "mix",
    r2: bool = True,
    r3: bool = False,
    r4: bool = False,
    block: int = 0,
) -> Turning:
    """Prepare a model to be turned.

    Args:
        space: The space of its graph.
        model: Made from it.
        head: See `HeadBasis`.
        r2: Whether the values of heads are turned.
        r3: Whether queries and keys are multiplied by a Hadamard matrix.
        r4: Whether hidden units of feed-forwards are.
        block: The largest size of the matrices of R4; 0 for the whole width.

    Raises:
        SpaceError: The model has no stream that can be turned, is turned already, or has stored scales; names the node.
    """
    architecture = model.plan.architecture
    assert architecture is not None  # a standalone model is of one
    plan, basis = _read(space, architecture)
    known = dict(model.named_parameters())
    change = _Change(space, plan, {key: known[".".join(key)].detach().float().cpu() for key in plan.shapes()})
    folded = change.all(basis, head, r3=r3, r4=r4, block=block)
    changed = space.with_blocks(change.blocks, change.owners)
    after = make_plan(changed, architecture)
    axes: dict[str, Axes] = {}
    sizes: dict[str, int] = {}
    for number, (stream, touched) in enumerate(zip(basis, folded, strict=True), 1):
        name = f"stream{number}" if number > 1 else "stream"
        axes[name], sizes[name] = touched, stream.width
    for name, inner in _inner(after) if r2 else ():
        (key, axis), *_ = inner
        axes[name], sizes[name] = frozenset(inner), after.shapes()[key][axis]
    return Turning(changed, after, {key: change.tensors[key] for key in after.shapes()}, axes, sizes)


def rotated_space(
    space: SearchSpace, architecture: Architecture, *, head: HeadBasis, r3: bool, r4: bool, block: int = 0
) -> SearchSpace:
    """The space of a rotated model whose norms have gains, known without its weights. Arguments as for `turning`.

    Raises:
        SpaceError: As `turning`, as far as weights do not decide.
    """
    plan, basis = _read(space, architecture)
    change = _Change(space, plan, None)
    change.all(basis, head, r3=r3, r4=r4, block=block)
    return space.with_blocks(change.blocks, change.owners)


def _read(space: SearchSpace, architecture: Architecture) -> tuple[Plan, list[Stream]]:
    refuse_rotated(space)
    plan = make_plan(space, architecture)
    _refuse_scales(plan)
    return plan, streams(space, plan)


def refuse_rotated(space: SearchSpace) -> None:
    """Refuse a space whose models have rotations in them: others would come on top of these.

    Raises:
        SpaceError: Names the node.
    """
    for node in space.graph.nodes:
        block = node.block
        if (isinstance(block, TiedHead) and block.mix) or (isinstance(block, GQA | SwiGLU) and block.hadamard):
            raise SpaceError(f"{node.path} ({block.label}) is rotated already: rotate a model once, from its own basis")


def _refuse_scales(plan: Plan) -> None:
    for step in plan.steps:
        for name, numerics in step.numerics.items():
            if numerics.scale is not None:
                raise SpaceError(
                    f"{step.path}: the scales of {name!r} are stored, and belong to the basis that they were found "
                    "in: rotate before the model is quantized"
                )


def _inner(plan: Plan) -> Iterator[tuple[str, list[tuple[Key, int]]]]:
    """The bases of internal channels that blocks leave free, each with a name and its axes."""
    known = set()
    for step in plan.steps:
        for number, free in enumerate(step.block.free_axes):
            name = f"{step.weights}.{number}" if number else step.weights
            inner = [((step.weights, weight), axis) for weight, axis in free if weight in step.shapes]
            if inner and name not in known:
                known.add(name)
                yield name, inner


def _kept(path: str) -> str:
    return (
        f"{path} multiplies channels and adds them to the stream, so that no matrix can take its gain over: the stream "
        "cannot be rotated"
    )


class _Change:
    """The weights and blocks of a model while it is prepared.

    Args:
        space: Its space.
        plan: Its plan.
        tensors: Its weights; changed. None where only blocks are.
    """

    def __init__(self, space: SearchSpace, plan: Plan, tensors: dict[Key, torch.Tensor] | None) -> None:
        self._space, self._plan = space, plan
        self._known = tensors is not None
        self.tensors = tensors or {}
        self.blocks: dict[str, Block] = {}
        self.owners: dict[str, str] = {}

    def all(self, basis: Sequence[Stream], head: HeadBasis, *, r3: bool, r4: bool, block: int) -> list[Axes]:
        """Make all changes; for each stream the axes that are in its basis."""
        if r3:
            self.turn_queries()
        if r4:
            self.turn_hidden(block)
        return [self.fold(stream, head) for stream in basis]

    def _nodes(self, kind: type[_B]) -> Iterator[tuple[Node, _B, Step]]:
        """Nodes of a kind with the weights of the model, also those that it does not use, and a step that does."""
        steps = {step.weights: step for step in self._plan.steps if isinstance(step.block, kind)}
        for node in self._space.graph.nodes:
            if isinstance(node.block, kind) and node.weights in steps:
                yield node, node.block, steps[node.weights]

    def turn_queries(self) -> None:
        """R3.

        Raises:
            SpaceError: There is no Hadamard matrix of a head's size.
        """
        for node, block, _ in self._nodes(GQA):
            self.blocks[node.path] = replace(block, hadamard=True)

    def turn_hidden(self, most: int) -> None:
        """R4, with matrices of at most so many rows (0: of the whole width) where there are such."""
        done = set[Key]()
        for node, block, step in self._nodes(SwiGLU):
            width, key = step.shapes["gate"][0], (step.weights, "down")
            size = hadamard_block(width, most)
            if size == 1:
                continue
            self.blocks[node.path] = replace(block, hadamard=size)
            if self._known and key not in done:
                done.add(key)
                down = self.tensors[key]
                blocks = down.unflatten(1, (-1, size)).double()
                self.tensors[key] = (blocks @ block_matrix(size)).flatten(1).to(down.dtype)

    def fold(self, stream: Stream, head: HeadBasis) -> Axes:
        """Give the gains of a stream's norms to the matrices behind them; the axes that are in its basis.

        Raises:
            SpaceError: A gain cannot be given on; names the norm or the weight.
        """
        touched = {*stream.reads, *stream.writes, *(touch for by in stream.normed.values() for touch in by)}
        if not self._known:
            for path in stream.kept:  # a model whose gains are all the same is none that was trained
                raise SpaceError(_kept(path))
            for touch in touched & stream.writes if stream.normed else ():
                if any(touch in by for by in stream.normed.values()):
                    touched |= self._own_basis(touch, None, head)
            return frozenset(touched)
        for path, key in stream.kept.items():
            gain = self.tensors[key]
            if bool((gain != gain[0]).any()):
                raise SpaceError(_kept(path))
        gains = {key: self.tensors[key] - start + 1 for key, start in stream.gains.items()}
        behind: dict[tuple[Key, int], set[Key]] = {}
        for norm, by in stream.normed.items():
            for touch in by:
                behind.setdefault(touch, set()).add(norm)
        for touch, norms in behind.items():
            gain, *others = (gains[norm] for norm in sorted(norms))
            same = all(bool((other == gain).all()) for other in others)
            if same and bool((gain == 1).all()):
                continue
            if touch in stream.writes and same:
                touched |= self._own_basis(touch, gain, head)
            elif not same or touch in stream.reads:
                raise SpaceError(
                    f"{'.'.join(touch[0])} is used behind several norms, whose gains it cannot all take over"
                )
            else:
                key, axis = touch
                shape = [-1 if a == axis else 1 for a in range(self.tensors[key].dim())]
                self.tensors[key] = self.tensors[key] * gain.view(shape)
        for norm in stream.normed:
            self.tensors[norm] = torch.full_like(self.tensors[norm], stream.gains[norm])
        return frozenset(touched)

    def _own_basis(self, touch: tuple[Key, int], gain: torch.Tensor | None, head: HeadBasis) -> Axes:
        """Let a head that shares the embedding's table have the gain of the norm before it; what it adds to the basis.

        Raises:
            SpaceError: It is another block that both writes and reads the stream with one weight.
        """
        (owner, name), axis = touch
        nodes = [(node.path, block) for node, block, _ in self._nodes(TiedHead) if node.weights == owner]
        if not nodes or axis != 1:
            raise SpaceError(
                f"{owner}.{name} both writes the stream and reads it behind a norm, whose gain it cannot take"
            )
        if head == "mix":
            for path, block in nodes:
                self.blocks[path] = replace(block, mix=True)
            if gain is not None:
                self.tensors[owner, "mix"] = gain.diag()
            return frozenset({((owner, "mix"), 0), ((owner, "mix"), 1)})
        first = nodes[0][0]
        for path, block in nodes:
            stated = {field: value for field, value in block.stated().items() if field != "mix"}
            self.blocks[path], self.owners[path] = Head(**stated), first
        if gain is not None:
            self.tensors[first, "weight"] = self.tensors[owner, name] * gain
        return frozenset({((first, "weight"), 1)})
