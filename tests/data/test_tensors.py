"""A safetensors file that cannot be used is refused in one sentence by whoever opens it, or made again."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rankitect.data.ranking.encoder import RowEncoder
from rankitect.data.ranking.raw import RawShard
from rankitect.data.tensors import described, opened_tensors, read_arrays, read_tensors
from rankitect.deploy.latency_model import LatencyModel
from rankitect.errors import AssetError, BaselineError, ConfigError, RankitectError, RunFolderError, TrainingError
from rankitect.models.candidate.folder import read_weights
from rankitect.models.checkpoints.weights import _read_file
from rankitect.models.statistics_file import load_statistics
from rankitect.production.evidence import ROWS, load_evidence, read_losses
from rankitect.production.registry import check_weights
from rankitect.tasks.registered import make_module
from rankitect.training.checkpoint import load_state
from tests.fuzz.test_candidates import whole

HUGE = [2**63, 0]
REFUSED = "x is damaged"


def stored(kind: str, shape: list[int], size: int, **about: str) -> bytes:
    header = {"__metadata__": about, "losses": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


FILES: dict[str, bytes | None] = {
    "nothing": b"",
    "no header": b"nothing",
    "cut short": stored("F32", [4], 16)[:-3],
    "a header without end": struct.pack("<Q", 2**62) + b"{" * 50,
    "a shape that torch and numpy do not have": stored("F32", HUGE, 0),
    "a type that nobody has": stored("X9", [4], 4),
    "no file": None,
}
NUMPY_LACKS = {
    "a type that numpy does not have": stored("BF16", [4], 8),
    "more axes than numpy has": stored("F32", [1] * 70, 4),
    "another type that numpy does not have": stored("F8_E4M3", [4], 4),
}


def module(features: Any) -> torch.nn.Module:
    """A module of somebody else's."""
    return torch.nn.Linear(2, 1)


def _module(path: Path) -> object:
    return make_module("tests.data.test_tensors.module", path, None, ["rankitect", "tests"], "baseline x")


READERS: dict[str, tuple[Callable[[Path], object], type[RankitectError], str]] = {
    "tensors": (lambda p: read_tensors(p, REFUSED), AssetError, "pt"),
    "arrays": (lambda p: read_arrays(p, REFUSED), AssetError, "numpy"),
    "candidate": (read_weights, AssetError, "pt"),
    "checkpoint": (_read_file, AssetError, "pt"),
    "encoder": (lambda p: RowEncoder.load(p.parent), AssetError, "numpy"),
    "shard": (RawShard.load, AssetError, "numpy"),
    "array of a shard": (lambda p: RawShard.field(p, "losses"), AssetError, "numpy"),
    "losses": (read_losses, RunFolderError, "numpy"),
    "rows": (lambda p: load_evidence(p.parent), RunFolderError, "numpy"),
    "latency model": (LatencyModel.load, AssetError, "numpy"),
    "training state": (load_state, TrainingError, "pt"),
    "module": (_module, BaselineError, "pt"),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_what_cannot_be_used(reader: str, tmp_path: Path) -> None:
    read, kind, framework = READERS[reader]
    path = tmp_path / {"encoder": "vocabularies.safetensors", "rows": ROWS}.get(reader, "x.safetensors")
    (tmp_path / "encoder.json").write_bytes(whole("ranking")["encoder/encoder.json"])
    for called, content in (FILES | (NUMPY_LACKS if framework == "numpy" else {})).items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        elif reader == "rows":
            continue  # a run folder need not have any
        with pytest.raises(kind) as caught:
            read(path)
        assert (REFUSED if reader in ("tensors", "arrays") else path.name) in str(caught.value), called
        assert len(str(caught.value)) <= 500, called


@pytest.mark.parametrize("called", {**FILES, **NUMPY_LACKS})
def test_what_is_kept_to_save_time_is_made_again(called: str, tmp_path: Path) -> None:
    path, content = tmp_path / "x.safetensors", {**FILES, **NUMPY_LACKS}[called]
    if content is not None:
        path.write_bytes(content)
    assert load_statistics(path) is None
    assert RawShard.outline(path) is None


def test_a_file_without_its_description_or_with_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for about in ({}, {"about": "{"}, {"about": "[]"}, {"about": '{"x": NaN}'}):
        save_file({"a": torch.ones(2)}, path, about)
        with pytest.raises(RunFolderError, match=REFUSED), opened_tensors(path, "pt", REFUSED, RunFolderError) as file:
            described(file, "about")
    save_file({"a": torch.ones(2)}, path, {"about": '{"x": 1}'})
    with opened_tensors(path, "pt", REFUSED) as file:
        assert described(file, "about") == {"x": 1}


def test_nobody_waits_for_the_writer_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    for read, kind, _ in (READERS["arrays"], READERS["candidate"], READERS["module"]):
        with pytest.raises(kind, match="it is no file"):
            read(tmp_path / "x.safetensors")


def test_a_panic_of_the_parser_is_a_sentence(tmp_path: Path) -> None:
    class Panic(BaseException):
        """As Rust's PanicException is: no Exception."""

    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(AssetError, match=REFUSED), opened_tensors(tmp_path / "x.safetensors", "pt", REFUSED):
        raise Panic("index out of bounds")


def test_whole_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    save_file(tensors, tmp_path / "x.safetensors")
    read, arrays = read_tensors(tmp_path / "x.safetensors", REFUSED), read_arrays(tmp_path / "x.safetensors", REFUSED)
    assert read.keys() == arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


def test_weights_of_a_baseline_are_looked_at_before_they_are_copied(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(FILES["cut short"] or b"")
    with pytest.raises(ConfigError, match=r"x\.safetensors is no whole safetensors file"):
        check_weights(tmp_path / "x.safetensors", "own.module")
