"""What a saved training belongs to: settings, the model's shapes, the loss, and the data it was trained on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rankitect.contracts import JSON
from rankitect.errors import short

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableStorage
    from rankitect.training.loop import TrainConfig

__all__ = ["batch_digest", "differences", "identity_of"]

_NEW = ("the loss",)
"""Names that states of earlier versions lack."""
_DEEPEST = 8
"""Objects inside each other that a batch is looked through."""


def identity_of(
    config: TrainConfig,
    model: nn.Module,
    tables: TableStorage | None,
    loss: Callable[..., object],
    provenance: Mapping[str, JSON],
) -> dict[str, JSON]:
    """What a checkpoint belongs to, by name: every setting, the model's shapes as one hash, the loss, and what else the
    result depends on."""
    parameters = model.named_parameters()
    shapes = {name: list(p.shape if tables is None else tables.shape(name, p)) for name, p in parameters}
    settings: dict[str, JSON] = {"steps": config.steps, "seed": config.seed, **config.optimizer.model_dump(mode="json")}
    if tables is not None:
        settings |= {f"tables.{name}": value for name, value in asdict(tables.config).items()}
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    return {**settings, "the model's shapes": digest[:12], "the loss": _name(loss), **provenance}


def _name(function: object) -> str:
    """The dotted name of a function or method; of another callable, that of its class."""
    named = inspect.isfunction(function) or inspect.ismethod(function)
    kind: Any = function if named else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def differences(saved: object, identity: Mapping[str, JSON]) -> str:
    """How what a checkpoint belongs to differs from what is trained now, in words; empty where it does not."""
    if not isinstance(saved, dict):
        return "another version of Rankitect"
    now = json.loads(json.dumps(dict(identity)))  # tuples as JSON has them
    names = [n for n in {**saved, **now} if saved.get(n) != now.get(n) and (n in saved or n not in _NEW)]
    told = (f"{name} {json.dumps(saved.get(name))} and not {json.dumps(now.get(name))}" for name in names)
    return short(", ".join(told), 250)


def batch_digest(batch: object) -> str:
    """A hash of everything in a batch: other data, another mixture, another order or another teacher give another."""
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(batch, _DEEPEST):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, depth: int) -> Iterator[bytes]:
    """The content of tensors, arrays, numbers and texts, however they are held; `depth` ends a circle of objects."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        yield f"{value.dtype} {list(value.shape)}".encode()
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {list(value.shape)}".encode()
        yield value.tobytes() if value.dtype != object else repr(value.tolist()).encode()
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        yield repr(value).encode()
    elif depth:
        for item in _inside(value):
            yield from _parts(item, depth - 1)


def _inside(value: Any) -> Iterable[Any]:
    """What an object holds; of one that cannot be looked into, nothing."""
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, Sequence):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    try:
        return list(vars(value).values())
    except TypeError:
        return ()
