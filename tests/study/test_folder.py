from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.files import write_whole
from rankitect.errors import RunFolderError
from rankitect.study.files import copy_or_link, disk_trouble, is_disk_full
from rankitect.study.folder import RunFolder, config_hash, difference

CONFIG = {
    "space": {"target": "a.B", "size": 3},
    "heal": {"tokens": 100},
    "budget": {"minutes": 5, "trials": 7},
    "seed": 0,
}


def begun(path: Path) -> Path:
    """A run folder in which trials were recorded."""
    with RunFolder(path, CONFIG) as folder:
        folder.accept()
        folder.store_path.write_bytes(b"")
    return path


def test_a_new_folder_holds_the_configuration(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "run", CONFIG) as folder:
        folder.accept()
        assert yaml.safe_load(folder.config_path.read_text()) == CONFIG
        assert config_hash(CONFIG) in folder.config_path.read_text()
        assert not folder.resumed


def test_the_same_configuration_resumes(tmp_path: Path) -> None:
    with RunFolder(begun(tmp_path / "run"), CONFIG) as folder:
        assert folder.resumed


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    other = {**CONFIG, "heal": {"tokens": 50, "lr": 0.1}, "seed": 1}
    with pytest.raises(RunFolderError) as error, RunFolder(begun(tmp_path / "run"), other):
        pass
    for text in ("heal.tokens: 100 -> 50", "heal.lr: (absent) -> 0.1", "seed: 0 -> 1", "resume=force"):
        assert text in str(error.value)


def test_force_takes_it_and_keeps_the_old_configuration(tmp_path: Path) -> None:
    other = {**CONFIG, "seed": 1}
    with RunFolder(begun(tmp_path / "run"), other, force=True) as folder:
        assert yaml.safe_load(folder.config_path.read_text()) == CONFIG
        folder.accept()
        assert yaml.safe_load(folder.config_path.read_text()) == other
        assert yaml.safe_load((folder.path / "config.previous.yaml").read_text()) == CONFIG


def test_a_mistake_made_before_the_first_trial_may_be_corrected(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", CONFIG) as folder:
        folder.accept()
    with RunFolder(tmp_path / "run", {**CONFIG, "seed": 1}) as folder:
        folder.accept()
        assert yaml.safe_load(folder.config_path.read_text())["seed"] == 1


def test_a_folder_of_other_things_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"is not a run folder: it is not empty and has no config\.yaml"):
        RunFolder(tmp_path, CONFIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_before_the_configuration_leaves_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "study.lock").write_text("")
    (tmp_path / ".config.yaml.123.part").write_text("half")
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.accept()
        assert folder.config_path.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml", "study.lock"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        RunFolder(tmp_path / "file", CONFIG)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder(Path("/proc/run"), CONFIG)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder(tmp_path / "run", CONFIG)


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    (begun(tmp_path / "run") / "config.yaml").write_text("{a: [")
    with pytest.raises(RunFolderError, match=r"config\.yaml is no YAML"):
        RunFolder(tmp_path / "run", CONFIG)


def test_gates_changed_in_the_file_are_refused(tmp_path: Path) -> None:
    config = {**CONFIG, "report": {"gates": {"quality": {"metric": "quality", "at_most": 0.0}}}}
    with RunFolder(tmp_path / "run", config) as folder:
        folder.accept()
        folder.store_path.write_bytes(b"")
        folder.config_path.write_text(folder.config_path.read_text().replace("at_most: 0.0", "at_most: 0.5"))
    with pytest.raises(RunFolderError, match=r"config\.yaml: report\.gates are not those that were registered"):
        RunFolder(tmp_path / "run", config)


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom rankitect.study.folder import RunFolder\n"
        "held = RunFolder(pathlib.Path(sys.argv[1]), {'seed': 0})\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on host"):
            RunFolder(tmp_path / "run", {"seed": 0})
    finally:
        holder.kill()
        holder.communicate()
    with RunFolder(tmp_path / "run", {"seed": 0}):  # the lock ended with its process
        pass


SAME = [
    ("output_dir", "elsewhere"),
    ("resume", "force"),
    ("preset", "smoke"),
    ("allowed_packages", ["rankitect", "mine"]),
    ("report", {"page": False}),
    ("budget", {"minutes": 99, "trials": 7}),
    ("runner", {"threads": 2, "progress": False}),
]


@pytest.mark.parametrize(("key", "value"), SAME)
def test_what_cannot_change_a_result_does_not_change_the_hash(key: str, value: object) -> None:
    assert config_hash({**CONFIG, key: value}) == config_hash(CONFIG)


def test_what_can_change_a_result_changes_the_hash() -> None:
    others = [{"seed": 1}, {"budget": {"minutes": 5, "trials": 8}}, {"heal": {"tokens": 101}}, {"runner": {"batch": 2}}]
    hashes = {config_hash({**CONFIG, **other}) for other in others} | {config_hash(CONFIG)}
    assert len(hashes) == 5


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=4)


@given(configs, configs)
def test_hash_and_difference_agree(old: dict[str, object], new: dict[str, object]) -> None:
    assert (config_hash(old) == config_hash(new)) == (difference(old, new) == [])
    assert difference(old, old) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        OSError(27, "File too large"),
    ],
)
def test_a_full_disk_is_recognised_by_any_sign(error: Exception) -> None:
    outer = RuntimeError("could not save")
    outer.__cause__ = error
    assert is_disk_full(error)
    assert is_disk_full(outer)


def test_other_errors_are_not_a_full_disk(tmp_path: Path) -> None:
    assert not is_disk_full(OSError(13, "Permission denied"), tmp_path)
    assert not is_disk_full(ValueError("no"), tmp_path)
    assert disk_trouble(OSError(13, "Permission denied", "/elsewhere/file"), tmp_path) == 0
    assert disk_trouble(ValueError("no"), tmp_path) == 0


def test_a_disk_that_fails_or_is_read_only_is_recognised(tmp_path: Path) -> None:
    assert disk_trouble(OSError(errno.EROFS, "Read-only file system")) == errno.EROFS
    lost = RuntimeError("could not save")
    lost.__cause__ = OSError(errno.EIO, "Input/output error")
    assert disk_trouble(lost, tmp_path) == errno.EIO
    assert disk_trouble(OSError(errno.ENOSPC, "No space left on device"), tmp_path) == errno.ENOSPC


def test_a_disk_that_is_full_at_once_is_passed_on_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rankitect.study.folder.FolderLock", full)
    with pytest.raises(OSError, match="No space left") as error:
        RunFolder(tmp_path / "run", CONFIG)
    assert error.value.__cause__ is None  # were it its own cause, whoever looks for causes would never end
    assert disk_trouble(error.value) == errno.ENOSPC


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_copy_or_link_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    copy_or_link(tmp_path / "weights", tmp_path / "x" / "weights")
    assert (tmp_path / "x" / "weights").read_bytes() == b"abc"


def test_the_log_goes_to_its_file_and_to_no_handler_of_another_package(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("rankitect")
    with RunFolder(tmp_path / "run", CONFIG) as folder:
        folder.open_log(logger)
        logger.info("said before the command was accepted")
        assert not (tmp_path / "run" / "log.txt").exists()
        folder.accept()
        logger.info("trial 1 done")
    assert "said before" in (tmp_path / "run" / "log.txt").read_text()
    assert "trial 1 done" in (tmp_path / "run" / "log.txt").read_text()
    assert "trial 1 done" not in caplog.text
    logger.warning("afterwards")
    assert "afterwards" in caplog.text
