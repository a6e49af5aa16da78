"""What a report's numbers were made of, as one hash; and whether a report still says what its run folder says."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankitect.data.files import file_sha256
from rankitect.errors import RunFolderError
from rankitect.production.evidence import FACTS, LOSSES, ROWS
from rankitect.reports.cards import JSON
from rankitect.reports.case import Case
from rankitect.reports.run import Run
from rankitect.space.architecture import Architecture
from rankitect.study.audit import problem_of_store
from rankitect.study.files import is_within
from rankitect.study.summary import CandidateSummary
from rankitect.study.trials_table import TRIALS

__all__ = ["ReportCheck", "compared", "reproduction_of"]

_FILES = ("config.yaml", "summary.json", "trials.csv", ROWS, FACTS, "examples.json", "answers.json", "contrasts.json")


def reproduction_of(run: Run, case: Case | str) -> dict[str, JSON]:
    """What decides the report, and the hash over all of it.

    Args:
        run: The run.
        case: The production comparison, if there is one.

    Returns:
        `architecture` and `baseline` (fingerprints), `code`, `config`, `data`, `seeds`, `versions`, `files` (SHA-256 of
        what the report was made from, by path) and `hash`.
    """
    summary = run.summary
    compared_models = ("", "") if isinstance(case, str) else case.prints
    facts: Mapping[str, Any] = {} if isinstance(case, str) or case.evidence is None else case.evidence.facts
    seeds = {t.seed for t in run.trials}
    parts: dict[str, JSON] = {
        "architecture": compared_models[0],
        "baseline": compared_models[1],
        "code": summary.versions.get("commit", ""),
        "config": hashlib.sha256(run.config.encode()).hexdigest(),
        "data": str(facts.get("fingerprint", "")),
        "seeds": [*sorted(seeds)] or [summary.seed],
        "versions": dict(sorted(summary.versions.items())),
        "files": dict(_files(run)),
    }
    text = json.dumps(parts, sort_keys=True)
    return {**parts, "hash": hashlib.sha256(text.encode()).hexdigest()}


def _files(run: Run) -> Iterator[tuple[str, JSON]]:
    """Hashes of what the numbers come from, and of what would be deployed."""
    paths = [run.folder / name for name in _FILES]
    paths += [run.folder / path for c in run.summary.pareto for path in sorted(c.artifacts.values())]
    paths += sorted((run.folder / "trials").glob(f"*/{LOSSES}"))
    for path in dict.fromkeys(paths):
        # A summary that came from elsewhere names no others.
        if path.is_file() and is_within(path, run.folder):
            yield path.relative_to(run.folder).as_posix(), file_sha256(path)


@dataclass(frozen=True)
class ReportCheck:
    """One thing that was checked.

    Attributes:
        name: What.
        ok: Whether it holds.
        found: What was found, in a sentence.
    """

    name: str
    ok: bool
    found: str


def compared(report: Mapping[str, Any], now: Mapping[str, Any], run: Run) -> list[ReportCheck]:
    """Hold a report against one made anew from the run folder.

    Args:
        report: What report.json holds.
        now: What it would hold now.
        run: The run.

    Raises:
        RunFolderError: The report is of a version that kept no hash.
    """
    if "reproduction" not in report:
        raise RunFolderError("The report has no hash: it is of an older version. Write it again, then verify that.")
    then, today = report["reproduction"], now["reproduction"]
    return [_hash_check(then), *_part_checks(then, today), *_store(run), _fingerprints(run), _numbers(report, now)]


def _hash_check(then: Mapping[str, Any]) -> ReportCheck:
    parts = {k: v for k, v in then.items() if k != "hash"}
    computed = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    ok = computed == then.get("hash")
    return ReportCheck(
        "hash", ok, f"{computed[:16]} over all parts" if ok else "the parts do not give the report's hash"
    )


def _part_checks(then: Mapping[str, Any], today: Mapping[str, Any]) -> Iterator[ReportCheck]:
    for name in ("architecture", "baseline", "code", "config", "data", "seeds", "versions"):
        ok = then.get(name) == today[name]
        text = "as the run folder says" if ok else f"the report says {then.get(name)!r}, the run folder {today[name]!r}"
        yield ReportCheck(name, ok, text[:300])
    before, after = then.get("files", {}), today["files"]
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    text = f"{len(after)} files as they were" if not changed else f"changed, gone or new: {', '.join(changed[:5])}"
    yield ReportCheck("files", not changed, text)


def _store(run: Run) -> Iterator[ReportCheck]:
    """Whether the trials are in order where they are kept; nothing where the folder came without."""
    path = run.folder / "study.db"
    if path.exists():
        problem = problem_of_store(path, run.trials)
        yield ReportCheck(
            path.name, not problem, problem or f"in order, and has the {len(run.trials)} trials of {TRIALS}"
        )


def _fingerprints(run: Run) -> ReportCheck:
    candidates = run.summary.pareto
    wrong = [c.rank for c in candidates if _fingerprint(c) != c.fingerprint]
    text = f"of {len(candidates)} architectures as recorded" if not wrong else f"wrong for candidates {wrong}"
    return ReportCheck("fingerprints", not wrong, text)


def _fingerprint(candidate: CandidateSummary) -> str:
    """The fingerprint that the recorded choices have."""
    return Architecture.from_json(json.dumps(candidate.architecture)).fingerprint


def _numbers(report: Mapping[str, Any], now: Mapping[str, Any]) -> ReportCheck:
    """Every number and word of the cards, recomputed."""
    one, other = (dict(_leaves({"cards": r["cards"], "tiles": r["tiles"]})) for r in (report, now))
    different = sorted(path for path in {*one, *other} if not _same(one.get(path), other.get(path)))
    text = f"{len(other)} values recomputed, all the same"
    if different:
        path = different[0]
        text = f"{len(different)} of {len(other)} differ; first {path}: {one.get(path)!r}, now {other.get(path)!r}"
    return ReportCheck("numbers", not different, text[:300])


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, value


def _same(one: object, other: object) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other
