"""A run folder from somebody else leads nobody out of it: links, pipes, devices, and paths in its files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rankitect.data.files import folder_lock, open_plain, write_whole
from rankitect.data.ranking.synthetic import main as synthetic
from rankitect.errors import RunFolderError
from rankitect.export import main as export
from rankitect.report import main as report
from rankitect.study.files import inside
from rankitect.study.folder import RunFolder
from rankitect.study.summary import read_summary
from rankitect.verify import main as verify
from tests.study.test_study import CONFIG, run

SECRET = b"a secret of the user's"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    run(path)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    return Path(shutil.copytree(whole, tmp_path / "run"))


def linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        (folder / name).symlink_to("../secret")

    return change


def hard_linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        os.link(folder.parent / "secret", folder / name)

    return change


def linked_folder(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        (folder.parent / "elsewhere").mkdir()
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


def pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        os.mkfifo(folder / name)

    return change


def listening(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as it:
        before = os.getcwd()
        os.chdir(folder)  # the name of a socket may have about a hundred characters
        try:
            it.bind("s")
        finally:
            os.chdir(before)


def circle(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        (folder / name).symlink_to(Path(name).name)

    return change


def folder_for_file(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        (folder / name).mkdir()

    return change


def file_for_folder(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder / name)
        (folder / name).write_text("no folder")

    return change


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


FILES = ("study.lock", "log.txt", "study.db", "study.db-wal", "config.yaml", "summary.json", "trials.csv")
ENTRIES = [
    *((f"link {name}", linked(name)) for name in FILES),
    *((f"hard link {name}", hard_linked(name)) for name in FILES[:4]),
    *((f"folder {name}", linked_folder(name)) for name in ("trials", "candidates", "state", "report", "tensorboard")),
    *((f"pipe {name}", pipe(name)) for name in ("study.lock", "config.yaml", "summary.json", "trials.csv")),
    *((f"circle {name}", circle(name)) for name in ("trials.csv", "candidates", "trials/circle")),
    *((f"folder for {name}", folder_for_file(name)) for name in FILES),
    *((f"file for {name}", file_for_folder(name)) for name in ("trials", "candidates", "state")),
    ("pipe deep inside", lambda folder: os.mkfifo(folder / "trials" / "p")),
    ("socket", listening),
]


def everything(place: Path) -> dict[str, object]:
    """Kind and content of every entry."""
    out: dict[str, object] = {}
    for path in sorted(place.rglob("*")):
        mode = path.lstat().st_mode
        plain = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path) if stat.S_ISLNK(mode) else ""
        out[path.relative_to(place).as_posix()] = (stat.S_IFMT(mode), plain)
    return out


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in ENTRIES])
def test_nothing_is_followed_out_of_the_folder(
    folder: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder)
    before = everything(folder.parent)
    with pytest.raises(RunFolderError) as error:
        run(folder)
    for command in (report, export):
        assert command([f"run={folder}", *(["to=csv"] if command is export else [])]) == 2
        said = capsys.readouterr().err
        assert said.startswith("Error: ")
        assert len(said) <= 507
    assert verify([str(folder)]) == 2
    assert len(str(error.value)) <= 500
    assert everything(folder.parent) == before


def test_links_within_the_folder_and_to_it_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "latest.csv").symlink_to("trials.csv")
    (tmp_path / "link").symlink_to(folder)
    assert run(tmp_path / "link").ended == "finished"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "trials/../../secret", "", ".", "a\\..\\..\\b", "C:/x"])
def test_a_path_out_of_the_folder_is_refused_in_its_summary(folder: Path, path: str) -> None:
    data = json.loads((folder / "summary.json").read_text())
    data["pareto"][0]["artifacts"]["weights"] = path
    data.pop("checksum", None)
    (folder / "summary.json").write_text(json.dumps(data))
    with pytest.raises(RunFolderError, match="inside of the run folder"):
        read_summary(folder)


def test_a_fingerprint_that_would_name_another_folder_is_refused(folder: Path) -> None:
    data = json.loads((folder / "summary.json").read_text())
    data["pareto"][0]["fingerprint"] = "/../../../secret"
    data.pop("checksum", None)
    (folder / "summary.json").write_text(json.dumps(data))
    with pytest.raises(RunFolderError, match="fingerprint"):
        read_summary(folder)


def test_a_path_that_a_link_takes_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(RunFolderError, match="names a file outside of itself"):
        inside(tmp_path / "run", "out/secret")
    assert inside(tmp_path / "run", "trials/x") == tmp_path / "run" / "trials" / "x"


def test_the_lock_of_a_cache_folder_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".lock").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"\.lock is a symbolic link, not a file"), folder_lock(tmp_path / "cache"):
        pass
    assert (tmp_path / "secret").read_bytes() == SECRET


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_pipe_is_not_waited_for(tmp_path: Path, flags: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is a pipe, not a file"):
        open_plain(tmp_path / "pipe", flags)
    with pytest.raises(OSError, match="is a folder, not a file"):
        open_plain(tmp_path, flags)
    with pytest.raises(OSError, match="zero is a device, not a file"):
        open_plain(Path("/dev/zero"), flags)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path: Path, kind: str) -> None:
    """Not even by root, who may replace `/dev/null`. The device is reached by a link, as a mistake must spoil none."""
    out = tmp_path / "out"
    os.mkfifo(out) if kind == "a pipe" else out.symlink_to("/dev/zero")
    before = everything(tmp_path)
    with pytest.raises(OSError, match=f"out is {kind}, not a file"):
        write_whole(out, "x")
    assert synthetic([str(out), "--rows", "10"]) == 2
    assert everything(tmp_path) == before


def test_nothing_is_written_beside_the_devices() -> None:
    """`/dev/stdout` is a link to the file that output goes into; it is the link that would be replaced."""
    path = Path("/dev/rankitect-test")
    try:
        with pytest.raises(OSError, match="is a device, not a file"):
            write_whole(path, "x")
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)


@pytest.fixture(params=[0o022, 0o077, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_respects_the_umask(tmp_path: Path, umask: int) -> None:
    run(tmp_path / "run")
    write_whole(tmp_path / "file", "x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    for path in (tmp_path / "run").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & umask, path


def test_the_umask_of_a_training_state(tmp_path: Path, umask: int) -> None:
    import torch

    from rankitect.training.checkpoint import save_state

    save_state(tmp_path / "state.safetensors", {"x": torch.zeros(2)}, {})
    assert stat.S_IMODE((tmp_path / "state.safetensors").stat().st_mode) == 0o666 & ~umask


def test_a_folder_that_is_new_is_gone_when_the_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "a" / "b", CONFIG):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_is_no_file_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").symlink_to("trials.csv")
    with pytest.raises(RunFolderError, match="names a file outside of itself"):
        inside(tmp_path, "trials.csv")
