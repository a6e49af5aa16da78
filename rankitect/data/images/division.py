"""Which image is of which split: as the source says, and where it does not, by a hash of the pixels in each class.

Equal images have equal hashes and go together, so that no test image is one that was trained on. The order of the files
decides nothing: sets come sorted by class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rankitect.data.images.settings import SPLITS
from rankitect.data.images.store import StoredImages
from rankitect.errors import DataError, short

__all__ = ["divided", "leaked", "mixed"]

Places = NDArray[np.int64]
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))


def divided(stored: StoredImages, shares: Sequence[float], seed: int, limit: int | None) -> dict[str, Places]:
    """The places of each split's images.

    Args:
        stored: The images.
        shares: Of train, validation and test, in each class; those of splits that the source names do not count.
        seed: Another one gives another division.
        limit: Training images to use, the same share of each class; None for all.

    Raises:
        DataError: A class has too few images that differ, or a split lacks a class.
    """
    split = stored.given.copy()
    wanted = [number for number in (_VALIDATION, _TEST) if not (stored.given == number).any()]
    if _TEST in wanted and _VALIDATION not in wanted:
        split[split == _VALIDATION] = _TEST  # as of ImageNet: what is published as validation is reported on
        wanted = [_VALIDATION]
    free = np.flatnonzero((split < 0) | (split == _TRAIN))
    split[free] = _TRAIN
    for label in range(len(stored.classes)) if wanted else ():
        members = free[stored.labels[free] == label]
        split[members] = _divided_class(members, stored, shares, wanted, seed, stored.classes[label])
    split = _together(split, free, stored.keys)
    places = {name: np.flatnonzero(split == number) for number, name in enumerate(SPLITS)}
    places["train"] = _limited(places["train"], stored, limit)
    _check_classes(places, stored)
    return places


def _divided_class(
    members: Places, stored: StoredImages, shares: Sequence[float], wanted: Sequence[int], seed: int, name: str
) -> Places:
    """The split of each image of a class: the held-out ones are those of the smallest hashes."""
    hashes = mixed(stored.keys[members], seed)
    different = np.unique(hashes)
    total = shares[_TRAIN] + sum(shares[number] for number in wanted)
    if len(different) <= len(wanted):
        raise DataError(
            f"The class {short(name, 80)} has {len(different)} different image{'' if len(different) == 1 else 's'}, "
            f"and {len(wanted) + 1} are needed: one for each split."
        )
    split, begin = np.full(len(members), _TRAIN), 0
    for place, number in enumerate(wanted):
        left = len(different) - (len(wanted) - place)  # one for each split that follows, train among them
        count = min(max(1, round(shares[number] / total * len(different))), left - begin)
        bounds = different[begin], different[begin + count - 1]
        split[(hashes >= bounds[0]) & (hashes <= bounds[1])] = number
        begin += count
    return split


def _together(split: Places, free: Places, keys: NDArray[np.uint64]) -> Places:
    """The same with equal images of different classes in one split, the last that any of them is in."""
    _, group = np.unique(keys[free], return_inverse=True)
    last = np.zeros(group.max(initial=0) + 1, np.int64)
    np.maximum.at(last, group, split[free])
    split[free] = last[group]
    return split


def _limited(places: Places, stored: StoredImages, limit: int | None) -> Places:
    """At most so many, the same share of each class, by their hashes."""
    if limit is None or limit >= len(places):
        return places
    chosen = []
    for label in range(len(stored.classes)):
        members = places[stored.labels[places] == label]
        count = max(1, round(limit * len(members) / len(places)))
        order = np.argsort(mixed(stored.keys[members], 0), kind="stable")
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen))


def _check_classes(places: Mapping[str, Places], stored: StoredImages) -> None:
    """Refuse a split without any image, a class that is not trained on, and one that is not tested.

    Raises:
        DataError: There is one.
    """
    for split, members in places.items():
        there = np.bincount(stored.labels[members], minlength=len(stored.classes))
        lacking = [stored.classes[label] for label in np.flatnonzero(there == 0)]
        if lacking and split != "validation":
            more = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
            raise DataError(f"The {split} split has no image of the class {short(lacking[0], 80)}{more}.")
        if not len(members):
            raise DataError(f"The {split} split has no image.")


def leaked(stored: StoredImages, places: Mapping[str, Places]) -> int:
    """How many images of the test split are, pixel for pixel, among those of the others."""
    known = np.concatenate([stored.keys[places["train"]], stored.keys[places["validation"]]])
    return int(np.isin(stored.keys[places["test"]], known).sum())


def mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Hashes of hashes that depend on a seed: the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = keys + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
