"""Candidates of a finished search as programs of the mobile runtime."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rankitect.data.windows import TextWindows
from rankitect.deploy.candidate_program import ProgramSettings
from rankitect.deploy.formats import export_candidate
from rankitect.deploy.held_out import open_given, text_of_file, text_of_run
from rankitect.errors import ConfigError, DataError, RunFolderError
from rankitect.export import main as export
from rankitect.graph import Architecture
from rankitect.models.candidate import load_language_model, save_candidate
from rankitect.run_pte import main as run_program
from rankitect.terminal import say
from tests.models.test_gguf_candidates import BACKBONE, DIFFERENT, TINY, USAGE, tokenizer, variant


def saved(folder: Path, architecture: Architecture) -> Path:
    model = BACKBONE.inherit(architecture)
    options = {"config": TINY, "usage": USAGE, "huggingface": False}
    save_candidate(folder, BACKBONE.space, architecture, model, tokenizer(), **options)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("candidate")
    return saved(path, DIFFERENT)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run folder says of its text."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {n} says the same again, but for its number." for n in range(200)))
    task = {"text": str(text), "field": "text", "text_limit": None, "context": 20, "split_seed": 3, "begin": None}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps({"seed": 1, "task": task, "space": {}}))
    opened = TextWindows.open(tokenizer(), text, context=20, split_seed=3)
    (run / "data.json").write_text(json.dumps({"data": "text.txt", "fingerprint": opened.text.fingerprint}))
    return run


@pytest.mark.slow
def test_a_candidate_becomes_a_folder_that_runs_and_is_compared_on_the_text_of_its_run(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch")
    before = {file.name for file in folder.iterdir()}
    place, notes = export_candidate(folder, "executorch", program=ProgramSettings(prompt=6), run=run)
    assert place == folder / "executorch"
    assert {file.name for file in folder.iterdir()} == {*before, "executorch"}
    assert notes[0] == "float32, prompts of 6 tokens, sequences of 64"
    assert re.search(r"perplexity .* \([+-]0\.0%\)", notes[1])
    card = json.loads((place / "program.json").read_text())
    assert (card["layout"]["prompt"], card["layout"]["capacity"]) == (6, 64)
    assert card["notes"] == {"candidate": DIFFERENT.fingerprint, "unmeasured": None}
    candidate = load_language_model(folder)
    assert run_program([str(place), "--prompt", "the", "--tokens", "8"]) == 0
    told = capsys.readouterr().out
    say(f"the{candidate.generate('the', 8)}")
    assert told == capsys.readouterr().out


@pytest.mark.slow
def test_a_program_in_few_bits_whose_text_is_gone_says_that_it_was_not_compared(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    (tmp_path / "text.txt").unlink()
    settings, folder = ProgramSettings("8da4w", prompt=4, capacity=8), saved(tmp_path / "candidate", variant(ffn=32))
    place, notes = export_candidate(folder, "executorch", tmp_path / "program", program=settings, run=run)
    assert notes[0].startswith("8da4w, ")
    assert "was not measured: the run's text" in notes[1]
    card = json.loads((place / "program.json").read_text())
    assert card["quality"] is None
    assert "is not here" in card["notes"]["unmeasured"]


def test_what_does_not_fit_is_refused_before_a_program_is_made(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    out = tmp_path / "program"
    for settings, problem in (
        (ProgramSettings(capacity=65), "capacity=65: the backbone was made for sequences of at most 64 tokens"),
        (ProgramSettings(prompt=64), "prompt=64: the backbone was made for"),
        (ProgramSettings(text=str(tmp_path / "none.txt")), "there is no such file or folder"),
    ):
        with pytest.raises(ConfigError, match=problem):
            export_candidate(folder, "executorch", out, program=settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("q8_0", None, None), "precision=q8_0 is none of float32, 8da4w"),
        ((None, "0", None), "prompt=0: allowed are whole numbers from 1 to"),
        ((None, "many", None), "prompt=many: allowed"),
        ((None, None, "9" * 5000), "capacity=9+.*: allowed are whole numbers from 2"),
        ((None, "300", None), "prompt=300, and capacity= is missing, which would be 256"),
        ((None, "30", "30"), "prompt=30, and capacity=30: it must be more"),
    ],
)
def test_words_of_the_command_are_checked(words: tuple[str | None, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as told:
        ProgramSettings.of(*words, None)
    assert len(str(told.value)) <= 500


def test_the_text_of_a_run_is_its_test_split(folder: Path, run: Path, tmp_path: Path) -> None:
    opened = TextWindows.open(tokenizer(), tmp_path / "text.txt", context=20, split_seed=3, seed=1)
    windows = text_of_run(run, load_language_model(folder))
    assert windows.equal(opened.held_out())
    assert 1 < len(windows) <= 16


def test_another_text_than_the_runs_is_not_taken_for_it(folder: Path, run: Path, tmp_path: Path) -> None:
    candidate, config = load_language_model(folder), run / "config.yaml"
    with (tmp_path / "text.txt").open("a") as file:
        file.write("\n\nOne more paragraph.")
    with pytest.raises(DataError, match="no longer the text that the run was judged by"):
        text_of_run(run, candidate)
    for text, problem in (("s3://bucket/text.txt", "no file of this machine"), ("", "no text of this kind")):
        config.write_text(json.dumps({"task": {"text": text}}))
        with pytest.raises(DataError, match=problem):
            text_of_run(run, candidate)
    (run / "data.json").unlink()
    with pytest.raises(DataError, match="does not say which text"):
        text_of_run(run, candidate)


@pytest.mark.parametrize(
    "task", [{"text": 3}, {"context": 0}, {"split_seed": -1}, {"text_limit": 0}, {"begin": "x"}, None, "x" * 5000]
)
def test_a_damaged_run_folder_is_refused(folder: Path, run: Path, tmp_path: Path, task: object) -> None:
    given = {"text": str(tmp_path / "text.txt"), **task} if isinstance(task, dict) else task
    (run / "config.yaml").write_text(json.dumps({"task": given}))
    with pytest.raises(RunFolderError, match=r"config\.yaml") as told:
        text_of_run(run, load_language_model(folder))
    assert len(str(told.value)) <= 500


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b", "/dev/zero", "/proc/self/mem", "\x1b[2J.txt"])
def test_strange_names_of_texts_are_no_texts(folder: Path, run: Path, text: str) -> None:
    (run / "config.yaml").write_text(json.dumps({"task": {"text": text}}))
    with pytest.raises(DataError) as told:
        text_of_run(run, load_language_model(folder))
    assert len(str(told.value)) <= 500
    with pytest.raises(ConfigError) as told_too:
        open_given(text)
    assert len(str(told_too.value)) <= 500


def test_a_text_that_is_named_is_read_from_its_beginning(folder: Path, tmp_path: Path) -> None:
    candidate, text = load_language_model(folder), tmp_path / "own.txt"
    text.write_text("the end of the text\n" * 3)
    windows = text_of_file(open_given(str(text)), candidate, 10)
    assert windows.shape[1] == 10
    assert text.read_text().startswith(candidate.tokenizer.decode(windows.flatten().tolist()))
    text.write_text("e")
    with pytest.raises(ConfigError, match=r"own\.txt has 1 tokens"):
        text_of_file(open_given(str(text)), candidate, 10)


def test_keys_of_programs_are_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([f"run={tmp_path}", "to=csv", "prompt=3"]) == 2
    assert "prompt= is for to=gguf, huggingface, decilm, executorch" in capsys.readouterr().err
