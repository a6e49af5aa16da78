"""Small sets of images in every format that is read, with the pixels that must come out."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["as_deb", "as_idx", "as_png", "as_tar", "as_zip", "pictures", "write_folders", "write_idx"]

Pixels = NDArray[np.uint8]


def pictures(count: int = 12, size: tuple[int, int] = (6, 5), channels: int = 3, seed: int = 0) -> Pixels:
    """Random images that all differ, [N, H, W, 3] or [N, H, W]."""
    shape = (count, *size, channels) if channels == 3 else (count, *size)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def as_png(image: Pixels, kind: str = "PNG") -> bytes:
    """An encoded image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_folders(root: Path, files: Mapping[str, bytes]) -> Path:
    """Files by their path below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def as_idx(values: Pixels, kind: int = 8) -> bytes:
    """An IDX file."""
    header = bytes([0, 0, kind, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.tobytes()


def write_idx(root: Path, split: str, pixels: Pixels, labels: Pixels, packed: bool = True) -> None:
    """Both files of a split, named as MNIST's."""
    root.mkdir(parents=True, exist_ok=True)
    for what, values in (("images-idx3", pixels), ("labels-idx1", labels)):
        data = as_idx(values)
        name = f"{split}-{what}-ubyte{'.gz' if packed else ''}"
        (root / name).write_bytes(gzip.compress(data) if packed else data)


def as_zip(files: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def as_tar(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def as_deb(files: Mapping[str, bytes], mode: str = "w:xz") -> bytes:
    """A Debian package: an ar archive of three members."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": as_tar({"./control": b"Package: toy\nVersion: 1\nArchitecture: all\n"}, "w:xz"),
        f"data.tar.{mode.partition(':')[2]}": as_tar({f"./{name}": data for name, data in files.items()}, mode),
    }
    archive = b"!<arch>\n"
    for name, content in members.items():
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        archive += b"\n" * (len(content) % 2)
    return archive
