"""Splits are disjoint, of every class, and the same wherever the files lie; batches are functions of seed and step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.images.augmentation import Augmentation, augmented, cut_out
from rankitect.data.images.batches import ImageBatches
from rankitect.data.images.dataset import ImageData, Normalisation
from rankitect.data.images.division import divided, leaked
from rankitect.data.images.encoder import ImageEncoder
from rankitect.data.images.prepare import open_images
from rankitect.data.images.settings import GeneratedSettings, ImageSettings
from rankitect.data.images.store import StoredImages
from rankitect.errors import DataError
from tests.data.images.files import as_png, pictures


def stored(labels: list[int], keys: list[int] | None = None, given: list[int] | None = None) -> StoredImages:
    """Images of one pixel, that of their key."""
    keys = list(range(len(labels))) if keys is None else keys
    splits = np.full(len(labels), -1) if given is None else np.asarray(given)
    classes = tuple(f"class {n}" for n in range(max(labels) + 1))
    pixels = np.asarray(keys, np.uint8).reshape(-1, 1, 1, 1)
    return StoredImages(pixels, np.asarray(labels), splits, np.asarray(keys, np.uint64), classes, {})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    settings = ImageSettings(data="generated", generated=GeneratedSettings(images=300, classes=3, size=8))
    return open_images(settings, cache=tmp_path_factory.mktemp("images"))


SHARES = (0.8, 0.1, 0.1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=40, max_size=120), st.integers(0, 99))
def test_equal_images_are_of_one_split_and_every_class_is_in_each(images: list[tuple[int, int]], seed: int) -> None:
    # Keys of the three classes are apart, but for some that two classes share.
    labels = [label for label, _ in images] + [0, 1, 2] * 3
    keys = [key + 50 * label * (key > 5) for label, key in images] + list(range(200, 209))
    whole = stored(labels, keys)
    try:
        places = divided(whole, SHARES, seed, None)
    except DataError:  # images that two classes share may leave one of them without any in a split
        assert len(set(keys)) < len({*zip(keys, labels, strict=True)})
        return
    assert sorted(np.concatenate(list(places.values())).tolist()) == list(range(len(labels)))
    of_key: dict[int, set[str]] = {}
    for split, members in places.items():
        for key in whole.keys[members].tolist():
            of_key.setdefault(key, set()).add(split)
    assert all(len(splits) == 1 for splits in of_key.values())
    assert leaked(whole, places) == 0


def test_shares_are_those_of_each_class_and_another_seed_divides_otherwise() -> None:
    whole = stored([0] * 100 + [1] * 50)
    places = divided(whole, SHARES, 0, None)
    for split, share in zip(places, SHARES, strict=True):
        assert np.bincount(whole.labels[places[split]]).tolist() == [round(100 * share), round(50 * share)]
    other = divided(whole, SHARES, 1, None)
    assert not np.array_equal(places["test"], other["test"])
    limited = divided(whole, SHARES, 0, 30)
    assert np.bincount(whole.labels[limited["train"]]).tolist() == [20, 10]
    assert set(limited["train"].tolist()) < set(places["train"].tolist())
    assert np.array_equal(limited["test"], places["test"]), "fewer training images are judged by the same ones"


def test_given_splits_are_taken_and_a_lone_validation_split_is_the_test_split() -> None:
    labels = [0, 1] * 30
    kept = divided(stored(labels, given=[0] * 40 + [1] * 10 + [2] * 10), SHARES, 0, None)
    assert [len(kept[split]) for split in ("train", "validation", "test")] == [40, 10, 10]
    as_published = divided(stored(labels, given=[0] * 40 + [1] * 20), SHARES, 0, None)
    assert as_published["test"].tolist() == list(range(40, 60))
    assert len(as_published["validation"]) == 4
    with pytest.raises(DataError, match="The test split has no image of the class class 1"):
        divided(stored([0, 1] * 20 + [0], given=[0] * 40 + [2]), SHARES, 0, None)


def test_test_images_among_the_training_images_are_counted() -> None:
    whole = stored([0, 1] * 20, keys=[*range(36), 0, 1, 70, 71], given=[0] * 36 + [2] * 4)
    assert leaked(whole, divided(whole, SHARES, 0, None)) == 2


def test_a_batch_is_a_function_of_seed_split_and_step(data: ImageData) -> None:
    make = lambda seed: ImageBatches(data, batch=32, seed=seed, augment=Augmentation(cutout=3), smoothing=0.1)  # noqa: E731
    one, same, other = make(0), make(0), make(1)
    for step in (0, 7, 3, 7):
        assert torch.equal(one.batch_at("train", step).images, same.batch_at("train", step).images)
    assert not torch.equal(one.batch_at("train", 0).images, other.batch_at("train", 0).images)
    assert not torch.equal(one.batch_at("train", 0).images, one.batch_at("train", 1).images)
    batch = one.batch_at("train", 0)
    assert batch.images.shape == (32, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert (len(batch), batch.smoothing, one.batch_at("validation", 0).smoothing) == (32, 0.1, 0.0)


def test_every_image_is_seen_once_an_epoch_in_mixed_order(data: ImageData) -> None:
    batches = ImageBatches(data, batch=40, seed=0)
    count = len(data.places("train"))  # 240: six batches are an epoch
    labels = [batches.batch_at("train", step).labels.tolist() for step in range(count // 40)]
    assert sorted(label for part in labels for label in part) == sorted(
        data.stored.labels[data.places("train")].tolist()
    )
    assert all(len(set(part)) == 3 for part in labels)
    assert len(batches.batch_at("validation", 5, 70)) == 70, "more than the split has"


def test_normalised_training_images_have_mean_0_and_deviation_1(data: ImageData) -> None:
    batches = ImageBatches(data, batch=8, seed=0)
    images = torch.cat([part for part, _ in batches.images_at(data.places("train"), 50)])
    assert images.mean((0, 2, 3)).abs().max() < 1e-4
    assert (images.std((0, 2, 3)) - 1).abs().max() < 1e-3
    flat = Normalisation.of(np.full((4, 1, 2, 2), 255, np.uint8), np.arange(4))
    assert flat.mean == (1.0,)
    assert flat.deviation[0] > 0


def test_augmented_images_are_crops_of_the_padded_ones_mirrored_or_not() -> None:
    pixels = pictures(40, (6, 5)).transpose(0, 3, 1, 2)
    changed = augmented(pixels, Augmentation(crop=2), np.random.default_rng(0))
    padded = np.pad(pixels, ((0, 0), (0, 0), (2, 2), (2, 2)))
    mirrored = 0
    for image, whole in zip(changed, padded, strict=True):
        crops = {whole[:, y : y + 6, x : x + 5].tobytes() for y in range(5) for x in range(5)}
        mirrored += image.tobytes() not in crops
        assert {image.tobytes(), image[:, :, ::-1].tobytes()} & crops
    assert 8 < mirrored < 32
    assert np.array_equal(augmented(pixels, Augmentation(crop=0, flip=False), np.random.default_rng(0)), pixels)
    holes = np.ones((200, 1, 6, 5), np.float32)
    cut_out(holes, 4, np.random.default_rng(0))
    gone = (holes == 0).sum((1, 2, 3))
    assert gone.max() == 16
    assert gone.min() >= 4, "at least the quarter that lies inside"


def test_an_encoder_makes_of_files_what_batches_have(data: ImageData, tmp_path: Path) -> None:
    places = data.places("test")[:5]
    pixels, _ = data.read(places)
    (expected, _), *_ = ImageBatches(data, batch=8, seed=0).images_at(places, 5)
    upright = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    (tmp_path / "a.png").write_bytes(as_png(upright[0]))
    images = [tmp_path / "a.png", as_png(upright[1]), *upright[2:]]
    encoder = ImageEncoder.of(data, None)
    encoder = ImageEncoder.model_validate_json(encoder.model_dump_json())
    assert np.allclose(encoder.encode(images), expected.numpy(), atol=1e-5)
    assert encoder.encode([]).shape == (0, 3, 8, 8)
    for wrong, message in [
        (upright[0][:4], "image 0 is 4 x 8, and the model reads 8 x 8"),
        (upright[0].astype(np.float32), "is an array of float32"),
        (b"no image", "image 0 cannot be decoded"),
        (tmp_path / "none.png", "image 0 cannot be read"),
    ]:
        with pytest.raises(DataError, match=message):
            encoder.encode([wrong])
