"""The contract of a block: everything that the platform knows of it, each fact stated once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, dataclass_transform

from rankitect.errors import SpaceError
from rankitect.graph.params import Param, Params
from rankitect.graph.types import TensorType
from rankitect.graph.wires import Wire
from rankitect.space.expr import Expr, as_expr

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "Call", "Elementwise", "Packing", "added"]

_ADDED = "added"


def added(*, default: Any) -> Any:
    """Declares a field that files of earlier versions do not know: keyword-only, and not stated at its default.

    Args:
        default: What the block is without the field.
    """
    return dataclasses.field(default=default, kw_only=True, metadata={_ADDED: True})


class Call(Protocol):
    """One call of a deployed program: what `Block.deploy` gets beside weights and inputs.

    A program is called with a whole prompt (prefill), or with one token whose predecessors left tensors in a cache
    (decode). The batch is one sequence.
    """

    @property
    def decode(self) -> bool:
        """Whether this is a call with one token."""

    @property
    def position(self) -> torch.Tensor:
        """In a decode, how many tokens were seen before, int64 [1]."""

    @property
    def capacity(self) -> int:
        """Tokens that the longest sequence holds."""

    def constant(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A tensor that depends on sizes alone, made once and stored once in the program under its key."""

    def past(self, window: int | None, *shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """In a decode, the block's cached tensors of these shapes, then what is to be added to their scores, [slots].

        Args:
            window: Tokens that are seen back, the present one included; None for all.
            shapes: -1 stands for the slots.
        """

    def keep(self, *fresh: torch.Tensor) -> None:
        """What the caller is to put into the cache, in the order of `past`, with tokens where it has slots."""

    def last(self, x: torch.Tensor) -> torch.Tensor:
        """The one row that the next token is predicted from: [1, T, D] -> [1, 1, D]."""


class Packing(Protocol):
    """Sequences that share their beginnings, side by side in the rows of a batch: what `Block.packed` gets beside
    weights and inputs. Each row is a forest of tokens; a token follows its ancestors and sees nothing else. The P first
    tokens of a forest may have gone forward in earlier calls (P is 0 where nothing is cached)."""

    @property
    def positions(self) -> torch.Tensor:
        """How many tokens stand before each in its own sequence, int64 [B, T]."""

    def attended(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        window: int | None,
        scale: float | None,
    ) -> torch.Tensor:
        """Attention of each token to those that it follows and to itself; asked once by each block that attends.

        Args:
            queries: [B, H, T, h].
            keys: Of the same tokens, [B, K, T, h]; H is a multiple of K.
            values: [B, K, T, h].
            window: How many tokens back in its own sequence each sees, itself included; None for all.
            scale: Of the products of queries and keys; None for 1 / sqrt(h).

        Returns:
            [B, H, T, h].
        """

    def last(self, x: torch.Tensor) -> torch.Tensor:
        """The rows that tokens are predicted from: [B, T, D] -> [1, N, D]."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, added))
class Block:
    """A layer, written once. Subclasses are frozen dataclasses; their fields may be numbers, choices and expressions.

    A subclass states `ports` (types), `params` (weights), `run` (a pure function), `flops`, and `cache` if it keeps
    something between calls. Shapes, parameter counts, memory, supernets and relaxed models follow from these.
    """

    ports: ClassVar[str]
    plain: ClassVar[tuple[str, ...]] = ()
    """Fields that `run` needs as one number, so that no choice can stand there; those of type `float`, `str` and `bool`
    are always such."""
    free_axes: ClassVar[tuple[tuple[tuple[str, int], ...], ...]] = ()
    """Internal channels whose basis is free, as no input and no output has them: for each such basis, the weights that
    write or read them with the axis that does, from 0 (a weight that the block does not have counts for nothing)."""
    passes_masks: ClassVar[bool] = False
    """True where the output's left-out channels are zero whenever the inputs' are (sums, norms, relu; no sigmoid)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True)(cls)

    def params(self, *inputs: TensorType) -> Mapping[str, Param]:
        """The weights, by name. Default: none."""
        return {}

    def run(self, p: Params, *inputs: torch.Tensor) -> Any:
        """The outputs, as a pure function of weights and inputs."""
        raise SpaceError(f"block {type(self).__name__} has no `run`")

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> Any:
        """The outputs within one call of a deployed program, from operators that mobile runtimes have.

        Equal to what `run` gives for a prompt, or for its last token. Default: `run`, right for every block that
        treats each token alone.
        """
        return self.run(p, *inputs)

    def packed(self, p: Params, packing: Packing, *inputs: torch.Tensor) -> Any:
        """The outputs for sequences that are packed, each equal to what `run` gives for the sequence alone.

        Default: `run`, right for every block that treats each token alone.
        """
        return self.run(p, *inputs)

    def flops(self, *inputs: TensorType) -> Expr:
        """Floating-point operations of one call, two for each multiplication with addition in matrix products.

        Element-wise work counts as none, which is how torch's own counter counts.

        Raises:
            SpaceError: The block does not say (an unknown cost is an error, never 0).
        """
        raise SpaceError(f"block {type(self).__name__} does not state its FLOPs: define `flops`, or use Elementwise")

    def cache(self, *inputs: TensorType) -> Expr:
        """Elements kept for later calls when P + T tokens have been seen. Default: none."""
        return as_expr(0)

    def stated(self) -> dict[str, Any]:
        """The fields by name, without those that were `added` later and have their default."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {f.name: (f, getattr(self, f.name)) for f in fields}
        return {name: value for name, (f, value) in values.items() if _ADDED not in f.metadata or value != f.default}

    def fields(self) -> dict[str, Expr]:
        """The numeric fields among those that are stated."""
        values = self.stated()
        return {k: as_expr(v) for k, v in values.items() if isinstance(v, Expr | int) and not isinstance(v, bool)}

    @property
    def label(self) -> str:
        """The name shown in errors and pictures."""
        return type(self).__name__

    def __call__(self, *wires: Wire, name: str | None = None, weights: str | None = None) -> Wire:
        """Put the block on wires.

        Args:
            wires: The inputs, in the order of the ports line.
            name: The node's name in the present scope. Default: the block's name in lower case.
            weights: The node whose weights to use (in the present scope, or by its whole path). Default: its own.

        Returns:
            The output wire (the first, where the block has several; `Graph.outputs_of` gives all).

        Raises:
            SpaceError: The wires do not fit the ports, or the name is taken.
        """
        if not wires:
            raise SpaceError(f"{self.label}: put it on at least one wire")
        return wires[0].graph.attach(self, wires, name=name, weights=weights)


class Elementwise(Block):
    """A block without matrix products: its FLOPs count as none."""

    passes_masks: ClassVar[bool] = True

    def flops(self, *inputs: TensorType) -> Expr:
        """None."""
        return as_expr(0)


class Input(Elementwise):
    """A source of the graph."""

    ports: ClassVar[str] = "-> ..."


class Sum(Elementwise):
    """The sum of its inputs; of the one live input where only one can be live."""

    ports: ClassVar[str] = "(...)+ -> ..."

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        """The sum."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


class Zero(Elementwise):
    """Nothing: as a candidate of `oneof`, the candidate that leaves the output out. Elsewhere, zeros like its input."""

    ports: ClassVar[str] = "... -> ..."

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        """Zeros."""
        return inputs[0].new_zeros(inputs[0].shape)


class Zeros(Elementwise):
    """A tensor of zeros of a given type, which stands where nothing else is left.

    Args:
        like: The type.
        axes: For each axis of it, the axis of the input that has its size; -1 where the architecture says the size.
    """

    ports: ClassVar[str] = "... -> ..."
    like: TensorType
    axes: tuple[int, ...]

    def decided(self) -> dict[str, Expr]:
        """The sizes that the architecture says, by a name for each axis."""
        return {f"axis{i}": d for i, (d, a) in enumerate(zip(self.like.dims, self.axes, strict=True)) if a < 0}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        """Zeros."""
        import torch

        x = inputs[0]
        sizes = [p.sizes((f"axis{i}",))[0] if a < 0 else x.shape[a] for i, a in enumerate(self.axes)]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return torch.zeros(sizes, dtype=dtype if self.like.dtype == "float" else torch.int64, device=x.device)
