"""What a page leads with, what it folds away, and the commands that it ends a reader's visit with."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rankitect import baseline, export, report, run_pte, verify
from rankitect.command_line import pairs, split_words
from rankitect.config.compose import compose
from rankitect.reports.page import Content, content_of
from rankitect.reports.run import Run, load_run
from rankitect.reports.section import Section
from rankitect.reports.sections import sections
from rankitect.study.summary import Summary
from rankitect.terminal import Parser
from tests.production.rows import evidence
from tests.reports.example import CANDIDATES, COMPARISON, fingerprint, pruned, summary, write_example

SEARCH = "python -m rankitect.search space=mobile_llm controller=random preset=smoke confirm.seeds=1"
CONFIG: dict[str, Any] = {
    "task": {"target": "rankitect.tasks.language.task.Language"},
    "confirm": {"seeds": 1},
    "runner": {"baselines": True},
    "output_dir": "runs/my try's",
}


def language(folder: Path, config: dict[str, Any] = CONFIG, **keys: Any) -> Run:
    """A search over language models, with keys of its summary replaced."""
    run = load_run(write_example(folder / "run"))
    data = summary() | {"reproduce": SEARCH} | keys
    return Run(run.folder, Summary.model_validate(data), (), "no trials", json.dumps(config), "run")


def own(folder: Path) -> Run:
    """A search of a space and a task of one's own, which names no baseline."""
    config = CONFIG | {"task": {"target": "my_task.Rings"}, "allowed_packages": ["rankitect", "my_task"]}
    return language(folder, config, space="rings", task="rings", baselines=[])


def ranking(folder: Path) -> Run:
    """A search over rankers, with the rows of the candidate of rank 1 and the first baseline."""
    run = language(folder)
    rows = evidence(2000)
    ours, theirs = (list(rows.losses.values())[i] for i in (0, 1))
    prints = fingerprint(pruned(CANDIDATES[0][0], 1)), run.summary.baselines[0].fingerprint
    vars(rows)["losses"] = dict(zip(prints, (ours, theirs), strict=True))
    vars(run)["evidence"] = rows
    return run


def shown(run: Run) -> list[str]:
    return [card.id for card in content_of(run).layout.shown]


@pytest.mark.parametrize(
    ("kind", "head", "first"),
    [
        (language, "verdict", ["front", "candidates", "verdict", "next"]),
        (own, "front", ["front", "candidates", "next"]),
        (ranking, "launch", ["launch", "warnings", "next", "quality"]),
    ],
)
def test_a_page_leads_with_what_matters_to_its_reader(
    tmp_path: Path, kind: Callable[[Path], Run], head: str, first: list[str]
) -> None:
    config = CONFIG | {"report": {"gates": {"quality": {"metric": "quality", "at_most": 0.0}}}}
    run = kind(tmp_path)
    vars(run)["config"] = json.dumps(json.loads(run.config) | {"report": config["report"]})
    layout = content_of(run).layout
    assert [card.id for card in layout.shown][: len(first)] == first
    assert layout.head.id == head


def test_whoever_says_what_is_live_gets_the_comparison_first(tmp_path: Path) -> None:
    gates = {"quality": {"metric": "quality", "at_most": 0.0}}
    named = language(tmp_path, CONFIG | {"report": {"baseline": "uniform width 75%", "gates": gates}})
    assert shown(named)[0] == "launch"
    lost = language(tmp_path, baselines=[], left_out={"old v1": "it does not fit"})
    assert content_of(lost).layout.head.id == "launch", "what is live could not be measured: that comes first"


def test_cards_that_do_not_apply_are_folded_into_one_line(tmp_path: Path) -> None:
    run = own(tmp_path)
    content = content_of(run)
    folded = [card.id for card in content.layout.folded]
    assert set(folded) >= set(COMPARISON)
    assert not {*folded} & {*shown(run)}
    assert sorted([*folded, *shown(run)]) == sorted(card.id for card in content.cards), "none is lost"
    assert "runner.baselines=true" not in said(content), "it is set"
    whys = [fold.why for fold in content.layout.folds]
    assert len(whys) == len(set(whys))


def said(content: Content) -> str:
    return " ".join(text for card in content.cards for text in (card.finding, card.reason))


def test_the_page_says_once_why_cards_are_folded(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "run")
    (folder / "summary.json").write_text(json.dumps(summary() | {"baselines": []}), encoding="utf-8")
    assert report.main([f"run={folder}", "--quiet"]) == 0
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    data = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    for fold in data["layout"]["folded"]:
        assert page.count(f": {fold['why']}</li>".replace("'", "&#39;")) == 1
        for id_ in fold["cards"]:
            assert f'<section id="{id_}"' not in page
            assert f'<b id="{id_}">' in page, "links to it still lead somewhere"
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert text.count("## Not in this report") == 1


def test_the_layout_is_said_in_the_data_and_the_place_follows_the_lead() -> None:
    for lead in ("production", "search"):
        assert len({section.place(lead) for section in sections()}) == len(sections())  # type: ignore[arg-type]

    class Late(Section):
        id, short, order = "late", "Late", 500

        def facts(self, material: object) -> None:
            return None

    assert Late().place("search") == Late().place("production") == 500


# --- the box "What next" ----------------------------------------------------------------------------------------------
def steps(run: Run) -> dict[str, str]:
    (card,) = (card for card in content_of(run).cards if card.id == "next")
    return dict(card.code)


def words_of(command: str) -> tuple[str, list[str]]:
    """The module that a command runs, and its arguments as a shell gives them to it."""
    python, m, module, *rest = shlex.split(command)
    assert (python, m) == ("python", "-m")
    return module, rest


class _Parsed(Exception):
    """Carries what a command's own parser made of its arguments."""


def parsed(module: Any, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command's own parser makes of some arguments, without doing any work."""
    caught: list[argparse.Namespace] = []
    for name in ("parse_args", "parse_intermixed_args"):
        parse = vars(argparse.ArgumentParser)[name]

        def catch(self: Parser, *args: Any, parse: Callable[..., Any] = parse, **keys: Any) -> None:
            caught.append(parse(self, *args, **keys))
            raise _Parsed

        monkeypatch.setattr(Parser, name, catch)
    with pytest.raises(_Parsed):
        module.main(arguments)
    monkeypatch.undo()
    return caught[0]


COMMANDS = {"export": export, "report": report, "verify": verify, "baseline": baseline, "run_pte": run_pte}


def delivered(run: Run) -> Run:
    """The same run, whose candidates were exported for a device."""
    for candidate in run.summary.pareto:
        candidate.artifacts.update(program="candidates/p/model.pte", tokenizer="candidates/p/tokenizer.json")
        candidate.artifacts["card"] = "candidates/p/candidate.json"
    return run


@pytest.mark.parametrize("kind", [language, own, ranking, lambda folder: delivered(language(folder))])
def test_every_command_of_the_box_is_one_that_its_parser_takes(
    tmp_path: Path, kind: Callable[[Path], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = steps(kind(tmp_path))
    commands = [text for text in box.values() if text.startswith("python -m ")]
    for command in commands:
        module, arguments = words_of(command)
        name = module.removeprefix("rankitect.")
        if name == "search":
            place = compose(arguments).data["output_dir"]
            assert place in (CONFIG["output_dir"], f"{CONFIG['output_dir']}-host")
            continue
        options = parsed(COMMANDS[name], arguments, monkeypatch)
        if name in ("export", "report"):
            keys = {"export": ("run", "to", "out"), "report": ("run", "baseline", "candidate", "sections")}[name]
            assert pairs(options.keys, keys)["run"] == CONFIG["output_dir"]
        elif name == "baseline":
            (given,), by_key = split_words(options.words, ("run", "candidate"))
            assert (given, by_key["run"]) == ("mobile_llm", CONFIG["output_dir"])
        elif name == "verify":
            assert options.report == Path(CONFIG["output_dir"])
        else:
            assert options.folder.startswith(CONFIG["output_dir"])
    for text in set(box.values()) - set(commands):
        ast.parse(text)


def test_the_box_has_more_seeds_load_export_and_run(tmp_path: Path) -> None:
    box = steps(language(tmp_path))
    more, load, device, *_ = box.values()
    keys = compose(words_of(more)[1]).data
    assert (keys["confirm"]["seeds"], keys["resume"]) == (3, "force")
    assert "weights" in load
    assert compose(words_of(device)[1]).data["device"]["name"] == "host"
    exported = steps(delivered(language(tmp_path)))
    assert any(text.startswith("python -m rankitect.run_pte ") for text in exported.values())
    assert any("load_candidate(" in text and "generate(" in text for text in exported.values())
    assert any("to=parquet" in text for text in exported.values())
    enough = steps(language(tmp_path, CONFIG | {"confirm": {"seeds": 3}}))
    assert not any("resume=force" in text for text in enough.values())
    assert not any("device=host" in text for text in steps(own(tmp_path)).values()), "no device knows its models"


@pytest.mark.parametrize("reproduce", ["", "no 'end", "python -m other.tool x", "rm -rf /; python -m rankitect.search"])
def test_a_command_that_is_no_search_is_not_made_one(tmp_path: Path, reproduce: str) -> None:
    box = steps(language(tmp_path, reproduce=reproduce))
    assert not any("resume=force" in text for text in box.values())


def test_what_a_strange_run_folder_says_stays_one_word_of_the_command(tmp_path: Path) -> None:
    evil = "runs/$(touch x); rm -rf 'y' `z`"
    run = language(tmp_path, CONFIG | {"output_dir": evil}, reproduce=f"{SEARCH} ; reboot")
    for text in steps(run).values():
        if text.startswith("python -m "):
            plain = re.sub(r"'[^']*'|\"'\"", "", text)
            assert not re.search(r"[;$`|&()]", plain), text
        else:
            ast.parse(text)


def test_a_run_without_candidates_has_no_box(tmp_path: Path) -> None:
    content = content_of(language(tmp_path, pareto=[]))
    assert "next" in [card.id for card in content.layout.folded]
    assert content.layout.head.id == "candidates"
