"""Processes that torchrun started to train one model: each runs the same command, the first one keeps the run folder.

    torchrun --nproc-per-node 8 -m rankitect.train space=mobile_llm recipe=heal placement.device=cuda

The others work in a folder of their own, which is dropped, and print nothing. They begin with a copy of the first one's
saved state, so that no disk has to be shared, and stop in the same step.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankitect.data.files import write_whole
from rankitect.documents import parse_json
from rankitect.errors import ConfigError

__all__ = ["Launch", "launched", "refuse_launched"]


@dataclass(frozen=True)
class Launch:
    """What torchrun says of this process.

    Attributes:
        rank: Its number.
        world: Of how many.
    """

    rank: int
    world: int

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """The processes know each other inside.

        Args:
            device: What is trained on, as configured; messages of its tensors do not go through the CPU.
        """
        import torch
        import torch.distributed as dist

        from rankitect.training.parallel import backend, join, leave

        if self.rank:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        dist.init_process_group(backend("cuda" if cuda else "cpu"))
        join()
        try:
            yield
        finally:
            leave()
            dist.destroy_process_group()

    @contextmanager
    def folder(self, path: Path) -> Iterator[Path]:
        """Where this process works: the first in the run folder, each other in one that is dropped."""
        if self.rank == 0:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="rankitect-") as place:
            yield Path(place) / "run"

    def go(self, wanted: bool) -> bool:
        """Whether there is anything to do, as the first process says."""
        from rankitect.training.parallel import peers

        return bool(peers().agree(float(wanted))[0])

    def together(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Whether any process was asked to stop; all ask at the same points."""
        from rankitect.training.parallel import peers

        return lambda: peers().total(float(stop())) > 0

    def share(self, state: Path) -> None:
        """Give the others the files of the first process's saved state."""
        files = sorted(path for path in state.rglob("*") if path.is_file()) if self.rank == 0 else []
        names = json.dumps([path.relative_to(state).as_posix() for path in files])
        told = parse_json(_from_first(names.encode()), list[str], "the names of files")
        for name in told:
            content = _from_first((state / name).read_bytes() if self.rank == 0 else b"")
            if self.rank:
                (state / name).parent.mkdir(parents=True, exist_ok=True)
                write_whole(state / name, content)


def _from_first(content: bytes) -> bytes:
    """What the first process has, everywhere."""
    import numpy as np
    import torch
    import torch.distributed as dist

    from rankitect.training.parallel import peers

    size = int(peers().agree(float(len(content)))[0])
    sent = torch.zeros(size, dtype=torch.uint8)
    if peers().rank == 0 and size:
        sent.copy_(torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()))
    dist.broadcast(sent, 0)
    return sent.numpy().tobytes()


def launched() -> Launch | None:
    """What torchrun says of this process; None where something else started it, or it is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return Launch(int(os.environ["RANK"]), world) if world > 1 else None


def refuse_launched(command: str) -> None:
    """Raise where torchrun started several processes of a command that trains no single model.

    Raises:
        ConfigError: It did.
    """
    if launch := launched():
        raise ConfigError(
            f"torchrun started {launch.world} processes of {command}: it is for rankitect.train, which trains one "
            f"model. A search does that with runner=ray runner.together={launch.world}."
        )
