"""Files inside Debian packages, fetched by apt and taken out of them; nothing is installed."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rankitect.data.debian import MOST_UNPACKED, data_archive, read_file, regular_files
from rankitect.data.guard import guarded
from rankitect.data.pinned import DebianAsset
from rankitect.data.pip_packages import NO_SPACE, run_watched, without_addresses
from rankitect.errors import AssetError

__all__ = ["download", "unpack"]


def download(asset: DebianAsset, folder: Path, say: Callable[[str], None]) -> Path:
    """The package of an asset: apt brings it, from the sources that this machine has for its own packages.

    Machines that were never updated have no lists of packages. Then apt makes lists of its own, in our folder: those of
    the system are the administrator's.

    Raises:
        AssetError: There is no apt, or it cannot bring the package.
        OSError: The disk is full.
    """
    if (installed := _installed(asset)) is not None:
        return installed
    apt = shutil.which("apt-get")
    if apt is None:
        raise AssetError(
            f"Asset {asset.name!r} cannot be fetched: it is in the Debian package {asset.package}, and this machine "
            f"has no apt-get. {asset.instead}"
        )
    say(f"{asset.name}: fetching {asset.about}, with apt-get download {asset.package}")
    # As root, apt would change to a user who may not write into our folder.
    command = [apt, "-q", "-y", "-o", "APT::Sandbox::User=root"]
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}

    def run(*arguments: str) -> tuple[int, str]:
        def grown(size: int) -> None:
            say(f"{asset.name}: {size / 1e6:.0f} MB so far")

        return run_watched([*command, *arguments], folder, env, grown, inside=True)

    code, output = run("download", asset.package)
    if code:
        lists, cache = folder / "lists", folder / "cache"
        for place in (lists / "partial", cache / "archives" / "partial"):
            place.mkdir(parents=True)
        own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}")
        run(*own, "update")
        code, output = run(*own, "download", asset.package)
    brought = sorted(folder.glob("*.deb"))
    if code or len(brought) != 1:
        raise _error(asset, output)
    return brought[0]


def _installed(asset: DebianAsset) -> Path | None:
    """The file where the installed package has it."""
    file = Path("/") / asset.member
    return file if file.is_file() else None


def _error(asset: DebianAsset, output: str) -> AssetError | OSError:
    if NO_SPACE in output:
        return OSError(errno.ENOSPC, "No space left on device")
    lines = [line.strip() for line in output.splitlines() if line.startswith("E: ")]
    reason = without_addresses("; ".join(lines[:2])) or "no reason given"
    return AssetError(
        f"Asset {asset.name!r} cannot be fetched: apt-get could not download {asset.package} ({reason[:160]}). Check "
        f"the network and apt's sources, and repeat the command. {asset.instead}"
    )


def unpack(asset: DebianAsset, package: Path, target: Path) -> None:
    """Copy an asset's member, unpacked, out of its package, or from where the package is installed.

    Raises:
        ValueError: It is not there, or has another size.
    """
    installed = _installed(asset)
    data = _member(asset, package.read_bytes(), package.name) if installed is None else installed.read_bytes()
    if asset.member.endswith(".gz"):
        with guarded(f"{asset.member} cannot be unpacked", AssetError), gzip.open(io.BytesIO(data)) as stream:
            data = stream.read(asset.size + 1)
    if len(data) != asset.size:
        raise ValueError(f"{asset.member} has {len(data):,} bytes or more, expected {asset.size:,}")
    target.write_bytes(data)


def _member(asset: DebianAsset, package: bytes, called: str) -> bytes:
    with guarded(f"{called} cannot be read", AssetError), data_archive(package, called) as archive:
        for info in regular_files(archive, MOST_UNPACKED):
            if info.name.removeprefix("./") == asset.member:
                return read_file(archive, info)
    raise ValueError(f"{called} has no {asset.member}")
