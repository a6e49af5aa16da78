"""Vocabularies and normalisation from training rows, and rows of all splits encoded with them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.pool import RowProgress, in_order
from rankitect.data.ranking.columns import NAMED, Codes
from rankitect.data.ranking.features import FIRST_ID, MISSING_ID, PADDING, UNKNOWN_ID, CategoricalFeature, Features
from rankitect.data.ranking.raw import CALENDAR, RawShard
from rankitect.data.ranking.schema import SPLITS, Categorical, MultiHot, TableSchema
from rankitect.data.ranking.splitting import Assignment
from rankitect.data.ranking.vocabulary import KeyCounter, Vocabulary
from rankitect.errors import DataError, short

__all__ = ["EncodingPlan", "count", "encode", "encode_features"]

_Array = NDArray[Any]
_SAMPLE, _FEWEST = 4096, 8
"""Training rows of a sample, and of each shard at least."""
_HEAVIEST = 1e30
"""Sum of a split's weights: with losses and their squares, far from what float32 does not hold."""


@dataclass(frozen=True, eq=False)
class EncodingPlan:
    """How rows are encoded.

    Attributes:
        features: What comes out.
        vocabularies: The vocabulary of each categorical feature.
        centre: Subtracted from each numeric feature after its transform, [N].
        scale: Divided by after that, [N].
        values: The texts of the values that have a row of their own, in its order, by feature, where they are few.
        sample: Numbers of some training rows, before they are normalised, [N, n]; none where rows are only encoded.
    """

    features: Features
    vocabularies: tuple[Vocabulary, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sample: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


def count(
    schema: TableSchema, shards: Sequence[Path], assignment: Assignment, workers: int, progress: RowProgress
) -> EncodingPlan:
    """The plan that training rows give.

    Raises:
        DataError: If a vocabulary overflows.
    """
    columns = (*schema.categorical, *schema.multi_hot)
    counters = [_counter(column) for column in columns]
    locks = [threading.Lock() for _ in columns]
    naming = threading.Lock()
    texts: list[dict[int, str] | None] = [{} for _ in (*columns, *schema.calendar)]
    slots = [1] * len(columns)

    some = max(_FEWEST, _SAMPLE // max(len(shards), 1))

    def read(number: int, path: Path) -> tuple[int, list[_Array], _Array]:
        shard, chosen = RawShard.load(path), assignment.of(number) == 0
        # Names come from all rows, counts and moments from training rows only: nothing is learned from the test data.
        with naming:
            for place, codes in enumerate(shard.codes):
                _name(texts, place, codes)
        if not chosen.any():
            return shard.rows, [], shard.numeric[:, :0]
        for place, counter in enumerate(counters):
            codes = shard.codes[place].keep(chosen)
            if codes.offsets is not None:
                with locks[place]:
                    slots[place] = max(slots[place], int(np.diff(codes.offsets).max()))
            if counter is not None:
                counts = np.bincount(codes.codes, minlength=len(codes.keys) + 1)[1:]
                with locks[place]:  # one for each feature, so that threads rarely wait for each other
                    counter.add(codes.keys, counts)
        numeric = shard.numeric if chosen.all() else shard.numeric[:, chosen]
        return shard.rows, _moments(numeric), numeric[:, :: -(-numeric.shape[1] // some)].copy()

    samples: list[_Array] = []
    total = _moments(np.empty((len(schema.numeric), 0)))
    tasks = (lambda number=number, path=path: read(number, path) for number, path in enumerate(shards))
    # Sums of floating-point numbers depend on their order; in the order of the shards they are the same every time.
    for rows, moments, sample in in_order(tasks, workers):
        progress.add(rows)
        samples.append(sample)
        if moments:
            total = _joined(total, moments)
    progress.end()
    vocabularies = [_vocabulary(column, counter) for column, counter in zip(columns, counters, strict=True)]
    vocabularies += [Vocabulary(CALENDAR[name] + FIRST_ID, None) for name in schema.calendar]
    widths = [
        (column.slots or slots[place]) if isinstance(column, MultiHot) else 1 for place, column in enumerate(columns)
    ] + [1] * len(schema.calendar)
    names = [*(column.name for column in columns), *schema.calendar]
    features = Features(
        tuple(column.name for column in schema.numeric),
        tuple(
            CategoricalFeature(name, vocabulary.rows, width)
            for name, vocabulary, width in zip(names, vocabularies, widths, strict=True)
        ),
    )
    plain = np.array([column.transform == "none" for column in schema.numeric], dtype=np.bool_)
    deviation = np.sqrt(total[2] / np.maximum(total[0], 1))
    # A column that is constant becomes 0, instead of being divided by nothing; its mean may be off in the last digit.
    constant = total[3] >= total[4]
    centre = np.where(plain, 0.0, np.where(constant & (total[0] > 0), total[3], total[1]))
    values = {name: named for name, v, t in zip(names, vocabularies, texts, strict=True) if (named := _named(v, t))}
    scale = np.where(plain | constant | (deviation == 0), 1.0, deviation)
    return EncodingPlan(features, tuple(vocabularies), centre, scale, values, np.concatenate(samples, axis=1))


def encode(
    folder: Path,
    schema: TableSchema,
    plan: EncodingPlan,
    shards: Sequence[Path],
    assignment: Assignment,
    workers: int,
    progress: RowProgress,
) -> dict[str, Any]:
    """Writes the rows of all splits and gives what is known of them.

    Raises:
        DataError: If a split has labels of one kind only.
    """
    columns = sum(plan.features.slots)
    kinds = _kinds(plan, columns, RawShard.load(shards[0]))
    files = [_create(folder, name, size, kinds) for name, size in zip(SPLITS, assignment.sizes, strict=True)]

    def write(number: int, path: Path) -> tuple[int, list[tuple[_Array, _Array]]]:
        shard, codes = RawShard.load(path), assignment.of(number)
        gone = np.isnan(shard.numeric)
        arrays = _encoded(shard, plan, int(assignment.starts[number]))
        counts = []
        for split, file in enumerate(files):
            rows = np.flatnonzero(codes == split)
            # Neighbouring rows are copied as one slice, which is faster than one by one.
            together = len(rows) and len(rows) == rows[-1] - rows[0] + 1
            chosen = slice(int(rows[0]), int(rows[-1]) + 1) if together else rows
            target = assignment.target(number, split, rows)
            for name, path in file.items() if len(rows) else ():
                # Mapped anew each time: pages that stay mapped would count as this process's memory.
                np.load(path, mmap_mode="r+")[target] = arrays[name][chosen]
            labels, ids = arrays["labels"][chosen], arrays["ids"][chosen]
            alone = 0 if shard.groups is None else (arrays["groups"][chosen] < 0).sum()
            missing = gone[:, chosen].sum(axis=1)
            weight = float(shard.weights[chosen].sum(dtype=np.float64)) if shard.weights is not None else 1.0
            counts.append(
                (np.array([len(rows), labels.sum(), alone, weight, *missing]), (ids == UNKNOWN_ID).sum(axis=0))
            )
        return shard.rows, counts

    clicks, unknown = np.zeros((3, 4 + len(plan.features.numeric))), np.zeros((3, columns))
    tasks = (lambda number=number, path=path: write(number, path) for number, path in enumerate(shards))
    for rows, by_split in in_order(tasks, workers):
        progress.add(rows)
        for split, (labels, strange) in enumerate(by_split):
            clicks[split] += labels
            unknown[split] += strange
    progress.end()
    firsts = np.cumsum([0, *plan.features.slots])[:-1]
    facts = {}
    for split, name in enumerate(SPLITS):
        rows, positive, alone, weight, *missing = clicks[split].tolist()
        _check_labels(name, schema, int(rows), float(positive))
        _check_weights(name, schema, weight)
        shares = {
            feature.name: round(float(unknown[split, first] / rows), 6)
            for feature, first in zip(plan.features.categorical, firsts, strict=True)
        }
        facts[name] = {"rows": int(rows), "base_rate": float(positive / rows), "unknown": shares}
        gone = {number: round(count / rows, 6) for number, count in zip(plan.features.numeric, missing, strict=True)}
        facts[name]["missing_numbers"] = gone
        facts[name] |= {} if schema.group is None else {"without_group": int(alone)}
        if "truth" in files[split]:
            facts[name] |= _bayes(np.load(files[split]["truth"]), np.load(files[split]["labels"]))
    return {"splits": facts}


def _counter(column: Categorical) -> KeyCounter | None:
    """What counts the values of a column; None where no count is needed."""
    assert column.rows is not None
    if column.encoding == "index" or (column.encoding == "hash" and column.min_count == 1):
        return None
    # What shares rows by its hash may have more values than rows.
    return KeyCounter(column.name, column.rows - FIRST_ID if column.encoding == "vocabulary" else 1 << 40)


def _vocabulary(column: Categorical, counter: KeyCounter | None) -> Vocabulary:
    assert column.rows is not None
    hashed = column.encoding == "hash"
    if counter is None:
        return Vocabulary(column.rows, None, hashed)
    assert column.min_count is not None
    keys = counter.most_frequent(column.min_count)
    return Vocabulary(column.rows if hashed else len(keys) + FIRST_ID, keys, hashed)


def _name(texts: list[dict[int, str] | None], place: int, codes: Codes) -> None:
    """Adds the texts of a feature's values in one shard; None once there are too many."""
    known = texts[place]
    if known is None:
        return
    if codes.texts is None or len(known := known | dict(zip(codes.keys.tolist(), codes.texts, strict=True))) > NAMED:
        texts[place] = None
    else:
        texts[place] = known


def _named(vocabulary: Vocabulary, texts: Mapping[int, str] | None) -> list[str]:
    """The texts of the values that have a row of their own; empty where they are not known."""
    if texts is None or vocabulary.hashed:
        return []
    keys = range(vocabulary.rows - FIRST_ID) if vocabulary.keys is None else vocabulary.keys.tolist()
    return [texts.get(key, str(key)) for key in keys] if len(keys) <= NAMED else []


def _moments(values: NDArray[np.float64]) -> list[_Array]:
    """Count, mean, sum of squared deviations, least and largest of each row of `values`, without missing values."""
    missing = np.isnan(values)
    counts = values.shape[1] - missing.sum(axis=1)
    least, largest = (f.reduce(values, axis=1, initial=i) for f, i in ((np.fmin, np.inf), (np.fmax, -np.inf)))
    values = np.where(missing, 0, values)
    means = values.sum(axis=1) / np.maximum(counts, 1)
    values -= means[:, None]
    values[missing] = 0
    return [counts.astype(np.float64), means, np.einsum("ij,ij->i", values, values), least, largest]


def _joined(one: list[_Array], other: list[_Array]) -> list[_Array]:
    """Moments of both together (Chan, Golub and LeVeque 1979)."""
    counts = one[0] + other[0]
    share = other[0] / np.maximum(counts, 1)
    delta = other[1] - one[1]
    squares = one[2] + other[2] + delta**2 * one[0] * share
    return [counts, one[1] + delta * share, squares, np.minimum(one[3], other[3]), np.maximum(one[4], other[4])]


def encode_features(
    numeric: NDArray[np.float64], codes: Sequence[Codes], plan: EncodingPlan
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A model's inputs for what `read_features` gives: numbers [rows, N] and ids [rows, S]. Works in place.

    No number may be too far from the training rows' mean (`outliers.too_far`).
    """
    ids = np.empty((numeric.shape[1], sum(plan.features.slots)), dtype=np.int32)
    first = 0
    for column, vocabulary, feature in zip(codes, plan.vocabularies, plan.features.categorical, strict=True):
        table = vocabulary.table(column.keys)
        if column.offsets is None:
            ids[:, first] = table[column.codes]
        else:
            _fill_slots(ids[:, first : first + feature.slots], table, column)
        first += feature.slots
    return _standardised(numeric, plan), ids


def _encoded(shard: RawShard, plan: EncodingPlan, first: int) -> dict[str, _Array]:
    """The rows of a shard, of which the first has that number among all rows, in the order of the shard."""
    numeric, ids = encode_features(shard.numeric, shard.codes, plan)
    arrays: dict[str, _Array] = {"numeric": numeric, "ids": ids, "labels": shard.labels.astype(np.float32)}
    if shard.groups is not None:
        # Rows without a group are alone, and negative, so that they can be told from the others.
        alone = -1 - first - np.arange(shard.rows)
        arrays["groups"] = np.where(shard.groups == 0, alone, (shard.groups >> np.uint64(1)).astype(np.int64))
    if shard.times is not None:
        arrays["times"] = shard.times
    if shard.weights is not None:
        arrays["weights"] = shard.weights
    if shard.truth is not None:
        arrays["truth"] = shard.truth
    if shard.scores is not None:
        arrays["scores"] = shard.scores
    return arrays


def _standardised(values: NDArray[np.float64], plan: EncodingPlan) -> NDArray[np.float32]:
    """Numbers as a model sees them, [rows, N]; what is missing is the mean."""
    values -= plan.centre[:, None]
    values /= plan.scale[:, None]
    numeric = values.T.astype(np.float32)
    numeric[np.isnan(numeric)] = 0
    return numeric


def _fill_slots(target: _Array, table: NDArray[np.int32], codes: Codes) -> None:
    """Ids of a multi-hot feature: the first values of each row, then padding; one missing id where there is none."""
    assert codes.offsets is not None
    lengths = np.diff(codes.offsets)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    slot = np.arange(len(rows)) - np.repeat(codes.offsets[:-1], lengths)
    kept = slot < target.shape[1]
    target[:] = PADDING
    target[rows[kept], slot[kept]] = table[codes.codes[kept]]
    target[lengths == 0, 0] = MISSING_ID


def _kinds(plan: EncodingPlan, columns: int, shard: RawShard) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and further dimensions of what is kept of each row."""
    kinds: dict[str, tuple[type, tuple[int, ...]]] = {"labels": (np.float32, ())}
    if plan.features.numeric:  # an array without elements could not be mapped
        kinds["numeric"] = (np.float32, (len(plan.features.numeric),))
    if columns:
        kinds["ids"] = (np.int32, (columns,))
    optional = {
        "groups": (np.int64, shard.groups),
        "times": (np.int64, shard.times),
        "weights": (np.float32, shard.weights),
        "truth": (np.float32, shard.truth),
        "scores": (np.float32, shard.scores),
    }
    return kinds | {name: (kind, ()) for name, (kind, values) in optional.items() if values is not None}


def _create(folder: Path, split: str, rows: int, kinds: dict[str, tuple[type, tuple[int, ...]]]) -> dict[str, Path]:
    """The files of a split, to be filled."""
    files = {name: folder / f"{split}.{name}.npy" for name in kinds}
    for name, (dtype, shape) in kinds.items():
        np.lib.format.open_memmap(files[name], mode="w+", dtype=dtype, shape=(rows, *shape))
    return files


def _check_labels(split: str, schema: TableSchema, rows: int, positive: float) -> None:
    if positive in (0, rows):
        assert schema.label is not None
        raise DataError(
            f"Split {split}: all {rows:,} labels (column {schema.label.name!r}) are {int(positive > 0)}, so nothing "
            "can be learnt or measured. Is the file sorted by its label? Then use task.data.split=hash; else check the "
            "label column, or give more rows."
        )


def _check_weights(split: str, schema: TableSchema, total: float) -> None:
    if not 0 < total <= _HEAVIEST:
        told = "all are 0" if total == 0 else f"their sum is {total:.1e}, which sums in float32 do not hold"
        raise DataError(
            f"Split {split}: the weights (column {short(repr(schema.weight), 60)}) cannot be used, as {told}. Divide "
            f"them in the file, so that their sum is above 0 and at most {_HEAVIEST:g}."
        )


def _bayes(truth: _Array, labels: _Array) -> dict[str, float]:
    """Normalised entropy of the probabilities that generated the labels: realised, and expected over labels."""
    p = np.clip(np.asarray(truth, dtype=np.float64), 1e-9, 1 - 1e-9)

    def entropy(rate: Any, p: Any) -> float:
        return float(np.mean(-(rate * np.log(p) + (1 - rate) * np.log1p(-p))))

    base, mean = float(labels.mean(dtype=np.float64)), float(p.mean())
    return {
        "bayes_ne": entropy(labels, p) / entropy(base, base),
        "bayes_ne_expected": entropy(p, p) / entropy(mean, mean),
    }
