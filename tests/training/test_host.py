"""The host's settings, seen from a fresh process."""

import os
import subprocess
import sys

import pytest

from rankitect.training.host import configure_host


def run(code, **env):
    env = {
        key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "THP_MEM_ALLOC_ENABLE")
    } | env
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    ).stdout.split()


def test_threads_reach_torch_whether_it_is_loaded_before_or_after():
    code = (
        "from rankitect.training.host import configure_host as c; print(c({})); "
        "import torch; print(torch.get_num_threads())"
    )
    assert run(code.format(1)) == ["1", "1"]
    assert run("import torch; " + code.format(1)) == ["1", "1"]
    assert run(code.format(""), OMP_NUM_THREADS="1") == ["1", "1"]


def test_importing_it_does_not_load_torch_and_huge_pages_are_asked_for():
    code = (
        "import os, sys; from rankitect.training.host import configure_host as c; c(1); "
        "print('torch' in sys.modules, os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    assert run(code) == ["False", "1"]
    assert run(code, THP_MEM_ALLOC_ENABLE="0") == ["False", "0"]


def test_no_threads_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        configure_host(0)
