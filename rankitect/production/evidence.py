"""What every example of the test data says about every model that was measured: the rows behind a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.files import write_atomically
from rankitect.data.tensors import described, opened_tensors
from rankitect.documents import read_json
from rankitect.errors import RunFolderError, brief

__all__ = ["FACTS", "LOSSES", "ROWS", "Evidence", "Slicing", "load_evidence", "read_losses", "save_facts", "save_rows"]

ROWS = "rows.safetensors"
LOSSES = "losses.safetensors"
FACTS = "data.json"
_DAY = 86_400_000_000  # microseconds
_ARRAYS = ("labels", "weights", "clusters", "days")
_CLICKS = {
    "examples": "rows",
    "clusters": "users",
    "limits": "offline quality on logged rows: what the live model did not show has no label, so a better offline "
    "metric is a reason to test, not to launch",
    "privacy": "identifiers are hashed into table rows; whoever holds the weights can test whether one was trained on",
}
"""Facts about rows of clicks, where a run does not record others."""
_TEXT = {
    "examples": "windows of text",
    "clusters": "documents",
    "limits": "perplexity on held-out text: what the model says to people, and in other domains and languages, needs "
    "its own evaluation",
    "privacy": "a pruned model keeps what its backbone has memorised of its training text",
}
"""The same about windows of text."""


@dataclass(frozen=True, eq=False)
class Slicing:
    """A division of the rows by a feature.

    Attributes:
        name: The feature, or what else divides them.
        codes: The part that each row is in, [N]; -1 for none.
        parts: Names of the parts.
    """

    name: str
    codes: NDArray[np.int16]
    parts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Rows of the test data and the models' losses on them.

    Attributes:
        metric: "normalized_entropy", of clicks; or "perplexity", of windows of text.
        losses: Nats of each training seed's model on each row, [S, N], by fingerprint of the architecture.
        labels: From 0 to 1, [N]; None with text.
        weights: [N], or None where all rows count the same.
        clusters: Number of the user or document of each row, [N], or None.
        days: Days since 1970 (UTC) of each row, [N], or None.
        slicings: Divisions of the rows.
        facts: About the data, for reports: `data`, `fingerprint`, `train_rows`, `train_base_rate`, `label`, …; what
            the rows are called (`examples`, `clusters`), and what a model of such data must not be used for (`limits`,
            `privacy`).
        before: Examples and clicks of each cluster before the test data, in the order of its number, [C, 2], or None.
        predicted: Predicted probabilities, as `losses`, of models that were judged by labels between 0 and 1.
    """

    metric: str
    losses: Mapping[str, NDArray[np.float32]]
    labels: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    clusters: NDArray[np.int64] | None = None
    days: NDArray[np.int64] | None = None
    slicings: Sequence[Slicing] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    before: NDArray[np.int64] | None = None
    predicted: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = _TEXT if self.labels is None else _CLICKS
        object.__setattr__(self, "facts", {**known, **self.facts})

    @cached_property
    def rows(self) -> int:
        """Number of rows."""
        return next((v.shape[1] for v in self.losses.values()), 0 if self.labels is None else len(self.labels))

    @property
    def of_clicks(self) -> bool:
        """Whether rows are clicks and not text."""
        return self.labels is not None

    @property
    def examples(self) -> str:
        """What rows are called: "rows", "windows of text"."""
        return str(self.facts["examples"])

    @property
    def clusters_named(self) -> str:
        """What clusters are called: "users", "documents"."""
        return str(self.facts["clusters"])

    def predictions(self, fingerprint: str) -> NDArray[np.float64]:
        """Predicted click probabilities, [S, N]: a log-loss and its label give the prediction back, if that is 0 or 1;
        for other labels, by which two predictions have the same loss, they are kept.

        Raises:
            ValueError: The rows are text.
        """
        if self.labels is None:
            raise ValueError("windows of text have no predicted probability")
        if fingerprint in self.predicted:
            return self.predicted[fingerprint].astype(np.float64)
        right = np.exp(-self.losses[fingerprint].astype(np.float64))
        wrong = -np.expm1(-self.losses[fingerprint].astype(np.float64))
        return np.where(self.labels > 0.5, right, wrong)


def save_rows(
    path: Path,
    labels: NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
    times: NDArray[Any] | None = None,
    slicings: Sequence[Slicing] = (),
    facts: Mapping[str, Any] | None = None,
    before: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """Write what is known of the test rows, next to the losses that trials keep.

    Args:
        path: The file.
        labels: [N].
        weights: [N].
        groups: Any whole number that is the same for the rows of one user, [N].
        times: Microseconds since 1970, [N].
        slicings: Divisions of the rows.
        facts: About the data.
        before: Examples and clicks of each group before the test data.

    Raises:
        OSError: The disk is full.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {"labels": np.asarray(labels, np.float32)}
    if weights is not None:
        arrays["weights"] = np.asarray(weights, np.float32)
    if groups is not None:
        distinct, codes = np.unique(np.asarray(groups), return_inverse=True)
        arrays["clusters"] = codes.astype(np.int64)
        if before is not None:
            arrays["before"] = np.asarray([before.get(int(g), (0, 0)) for g in distinct], np.int64).reshape(-1, 2)
    if times is not None:
        arrays["days"] = np.asarray(times) // _DAY
    for place, slicing in enumerate(slicings):
        arrays[f"slicing{place}"] = slicing.codes.astype(np.int16)
    about = {
        "metric": "normalized_entropy",
        "slicings": [{"name": s.name, "parts": list(s.parts)} for s in slicings],
        "facts": dict(facts or {}),
    }
    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    write_atomically(path, lambda part: save_file(whole, part, {"about": json.dumps(about)}))


def save_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what a report needs to know of a text.

    Raises:
        OSError: The disk is full.
    """
    text = json.dumps(dict(facts), indent=1) + "\n"
    write_atomically(folder / FACTS, lambda part: part.write_text(text, encoding="utf-8"))


def load_evidence(folder: Path) -> Evidence | None:
    """The rows of a run folder: clicks from `rows.safetensors`, text from `examples.json`; None where it has neither.

    Raises:
        RunFolderError: A file of them is damaged, or the losses of a model are of other rows.
    """
    if (folder / ROWS).is_file():
        return _clicks(folder)
    return _text(folder / "examples.json") if (folder / "examples.json").is_file() else None


def _clicks(folder: Path) -> Evidence:
    wrong = f"{brief(folder / ROWS)} is damaged. Repeat the search's command, which writes the file again"
    with opened_tensors(folder / ROWS, "numpy", wrong, RunFolderError) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        about = described(file, "about")
        named = [(s["name"], tuple(s["parts"])) for s in about["slicings"]]
        slicings = [Slicing(name, arrays[f"slicing{i}"], parts) for i, (name, parts) in enumerate(named)]
        known = {name: arrays.get(name) for name in _ARRAYS}
        metric, facts, rows = about["metric"], about["facts"], len(arrays["labels"])
    losses, predicted = _losses(folder, rows)
    before = arrays.get("before")
    return Evidence(metric, losses, slicings=slicings, facts=facts, before=before, predicted=predicted, **known)


def read_losses(path: Path) -> dict[str, NDArray[np.float32]]:
    """A model's `losses` on each test row, [N], as its trial keeps them, and its `predictions` where labels are soft.

    Raises:
        RunFolderError: The file is damaged.
    """
    wrong = (
        f"{brief(path)} is damaged. Repeat the search's command, which measures these rows again, or goes on without "
        "them"
    )
    with opened_tensors(path, "numpy", wrong, RunFolderError) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {"losses": arrays["losses"], **arrays}


def _losses(folder: Path, rows: int) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Losses and predictions of all seeds by fingerprint, from the trials that keep them."""
    prints = {str(t["fingerprint"])[:8]: str(t["fingerprint"]) for t in _known(folder)}
    by_model: dict[str, list[dict[str, NDArray[np.float32]]]] = {}
    for path in sorted((folder / "trials").glob(f"*/{LOSSES}")):
        fingerprint = prints.get(path.parent.name.rpartition("-")[2])
        if fingerprint is None:
            continue
        values = read_losses(path)
        if len(values["losses"]) == rows:
            by_model.setdefault(fingerprint, []).append(values)

    def stacked(name: str) -> dict[str, NDArray[np.float32]]:
        return {
            fingerprint: np.stack([values[name] for values in seeds])
            for fingerprint, seeds in by_model.items()
            if all(name in values for values in seeds)
        }

    return stacked("losses"), stacked("predictions")


def _known(folder: Path) -> list[dict[str, Any]]:
    """Models that summary.json names."""
    summary = read_json(folder / "summary.json", dict[str, Any], RunFolderError)
    return [item for item in (*summary["pareto"], *summary["baselines"]) if item.get("fingerprint")]


def _text(path: Path) -> Evidence:
    try:
        examples = read_json(path, dict[str, Any], RunFolderError)
        more = examples.get("more_seeds", {})
        losses = {str(k): np.asarray([v, *more.get(k, [])], np.float32) for k, v in examples["models"].items()}
        clusters = np.asarray(examples["clusters"], np.int64)
        if clusters.ndim != 1 or any(v.ndim != 2 or v.shape[1] != len(clusters) for v in losses.values()):
            raise ValueError("a model has another number of windows")
        facts = path.with_name(FACTS)
        known = read_json(facts, dict[str, Any], RunFolderError) if facts.is_file() else {}
        return Evidence(str(examples["metric"]), losses, clusters=clusters, facts=known)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}). Repeat the search's command: it writes the file again."
        ) from error
