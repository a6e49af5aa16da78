"""The weights of a model and how a step gets at them: held under readable names, cut to size, rounded to their bits."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.errors import SpaceError
from rankitect.graph import Expr
from rankitect.graph.quantized import FLOAT
from rankitect.models.numerics import RoundedWeights, fake_tokens, fake_weight, weight_scales
from rankitect.models.plan import Plan, Step

__all__ = [
    "EVALUATION",
    "LinearReading",
    "Mode",
    "ParameterHolder",
    "RowStore",
    "SlicedParams",
    "Variants",
    "WeightTree",
    "cut",
    "find_owner",
    "looked_up",
    "start_scales",
    "take",
    "weight_of",
]


class Variants(Protocol):
    """How a weight changes with the prefix that is taken of it (see `backbone`): refits of pruned units."""

    def change(self, shape: Sequence[int]) -> torch.Tensor | None:
        """What to add to the prefix of this shape; None for nothing."""

    def prepare(self) -> None:
        """Have at hand what `mixed` needs: called once, before a search by mixtures takes memory of its own."""

    def mixed(self, weight: Callable[[Expr], torch.Tensor], dims: Sequence[Expr | None]) -> torch.Tensor:
        """The expected change, [outputs, units...] at its largest, given the probabilities of joint sizes."""


def cut(
    weight: torch.Tensor, shape: Sequence[int], variants: Variants | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The prefix of a weight along every axis, and what to add to it: the one way to get a part of another's weights.

    The prefix is a view; the weight itself where nothing is cut. With `variants`, there may be something to add.

    Raises:
        SpaceError: The weight is smaller than the prefix.
    """
    if tuple(weight.shape) == tuple(shape):
        return weight, None
    if weight.dim() != len(shape) or any(n > m for n, m in zip(shape, weight.shape, strict=True)):
        raise SpaceError(f"a weight of shape {list(weight.shape)} has no prefix of shape {list(shape)}")
    part = weight[tuple(slice(n) for n in shape)]
    return part, variants.change(shape) if variants is not None else None


def take(weight: torch.Tensor, shape: Sequence[int], variants: Variants | None = None) -> torch.Tensor:
    """What `cut` gives as one tensor: a view, unless there is something to add.

    Raises:
        SpaceError: The weight is smaller than the prefix.
    """
    part, change = cut(weight, shape, variants)
    return part if change is None else part + change


class RowStore(Protocol):
    """Who holds a table in place of the model (see `rankitect.training.embeddings`)."""

    def __call__(self, rows: torch.Tensor, bags: torch.Tensor | None) -> torch.Tensor:
        """What `Params.lookup` gives, at the table's whole width."""


def looked_up(
    owner: nn.Module, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None, width: int | None = None
) -> torch.Tensor:
    """Rows of a table, cut to `width` after they were looked up: a table is never sliced, as it may be large.

    Args:
        owner: The module that holds the table, or whose `stores` do.
        name: The table.
        rows: Row numbers.
        bags: Starts of bags; see `Params.lookup`.
        width: Columns to keep; None for all.
    """
    store = owner.stores.get(name) if isinstance(owner, ParameterHolder) else None
    if store is not None:
        vectors = store(rows, bags)
    elif bags is None:
        vectors = F.embedding(rows, getattr(owner, name))
    else:
        vectors = F.embedding_bag(rows, getattr(owner, name), bags, mode="sum")
    return vectors if width is None or vectors.shape[-1] == width else vectors[..., :width]


@dataclass(frozen=True)
class Mode:
    """What a forward does with the weights that are not trained.

    Attributes:
        training: Whether they are moved as in a step of training.
        seen: Batches whose mean they are, where they are taken anew; else None.
        own: Those that are read in place of the model's, by (owner, name), cut to size; empty for none.
    """

    training: bool = False
    seen: int | None = None
    own: Mapping[tuple[str, str], torch.Tensor] = field(default_factory=dict)

    @property
    def of_batch(self) -> bool:
        """Whether statistics are those of the batch."""
        return self.training or self.seen is not None

    def momentum(self, usual: float) -> float:
        """See `Params.momentum`."""
        if not self.of_batch or torch._C._current_graph_task_id() >= 0:  # inside of a backward pass: computed again
            return 0.0
        return usual if self.seen is None else 1 / (self.seen + 1)


EVALUATION = Mode()
"""Statistics are read, and stay as they are."""


class LinearReading:
    """`Params.linear` for whoever has the weights as attributes, and keeps what is cached as it is."""

    __slots__ = ()

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis."""
        weight: torch.Tensor = getattr(self, name).flatten(0, -2)
        if x.shape[-1] < weight.shape[-1]:
            weight = weight[:, : x.shape[-1]]
        # The bias goes into the product: a pass of its own would cost as much as a small product.
        return F.linear(x, weight, None if bias is None else getattr(self, bias).flatten())

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it."""
        return x


class SlicedParams(LinearReading):
    """Weights and sizes of one step under one architecture (the `Params` that blocks see)."""

    __slots__ = ("_last", "_mode", "_rounded", "_step", "_tensors", "present")

    def __init__(
        self, step: Step, tensors: nn.Module, rounded: RoundedWeights | None = None, mode: Mode = EVALUATION
    ) -> None:
        self._step = step
        self._tensors = tensors
        self._rounded = rounded
        self._mode = mode
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.present = step.present

    @property
    def training(self) -> bool:
        """Whether statistics are those of the batch."""
        return self._mode.of_batch

    def momentum(self, usual: float) -> float:
        """How far weights that are not trained are moved."""
        return self._mode.momentum(usual)

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):  # asked for by torch.compile and copy before there are weights
            raise AttributeError(name)
        numerics = self._step.numerics.get(name)
        if numerics is None:
            return self._taken(name)
        scale = None if numerics.scale is None else self._taken(numerics.scale)
        if self._rounded is None:
            return fake_weight(self._taken(name), numerics, scale)
        stored = [getattr(self._tensors, n) for n in (name, numerics.scale) if n is not None]
        key = (self._step.weights, name, numerics, self._step.shapes[name])
        return self._rounded.of(key, tuple(stored), lambda: fake_weight(self._taken(name), numerics, scale))

    def _taken(self, name: str) -> torch.Tensor:
        """A weight as a float, cut to size."""
        if self._mode.own and name in self._step.untrained:
            return self._mode.own[self._step.weights, name]
        variants = self._tensors.variants.get(name) if isinstance(self._tensors, ParameterHolder) else None
        return take(getattr(self._tensors, name), self._step.shapes[name], variants)

    def lookup(self, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a table, of the active width. They are rounded after they were looked up, as a table may be large."""
        numerics, width = self._step.numerics.get(name), self._step.shapes[name][-1]
        if numerics is None:
            return looked_up(self._tensors, name, rows, bags, width)
        vectors = looked_up(self._tensors, name, rows, None, width)
        scale = None if numerics.scale is None else F.embedding(rows, self._taken(numerics.scale))
        vectors = fake_weight(vectors, replace(numerics, rows=rows.dim()), scale)
        if bags is None:
            return vectors
        return F.embedding_bag(torch.arange(len(rows), device=rows.device), vectors, bags, mode="sum")

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis, after its activations were rounded."""
        return super().linear(self._tokens(x), name, bias)

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Activations as a matrix gets them. Those that go into several are rounded once."""
        if self._step.act_bits == FLOAT:
            return x
        if self._last is None or self._last[0] is not x:
            self._last = (x, fake_tokens(x, self._step.act_bits))
        return self._last[1]

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it."""
        return fake_tokens(x, self._step.cache_bits)

    def mask(self, name: str) -> None:
        """Nothing: an axis has just what is kept."""
        return

    def size(self, name: str) -> int:
        """The value of an axis name or field."""
        if name not in self._step.sizes:
            raise SpaceError(f"at {self._step.path}: {name!r} is no size that the architecture decides: ask a tensor")
        value: int = self._step.sizes[name]
        return value

    def sizes(self, dims: tuple[Expr | str, ...]) -> list[int]:
        """The values of dimensions."""
        return [self._step.sizes[d] if isinstance(d, str) else self._step.resolve(d) for d in dims]

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight applied to hidden units; what is left out is not computed."""
        return F.linear(self._tokens(h.flatten(-len(dims))), getattr(self, name).flatten(1))


class ParameterHolder(nn.Module):
    """Weights of one node, how they change with their size, and who holds the tables among them."""

    def __init__(self) -> None:
        super().__init__()
        self.variants: dict[str, Variants] = {}
        self.stores: dict[str, RowStore] = {}


class WeightTree(nn.Module):
    """Weights under readable names: `layers.3.mlp` and `gate` become the parameter `layers.3.mlp.gate`.

    Args:
        tensors: The weights by (owner, name).
        untrained: Those among them that are not trained: they become buffers.
    """

    def __init__(
        self, tensors: Mapping[tuple[str, str], torch.Tensor], untrained: Container[tuple[str, str]] = ()
    ) -> None:
        super().__init__()
        for (owner, name), tensor in tensors.items():
            holder = self.owner(owner, create=True)
            if (owner, name) in untrained:
                holder.register_buffer(name, tensor.detach())
            else:
                holder.register_parameter(name, nn.Parameter(tensor))

    def owner(self, path: str, create: bool = False) -> ParameterHolder:
        """The module that holds the weights of `path`."""
        return find_owner(self, path, create)


def start_scales(plan: Plan, tensors: Mapping[tuple[str, str], torch.Tensor]) -> None:
    """Set the stored scales of a plan's weights, in place, to those that follow from the weights.

    Args:
        plan: The plan.
        tensors: Its weights and scales, by (owner, name).
    """
    for step in plan.steps:
        for name, numerics in step.numerics.items():
            if numerics.scale is not None:
                weight = tensors[step.weights, name]
                tensors[step.weights, numerics.scale].copy_(weight_scales(weight, numerics))


def weight_of(owner: nn.Module, name: str) -> torch.Tensor:
    """A weight of an owner, be it trained (a parameter) or not (a buffer).

    Raises:
        AttributeError: It has none of this name.
    """
    return owner.get_buffer(name) if name in owner._buffers else owner.get_parameter(name)


def find_owner(root: nn.Module, path: str, create: bool = False) -> ParameterHolder:
    """The module below `root` that holds the weights of `path`."""
    module: nn.Module | None = root
    for part in path.split("."):
        assert module is not None
        if part not in module._modules and create:
            module._modules[part] = ParameterHolder()  # `add_module` refuses names such as "type", which Module has
        module = module._modules[part]
    assert isinstance(module, ParameterHolder)
    return module
