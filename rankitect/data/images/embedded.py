"""Sets of images that have a name and are fetched on first use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rankitect.data.assets import asset_path
from rankitect.data.images.idx import IdxImages
from rankitect.data.images.members import Member
from rankitect.data.images.settings import FASHION_MNIST

__all__ = ["fashion_mnist"]

_PARTS = ("train-images", "train-labels", "test-images", "test-labels")
_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def fashion_mnist() -> IdxImages:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 training and 10,000 test images, grey, 28 x 28.

    Raises:
        AssetError: It cannot be fetched, or is damaged.
    """
    files = [asset_path(f"{FASHION_MNIST.replace('_', '-')}-{part}") for part in _PARTS]
    members = [Member(file.name, file.stat().st_size, partial(Path.read_bytes, file), file) for file in files]
    return IdxImages(FASHION_MNIST, files, members, dict(enumerate(_CLASSES)))
