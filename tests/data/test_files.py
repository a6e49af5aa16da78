"""Files are whole or not there, with the rights that new files have."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankitect.data.files import write_atomically, write_whole
from rankitect.study.files import disk_trouble


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system takes no larger files meanwhile, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "text", "x")
        write_atomically(tmp_path / "tensors", lambda part: save_file({"a": np.zeros(3)}, part))
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    rights = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert rights == {0o666 & ~mask}


def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "old")
    tensors = {"a": np.zeros(50_000)}
    with files_of_at_most(20_000):
        for write in (lambda part: part.write_bytes(bytes(50_000)), lambda part: save_file(tensors, part)):
            with pytest.raises(OSError) as error:
                write_atomically(tmp_path / "file", write)
            assert error.value.errno == errno.EFBIG
            assert disk_trouble(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), "x")
    assert len(list(tmp_path.iterdir())) == 1
