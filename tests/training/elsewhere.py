"""A device that holds shapes and no numbers (torch's `meta`), watched: what would fail or be slow on a GPU is an error.

No implicit copy: an operation that mixes tensors of the device with tensors of the CPU (but for single numbers) fails,
and so does a `copy_` from one to the other. No accident: what is made out of nothing is made on the device, but for
what is on the CPU by design. What the program reads back is counted; it gets zeros, and ones for single numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankitect.training.placement import Placement, using

__all__ = ["Elsewhere", "elsewhere"]

META = torch.device("meta")
_READ = ("aten._local_scalar_dense.default", "aten.item.default", "aten.equal.default")
_COPIES = ("aten._to_copy.default",)
ON_THE_CPU = {
    "checkpoints/checkpoint.py": ("random_checkpoint",),
    "blocks/rotary.py": (),
    "models/supernet.py": ("_start",),
    "models/pretrained.py": (),
    "models/refit.py": ("refit_change",),
    "models/relaxed.py": ("reach",),
    "metrics/losses.py": ("top_targets", "sampled_cross_entropy"),
    "language/prior.py": ("second_order",),
    "language/searching.py": ("measured_loss",),
    "methods/cost_target.py": (),
    "controllers/dnas_scores.py": (),
    "controllers/reinforce_policy.py": (),
}
"""What is on the CPU by design: weights as they are read or drawn, before they are moved, and draws, the same for every
device; costs, the scores of choices and the frequencies of scaled positions, vectors of a few numbers. Functions by
file; none: all of it."""


class Elsewhere(TorchDispatchMode):
    """See the module.

    Attributes:
        read: How often numbers were read back, by operation.
        brought: How often a tensor was brought to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()
        self.brought = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, str(func)
        if (result := self._in_parts(func, args, kwargs)) is not NotImplemented:
            return result
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in given if x.device == META]
        here = [x for x in given if x.device != META and x.dim()]
        if name in _COPIES:
            return self._copied(func, args, kwargs)
        if there and here:
            raise AssertionError(f"an implicit copy between devices: {name} of {[tuple(x.shape) for x in given]}")
        if there and name in _READ:
            self.read[name] += 1
            return True if there[0].dtype == torch.bool or "equal" in name else 1 if not _floats(there[0]) else 1.0
        result = func(*args, **kwargs)
        if not given:
            for x in tree_leaves(result):
                if isinstance(x, torch.Tensor) and x.device != META and x.numel() > 1 and not _by_design():
                    raise AssertionError(f"{name} makes a tensor of {list(x.shape)} on the CPU by accident")
        return result

    def _in_parts(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation that is made of others: of a tensor of inference mode, these are not seen by themselves."""
        with self:
            return func.decompose(*args, **kwargs)

    def _copied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given, target = args[0], kwargs.get("device")
        if given.device == META and target is not None and torch.device(target) != META:
            self.read["copy"] += 1
            dtype = kwargs.get("dtype") or given.dtype
            return torch.zeros(given.shape, dtype=dtype)
        if given.device != META and target is not None and torch.device(target) == META:
            self.brought += 1
        return func(*args, **kwargs)


def _floats(x: torch.Tensor) -> bool:
    return x.is_floating_point()


def _by_design() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        functions = ON_THE_CPU.get("/".join(frame.f_code.co_filename.split("/")[-2:]))
        if functions is not None and (not functions or frame.f_code.co_name in functions):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


@contextmanager
def elsewhere(**settings: Any) -> Iterator[Elsewhere]:
    """Everything inside is placed on the watched device."""
    from torch.fx.experimental import _config

    # How many entries of a mask are true is no shape: all are taken to be.
    with (
        using(Placement(META, **settings)),
        _config.patch(meta_nonzero_assume_all_nonzero=True),
        Elsewhere() as watched,
    ):
        yield watched
