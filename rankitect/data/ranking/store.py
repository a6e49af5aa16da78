"""The encoded table on disk: a manifest that says what is there, written last, and memory-mapped arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.entries import complete, damaged, hash_kept, manifest_of, write_manifest
from rankitect.data.pool import in_order
from rankitect.data.ranking.dataset import RankingData, RankingSplit
from rankitect.data.ranking.encoder import RowEncoder
from rankitect.data.ranking.encoding import EncodingPlan
from rankitect.data.ranking.features import Features
from rankitect.data.ranking.schema import SPLITS, TableSchema
from rankitect.data.ranking.vocabulary import Vocabulary
from rankitect.errors import DataError

__all__ = ["complete", "open_stored", "publish", "stored_encoder", "verify"]


def publish(folder: Path, plan: EncodingPlan, described: dict[str, Any], facts: dict[str, Any], workers: int) -> None:
    """Writes the vocabularies and then the manifest, with which the entry is complete."""
    for place, vocabulary in enumerate(plan.vocabularies):
        if vocabulary.keys is not None:
            np.save(folder / f"keys{place}.npy", vocabulary.keys)
    files = sorted(folder.glob("*.npy"))
    hashes = list(in_order([lambda file=file: hash_kept(file) for file in files], workers))  # type: ignore[misc]
    about = {
        "described": described,
        "features": plan.features.to_json(),
        "values": dict(plan.values),
        "centre": plan.centre.tolist(),
        "scale": plan.scale.tolist(),
        "hashed": [vocabulary.hashed for vocabulary in plan.vocabularies],
        "facts": facts,
    }
    write_manifest(folder, files, hashes, about)


def verify(data: RankingData) -> None:
    """Reads every file of an encoded table and compares its hash.

    Raises:
        DataError: If one is damaged; it names the folder to delete.
    """
    for file in damaged(data.folder):
        raise DataError(f"{file} is damaged. Delete the folder {data.folder}; it is made again.")


def open_stored(folder: Path, fingerprint: str) -> RankingData:
    """The table of a complete entry."""
    manifest = manifest_of(folder)
    features = Features.from_json(manifest["features"])
    facts = manifest["facts"]
    splits = {}
    for name in SPLITS:
        rows = int(facts["splits"][name]["rows"])

        def mapped(kind: str, split: str = name) -> NDArray[Any] | None:
            path = folder / f"{split}.{kind}.npy"
            return np.load(path, mmap_mode="r") if path.name in manifest["files"] else None

        numeric, ids, labels = mapped("numeric"), mapped("ids"), mapped("labels")
        assert labels is not None
        splits[name] = RankingSplit(
            name,
            np.empty((rows, 0), np.float32) if numeric is None else numeric,
            np.empty((rows, 0), np.int32) if ids is None else ids,
            labels,
            mapped("weights"),
            mapped("groups"),
            mapped("truth"),
            mapped("times"),
            facts["splits"][name],
            mapped("scores"),
        )
    named = manifest["described"]["name"]
    return RankingData(named, fingerprint, features, splits, facts, folder, manifest["values"])


def stored_encoder(folder: Path) -> RowEncoder:
    """How the rows of a complete entry were encoded, so that new ones can be."""
    manifest = manifest_of(folder)
    features = Features.from_json(manifest["features"])
    vocabularies = []
    for place, (feature, hashed) in enumerate(zip(features.categorical, manifest["hashed"], strict=True)):
        file = folder / f"keys{place}.npy"
        vocabularies.append(Vocabulary(feature.rows, np.load(file) if file.name in manifest["files"] else None, hashed))
    centre, scale = (np.asarray(manifest[name], np.float64) for name in ("centre", "scale"))
    plan = EncodingPlan(features, tuple(vocabularies), centre, scale, manifest["values"])
    return RowEncoder(TableSchema.model_validate(manifest["described"]["schema"]), plan)
