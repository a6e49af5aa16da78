"""Loading a candidate, whatever task it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rankitect.errors import AssetError
from rankitect.models.candidate.base import Candidate, read_candidate
from rankitect.models.candidate.folder import CARD, WEIGHTS, CandidateFolder, brief
from rankitect.models.candidate.gguf import load_gguf_candidate
from rankitect.models.candidate.huggingface import load_by_layer
from rankitect.models.candidate.images import read_image_classifier
from rankitect.models.candidate.language import read_language
from rankitect.models.candidate.ranking import FEATURES, RankingCandidate, read_old_ranker, read_ranker
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints.gguf_file import is_gguf
from rankitect.models.checkpoints.own_code import IDENTITY

__all__ = ["load_candidate", "load_language_model", "load_ranker"]

_C = TypeVar("_C", bound=Candidate)
_ELSEWHERE = (
    ("candidates", "it is a run folder: give one of the folders in its candidates/"),
    ("program.json", "it holds an exported program: rankitect.deploy.artifact.load reads it"),
    ("ranker.json", "it holds an exported program alone, without the candidate that it was made from"),
    ("config.json", "it is a Hugging Face folder: rankitect.models.checkpoints.load_checkpoint reads it"),
)
"""What else a folder may be, by a file or folder that gives it away."""
_READERS = {
    "language": read_language,
    "ranking": read_ranker,
    "vision": read_image_classifier,
    "other": read_candidate,
}


def load_candidate(
    folder: str | Path, *, verify: bool = True, allowed_packages: Sequence[str] = ("rankitect",)
) -> Candidate:
    """Read a candidate back, equal to the bit.

    >>> candidate = load_candidate("runs/my-search/candidates/01-1f0c9a44")  # doctest: +SKIP
    >>> candidate.score(rows)  # doctest: +SKIP

    Args:
        folder: A folder in a run folder's candidates/, or a copy of one; nothing else is needed. Or what
            was made from one: a GGUF file, or a Hugging Face folder whose layers differ.
        verify: Compare every file's SHA-256 with the card's (0.3 s for half a gigabyte); sizes are always compared.
        allowed_packages: Where the space's blocks may come from; a folder can run no code from elsewhere.

    Returns:
        A `LanguageCandidate`, a `RankingCandidate`, an `ImageCandidate` or, for a task of one's own, a `Candidate`.

    Raises:
        AssetError: A file is missing, truncated, altered or of another schema, or the files contradict each other.
    """
    folder = Path(folder)
    if _is_file(folder) and is_gguf(folder):
        return load_gguf_candidate(folder, allowed_packages)
    if _is_file(folder / IDENTITY) and not _is_file(folder / CARD):
        return load_by_layer(folder, allowed_packages)
    if not _is_file(folder / CARD):
        if _is_file(folder / FEATURES) and _is_file(folder / WEIGHTS):
            return read_old_ranker(folder, allowed_packages)
        raise AssetError(_what_it_is(folder))
    opened = CandidateFolder(folder)
    return _READERS[opened.task](opened, verify, allowed_packages)


def load_language_model(
    folder: str | Path, *, verify: bool = True, allowed_packages: Sequence[str] = ("rankitect",)
) -> LanguageCandidate:
    """`load_candidate` for a language model. Arguments as there.

    Raises:
        AssetError: As there, and where the candidate is of another task.
    """
    candidate = load_candidate(folder, verify=verify, allowed_packages=allowed_packages)
    return _as(LanguageCandidate, candidate, folder, "language model")


def load_ranker(
    folder: str | Path, *, verify: bool = True, allowed_packages: Sequence[str] = ("rankitect",)
) -> RankingCandidate:
    """`load_candidate` for a ranker. Arguments as there.

    Raises:
        AssetError: As there, and where the candidate is of another task.
    """
    candidate = load_candidate(folder, verify=verify, allowed_packages=allowed_packages)
    return _as(RankingCandidate, candidate, folder, "ranker")


def _as(kind: type[_C], candidate: Candidate, folder: str | Path, called: str) -> _C:
    if not isinstance(candidate, kind):
        raise AssetError(f"{brief(folder, 200)} is no {called}: load_candidate reads it.")
    return candidate


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _what_it_is(folder: Path) -> str:
    """A sentence for a folder without a card."""
    place = brief(folder, 200)
    try:
        names = {entry.name for entry in folder.iterdir()}
    except (OSError, ValueError) as error:
        return f"{place} is no candidate: it cannot be opened as a folder ({brief(error, 80)})."
    for name, what in _ELSEWHERE:
        if name in names:
            return f"{place} has no {CARD}; {what}."
    return (
        f"{place} has no {CARD}, so it is no candidate, or writing it was interrupted. Give one of the folders in a "
        "run folder's candidates/."
    )
