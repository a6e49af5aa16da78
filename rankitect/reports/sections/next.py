"""What to do next with what was found, as commands and lines of Python that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankitect.config.compose import quoted
from rankitect.reports.cards import Status
from rankitect.reports.case import Case
from rankitect.reports.comparison import best_of
from rankitect.reports.material import Material
from rankitect.reports.run import Run
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import FEWEST_SEEDS, CandidateSummary

_SEARCH = shlex.split("python -m rankitect.search")
_PLAIN = ("rankitect.tasks.language.", "rankitect.tasks.ranking.")
"""Tasks whose models a device can run."""


class NextSection(Section):
    """More seeds, load, export, run."""

    id, short, order = "next", "What next", 18
    search_order = 135

    def facts(self, material: Material) -> Facts:
        """Put together what can be done with the candidate that the report is about."""
        case, run = material.case, material.run
        candidate = case.candidate if isinstance(case, Case) else best_of(run, material.comparisons)
        if candidate is None:
            return Facts.missing("candidates")
        seeds = run.configured("confirm").get("seeds")
        few = isinstance(seeds, int) and seeds < FEWEST_SEEDS
        steps = tuple(_Steps(run, candidate, material.common.lead == "production").all(few))
        words = {
            "rank": candidate.rank,
            "seeds": seeds,
            "enough": FEWEST_SEEDS,
            "few": few,
            "steps": [title for title, _ in steps],
        }
        status = Status.NA if seeds is None else Status.WARN if few else Status.PASS
        return Facts(status, words, code=steps)


@dataclass(frozen=True)
class _Steps:
    """The steps for one candidate.

    Attributes:
        run: The run.
        candidate: The candidate.
        production: Whether the report leads with the production comparison.
    """

    run: Run
    candidate: CandidateSummary
    production: bool

    def all(self, few: bool) -> Iterator[tuple[str, str]]:
        """Each step: what it is for, and the command."""
        searched = _words(self.run.summary.reproduce)
        again = searched[:3] == _SEARCH
        place, rank = shlex.quote(f"run={self.run.place}"), f"candidate={self.candidate.rank}"
        if few and again:
            keys = {"confirm.seeds": str(FEWEST_SEEDS), "output_dir": _word(self.run.place), "resume": "force"}
            yield "Measure with more training seeds (what is finished is not measured again)", _changed(searched, keys)
        yield "Load the candidate in Python", self._load()
        if "program" in self.candidate.artifacts:
            if "tokenizer" in self.candidate.artifacts:
                folder = shlex.quote(self._folder)
                yield "Run the exported program", f"python -m rankitect.run_pte {folder} --prompt 'A function that'"
        elif again and self._exports:
            keys = {"device": "host", "output_dir": _word(f"{self.run.place}-host")}
            yield "Export programs for a device and time them, in a search of its own", _changed(searched, keys)
        yield "Export the trials as a table", f"python -m rankitect.export {place} to=parquet"
        if self.production:
            name = shlex.quote(self.run.summary.space)
            yield "Register the candidate once it is live", f"python -m rankitect.baseline add {name} {place} {rank}"
        others = [c.rank for c in self.run.summary.pareto if c.rank != self.candidate.rank]
        if others:
            command = f"python -m rankitect.report {place} candidate={others[0]}"
            yield "Write this report about another candidate", command
        yield "Check that the report agrees with its run", f"python -m rankitect.verify {shlex.quote(self.run.place)}"

    @property
    def _folder(self) -> str:
        return f"{self.run.place}/{self.candidate.folder}"

    @property
    def _exports(self) -> bool:
        """Whether a search for the same models can export them, and did not."""
        target = str(self.run.configured("task").get("target", ""))
        return target.startswith(_PLAIN) and not self.run.configured("device")

    def _load(self) -> str:
        """Lines of Python that open the candidate and use it."""
        files = self.candidate.artifacts
        if "card" not in files and "features" not in files:
            weights = f"{self.run.place}/{files.get('weights', self.candidate.folder)}"
            return f"from safetensors.torch import load_file\n\nweights = load_file({weights!r})  # by name"
        lines = ["import rankitect", "", f"candidate = rankitect.load_candidate({self._folder!r}{self._packages})"]
        if "features" in files:
            lines += ["probabilities = candidate.score(rows)  # a frame, or a list of dictionaries"]
        elif "tokenizer" in files:
            lines += ["print(candidate.generate('A function that', tokens=32))"]
        else:
            lines += ["model = candidate.model  # a torch.nn.Module with its weights"]
        return "\n".join(lines)

    @property
    def _packages(self) -> str:
        allowed = self.run.configuration.get("allowed_packages")
        if not isinstance(allowed, list) or allowed == ["rankitect"]:
            return ""
        return f", allowed_packages={[str(name) for name in allowed]!r}"


def _words(command: str) -> list[str]:
    """The words of a command; none where it is no command of a shell."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _word(path: str) -> str:
    """A path as the value of a key, in Hydra's grammar."""
    return (
        path if path.replace("/", "").replace("-", "").replace("_", "").isalnum() and path.isascii() else quoted(path)
    )


def _changed(words: Sequence[str], keys: Mapping[str, Any]) -> str:
    """A command with other values of some keys."""
    kept = [word for word in words if word.partition("=")[0].lstrip("+") not in keys]
    return shlex.join([*kept, *(f"{key}={value}" for key, value in keys.items())])


SECTION = NextSection()
