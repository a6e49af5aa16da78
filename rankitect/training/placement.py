"""Where and how this process trains and measures models: device, precision, and what is traded for memory.

One place decides, and all follow it in one of three ways: whoever makes a model places it (`Placement.place`), whoever
makes a batch moves it (`Placement.move`), and whoever runs a model does so within `Placement.computing`. Rooms below
follow the tensors that they are given. Weights are drawn on the CPU and moved, so that a model starts the same on every
device; weights, the optimiser's state and losses are float32 in every precision. Nothing else moves a tensor: the tests
run every task under a mode that refuses copies from elsewhere (`tests/training/test_placement.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rankitect.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.schema import PlacementConfig

__all__ = ["Placement", "accelerators", "choose", "placement", "using"]

M = TypeVar("M", bound="nn.Module")
T = TypeVar("T")
AMPERE = (8, 0)
"""The compute capability from which CUDA devices have TF32 and bfloat16."""


@dataclass(frozen=True)
class Placement:
    """What was decided.

    Attributes:
        device: Where weights and batches are.
        precision: Of matrix products: "float32", "bf16" (autocast) or "tf32".
        checkpointing: Whether a layer's activations are computed again in the backward pass.
        accumulate: Parts in which a batch is computed, one after the other.
        compile: Whether models that are trained alone are compiled.
        shard: Whether what such a model is trained with is divided among the processes that train it.
    """

    device: torch.device
    precision: str = "float32"
    checkpointing: bool = False
    accumulate: int = 1
    compile: bool = False
    shard: bool = False

    def place(self, module: M) -> M:
        """Bring a model here, in place; the model itself."""
        from rankitect.models.supernet import Standalone, Supernet

        if isinstance(module, Supernet | Standalone):
            module.recompute = self.checkpointing
        return module if self._has(module) else module.to(self.device)

    def _has(self, module: nn.Module) -> bool:
        return all(x.device == self.device for x in (*module.parameters(), *module.buffers()))

    def move(self, value: T) -> T:
        """A batch here: a tensor, or a dataclass, mapping, list or tuple with tensors in it; anything else as it is."""
        return value if self.device.type == "cpu" else _moved(value, self.device)

    def of(self, model: object) -> torch.device:
        """Where a model's inputs must be: with its weights; here, where it is a function or has none."""
        from torch import nn

        from rankitect.models.supernet import device_of

        return device_of(model, self.device) if isinstance(model, nn.Module) else self.device

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Forward passes inside are in the chosen precision. Losses bring what they are given to float32."""
        if self.precision != "bf16":
            yield
            return
        import torch

        with torch.autocast(self.device.type, torch.bfloat16):
            yield

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """What is drawn inside leaves the caller's random state as it was, on the CPU and here."""
        import torch

        cuda = [self.device] if self.device.type == "cuda" else []
        apple = torch.mps.get_rng_state() if self.device.type == "mps" else None  # one device, unknown to `fork_rng`
        try:
            with torch.random.fork_rng(devices=cuda):
                yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)

    def seed(self, seed: int) -> None:
        """Seed torch's random numbers on the CPU and here."""
        import torch

        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` is slow
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def memory(self) -> int | None:
        """Bytes that this process may still take on the device; None where nobody says."""
        import torch

        from rankitect.models.memory import available_memory, by_hand

        if by_hand() is not None or self.device.type == "cpu":
            return available_memory()
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        if self.device.type == "mps":
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return None

    @contextmanager
    def compiled(self, module: nn.Module) -> Iterator[None]:
        """Calls of a model inside are compiled, where that was chosen; afterwards the model is as it was."""
        before = module._compiled_call_impl
        if self.compile:
            module.compile(dynamic=False)
        try:
            yield
        finally:
            module._compiled_call_impl = before

    @property
    def named(self) -> dict[str, str]:
        """What results depend on, for hashes of what is kept; empty for the usual."""
        return {} if self.precision == "float32" else {"precision": self.precision}


def _moved(value: Any, device: torch.device) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _moved(vars(value)[f.name], device) for f in fields(value) if f.init})
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_moved(part, device) for part in value]
        # A named tuple is made of its parts one by one.
        return type(value)(parts) if type(value) in (list, tuple) else type(value)(*parts)
    return value


_CURRENT: Placement | None = None


def placement() -> Placement:
    """What was decided for this process: the CPU in float32, where nobody chose."""
    import torch

    return _CURRENT or Placement(torch.device("cpu"))


@contextmanager
def using(chosen: Placement) -> Iterator[Placement]:
    """Another placement for as long as this lasts."""
    global _CURRENT
    before, _CURRENT = _CURRENT, chosen
    try:
        yield chosen
    finally:
        _CURRENT = before


# --- from the configuration -------------------------------------------------------------------------------------------
def choose(config: PlacementConfig, say: Callable[[str], object], processes: int = 1) -> Placement:
    """Decide for this process, once, before anything is loaded.

    Args:
        config: The section `placement`.
        say: Told what the user should know of it, in sentences.
        processes: How many train a model together.

    Raises:
        ConfigError: There is no such device, or it cannot do what is asked of it.
    """
    global _CURRENT
    import torch

    if config.shard and processes == 1:
        raise ConfigError(
            "placement.shard=true divides a model among the processes that train it, and there is one: use runner=ray "
            "runner.together=N, or torchrun for rankitect.train."
        )
    device = _device(config.device, processes)
    chosen = Placement(device, config.precision, config.checkpointing, config.accumulate, config.compile, config.shard)
    notes = [f"Device: {accelerators()[str(device)]} ({device})"] if device.type != "cpu" else []
    if config.compile:
        _require_compiler(device)
    for note in [*notes, *_precision_notes(chosen)]:
        say(note)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # On a CPU the switch would choose bfloat16 products: results there are float32 whatever it says.
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    _CURRENT = chosen
    return chosen


def accelerators() -> dict[str, str]:
    """The accelerators that torch can use, by the name that a configuration gives them: what they are."""
    import torch

    there = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        size, capability = about.total_memory / 2**30, f"{about.major}.{about.minor}"
        there[f"cuda:{index}"] = f"{about.name}, {size:.0f} GiB, compute capability {capability}"
    if torch.backends.mps.is_available():
        there["mps"] = "Apple GPU"
    return there


def _device(wanted: str, processes: int) -> torch.device:
    """The device of a configuration; of several processes that train together, each takes its own.

    Raises:
        ConfigError: It is not there, or cannot be had by so many processes.
    """
    import torch

    if wanted == "cpu":
        return torch.device("cpu")
    there = accelerators()
    cuda = [name for name in there if name.startswith("cuda")]
    name = wanted
    if wanted == "auto":
        name = "cuda" if cuda else "mps" if "mps" in there and processes == 1 else "cpu"
    if processes > 1 and name not in ("cpu", "cuda"):
        raise ConfigError(
            f"placement.device={wanted} is one device, and {processes} processes train together, each on one of its "
            "own. Allowed with several processes: cpu, cuda, auto."
        )
    if name == "cuda" and cuda:
        name = _own(cuda, processes)
    if name != "cpu" and name not in there:
        why = ""
        if wanted.startswith("cuda") and torch.version.cuda is None:
            why = f" This is torch {torch.__version__}, which was built without CUDA (README: make venv EXTRAS=cuda)."
        raise ConfigError(
            f"placement.device={wanted} is not there.{why} Devices of this machine: {', '.join(['cpu', *there])}."
        )
    return torch.device(name)


def _own(cuda: Sequence[str], processes: int) -> str:
    """Which of a machine's CUDA devices is this process's: torchrun and Ray Train number the processes of a machine.

    Raises:
        ConfigError: There are more processes than devices.
    """
    rank, there = (os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    local = int(rank) if rank.isdecimal() else 0
    count = max(local + 1, int(there) if there.isdecimal() else 1)
    shown = len(cuda) == 1 and "CUDA_VISIBLE_DEVICES" in os.environ  # a launcher may show each process one of its own
    if processes > 1 and count > len(cuda) and not shown:
        raise ConfigError(
            f"placement.device=cuda gives each process a device of its own, and this machine has {len(cuda)} for "
            f"{count} processes. Start as many as there are devices, or use placement.device=cpu."
        )
    return cuda[local % len(cuda)]


def _precision_notes(chosen: Placement) -> list[str]:
    """What there is to say of the precision on the device.

    Raises:
        ConfigError: The device does not have it.
    """
    import torch

    device, precision = chosen.device, chosen.precision
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE
    if precision == "tf32" and not capable:
        raise ConfigError(
            f"placement.precision=tf32 is one of CUDA devices of compute capability 8.0 or more, and not of {device}. "
            "Allowed here: float32, bf16."
        )
    slow = (device.type == "cuda" and not capable) or (device.type == "cpu" and _slow_on_cpu())
    if precision == "bf16" and slow:
        return [
            f"placement.precision=bf16 is emulated on {device}, which has no instructions for it: products take longer "
            "than in float32. It saves some memory and no time."
        ]
    return []


_BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""What torch calls a processor's instructions for products in bfloat16."""


def _slow_on_cpu() -> bool:
    """Whether the processor has no instructions for products in bfloat16, so that they are computed in float32."""
    import torch

    known = torch.cpu.get_capabilities()
    return not any(known.get(name, False) for name in _BF16)


def _require_compiler(device: torch.device) -> None:
    """Raise where `torch.compile` has no compiler for the device.

    Raises:
        ConfigError: It has none.
    """
    import importlib.util

    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("placement.compile=true needs triton for CUDA devices, which is not installed.")
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))):
        raise ConfigError("placement.compile=true needs a C++ compiler on the CPU, and there is none (g++, clang++).")
