"""The exchanges that need no file of the user's.

`pyrit`: PyRIT's scored answers, AdvBench, and harmless requests beside them.

| source | what | label |
| --- | --- | --- |
| `pyrit-answers` | answers to requests of eight areas of harm, scored from 0 to 1 by people | unsafe from .5 on |
| `advbench` | 520 harmful behaviours (Zou et al., arXiv 2307.15043), with PyRIT's categories | unsafe |
| `pyrit-refusals` | answers of which people have said that they refuse | safe |
| `harmless-requests` | our own, in the words in which AdvBench asks; see `requests.py` | safe |

All but the last are taken out of PyRIT's wheel, which is under the licence of MIT, as AdvBench is.

`requests`: our own requests alone, harmless and harmful, for a first look where nothing can be fetched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rankitect.data.assets import asset_path
from rankitect.data.moderation.exchanges import Exchange
from rankitect.data.moderation.requests import harmful_requests, harmless_requests
from rankitect.documents import read_text, read_yaml
from rankitect.errors import DataError

__all__ = ["EMBEDDED", "PYRIT", "embedded_exchanges"]

PYRIT, REQUESTS = "pyrit", "requests"
EMBEDDED = (PYRIT, REQUESTS)
"""Names of the data in configurations."""
_AREAS = (
    "exploits",
    "hate_speech",
    "hate_speech_multi_score",
    "info_integrity",
    "privacy",
    "representational",
    "self_harm",
    "sexual",
    "violence",
    "violence_multi_score",
)
_REFUSALS = ("refusal", "refusal_extra")
_REFUSED = "1"


def embedded_exchanges(name: str = PYRIT, unsafe_from: float = 0.5) -> list[Exchange]:
    """All of them; assets are fetched where they are not on this machine.

    Args:
        name: One of `EMBEDDED`.
        unsafe_from: An answer is unsafe from this mean score of its annotators on.

    Raises:
        AssetError: A file cannot be fetched, or is not the pinned one.
    """
    if name == REQUESTS:
        return [*harmless_requests(2), *harmful_requests(9)]
    parts = (_answers(unsafe_from), _behaviours(), _refusals(), harmless_requests())
    return list({(one.prompt, one.response): one for part in parts for one in part}.values())


def _answers(unsafe_from: float) -> Iterator[Exchange]:
    for area in _AREAS:
        for row, values in _rows(f"pyrit-{area}"):
            scores = [float(value) for name, value in values.items() if name.startswith("human_score")]
            unsafe = sum(scores) / len(scores) >= unsafe_from
            category = values["harm_category"].lower()
            place = f"PyRIT's {area}, row {row}"
            yield Exchange(place, values["objective"], values["assistant_response"], unsafe, category, "pyrit-answers")


def _behaviours() -> Iterator[Exchange]:
    content = read_yaml(asset_path("pyrit-advbench"), dict[str, Any])
    for row, seed in enumerate(content["seeds"], 1):
        category = seed["harm_categories"][0].lower()
        yield Exchange(f"AdvBench, row {row}", seed["value"].strip(), "", True, category, "advbench")


def _refusals() -> Iterator[Exchange]:
    for name in _REFUSALS:
        for row, values in _rows(f"pyrit-{name}"):
            if values["human_score"] == _REFUSED:
                place = f"PyRIT's {name}, row {row}"
                yield Exchange(
                    place, values["objective"], values["assistant_response"], False, "refusal", "pyrit-refusals"
                )


def _rows(asset: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a table of PyRIT's, which begins with lines about the table."""
    path: Path = asset_path(asset)
    lines = read_text(path, DataError).splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        del lines[0]
    yield from enumerate(csv.DictReader(lines), 1)
