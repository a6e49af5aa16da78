"""What a saved training belongs to: settings, the model's shapes, the loss, and the data it was trained on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
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

_NEW = ("the loss", "what the loss was given")
"""Names that states of earlier versions lack."""
_DEEPEST = 8
"""Objects inside each other that a batch or a loss is looked through."""
_LONGEST = 150
"""Characters of what a loss was given that are kept as they are; the rest is kept as a hash."""


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
    optimizer = config.optimizer.model_dump(mode="json")
    if not config.optimizer.momentum:  # states of earlier versions know no momentum
        del optimizer["momentum"], optimizer["nesterov"]
    settings: dict[str, JSON] = {"steps": config.steps, "seed": config.seed, **optimizer}
    if tables is not None:
        settings |= {f"tables.{name}": value for name, value in asdict(tables.config).items()}
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    given = ", ".join(_given(loss, _DEEPEST))
    if len(given) > _LONGEST:
        given = f"{given[:_LONGEST]}… ({hashlib.sha256(given.encode()).hexdigest()[:12]})"
    about = {"the model's shapes": digest[:12], "the loss": _name(loss), "what the loss was given": given}
    return {**settings, **about, **provenance}


def _name(function: object) -> str:
    """The dotted name of a function or method; of another callable, that of its class."""
    named = inspect.isfunction(function) or inspect.ismethod(function)
    kind: Any = function if named else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _given(function: object, depth: int) -> Iterator[str]:
    """What a callable was given before it is called, as `name=value`: the arguments of a partial, the variables that a
    function closes over, its defaults, and the fields of a frozen dataclass whose method it is. Two losses of one name
    are then told apart."""
    values: dict[str, object] = {}
    if isinstance(function, functools.partial):
        values = {"function": function.func, **{str(i): v for i, v in enumerate(function.args)}, **function.keywords}
    elif inspect.ismethod(function):
        values = {"self": function.__self__, "function": function.__func__}
    elif inspect.isfunction(function):
        parameters = inspect.signature(function, follow_wrapped=False).parameters
        values = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a variable that is not set yet
                values[name] = cell.cell_contents
    elif is_dataclass(function) and _is_frozen(type(function)):
        values = {field.name: getattr(function, field.name) for field in fields(function)}
    for name, value in values.items():
        yield f"{name}={_described(value, depth - 1)}"


def _is_frozen(kind: Any) -> bool:
    """Whether nothing changes the fields of a dataclass's instances; false for a dataclass itself."""
    return is_dataclass(kind) and bool(kind.__dataclass_params__.frozen)  # type: ignore[union-attr]


def _described(value: object, depth: int) -> str:
    """A plain value as it is written, tensors and arrays as a hash; of anything else what kind of thing it is, and what
    it was given. The content of other objects may change while a model trains."""
    if value is None or isinstance(value, bool | int | float | str | bytes | Enum):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        return batch_digest(value)
    if isinstance(value, tuple | frozenset) and depth > 0:
        items = [_described(item, depth - 1) for item in value]
        return f"({', '.join(items if isinstance(value, tuple) else sorted(items))})"
    inner = ", ".join(_given(value, depth)) if depth > 0 else ""
    return _name(value) + (f"({inner})" if inner else "")


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
