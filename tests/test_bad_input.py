"""Bad input of the main job: exit code 2, one sentence, no traceback, before work starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rankitect.search import main
from tests.tasks.language.tiny import own_cache

SMOKE = ["space=mobile_llm", "preset=smoke", "runner.threads=1"]


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


def gguf_of_another_kind(folder: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(folder / "gemma.gguf"), "no-such-model")
    writer.add_context_length(128)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def truncated_gguf(folder: Path) -> None:
    gguf_of_another_kind(folder)
    (folder / "half.gguf").write_bytes((folder / "gemma.gguf").read_bytes()[:40])


def few_words(folder: Path) -> None:
    (folder / "few.txt").write_text("Only a few words.\n")


def some_notes(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("mine")


def nothing(folder: Path) -> None:
    pass


BAD: list[tuple[list[str], Callable[[Path], None], str]] = [
    (["space=mobile_lm"], nothing, "Unknown space 'mobile_lm'. Did you mean 'mobile_llm'? Allowed: mobile_llm"),
    (["controller=dnaz"], nothing, "Unknown controller 'dnaz'. Did you mean 'dnas'? Allowed: "),
    (["heal.tokens=5"], nothing, "Unknown key 'heal.tokens' on the command line: it is 'recipe.heal.tokens' now."),
    (["recipe.heal.context=1000000"], nothing, "recipe.heal: The text 'pydoc-topics' is too short"),
    (["controller.sample=5"], nothing, "Did you mean 'controller.samples'"),
    (["task.context=many"], nothing, "'task.context' on the command line is 'many'"),
    (["task.context=100000"], nothing, "task.context is 100000; the backbone was made for at most"),
    (
        ["constraints.block_flops=[1.5,2.0]"],
        nothing,
        "constraints: no architecture meets them (block_flops 1.5 to 2, relative to the backbone).",
    ),
    (["constraints.block_flops=[0.9,0.5]"], nothing, "a range needs 0 <= low < high, not [0.9, 0.5]"),
    (["+constraints.latency=[0.1,0.5]"], nothing, "there is no cost 'latency' of task=language"),
    (["controller.cost=params"], nothing, "controller.cost is 'params', which no key of constraints bounds"),
    (["constraints.block_flops=0.5..0.9"], nothing, "constraints.block_flops=0.5..0.9 is an amount, in FLOP"),
    (["constraints.weight_bytes=..17"], nothing, "weight_bytes ..17"),
    (["task.backbone=gemma.gguf"], gguf_of_another_kind, "holds a model of architecture 'no-such-model'. Supported: '"),
    (["task.backbone=half.gguf"], truncated_gguf, "half.gguf"),
    (["task.backbone=nothing/here"], nothing, "nothing/here"),
    (["task.text=few.txt"], few_words, "few.txt"),
    (["task.text=nowhere.txt"], nothing, "nowhere.txt"),
    (["output_dir=notes"], some_notes, "is not a run folder"),
    (["recipe.heal.tokens=0"], nothing, "'recipe.heal.tokens' on the command line is 0"),
    (["space.name=../elsewhere"], nothing, "'space.name' on the command line is '../elsewhere'"),
    (["space=ranking_engineered", "task=language"], nothing, "(HasFeatures), which task=language"),
]


@pytest.mark.parametrize(("overrides", "prepare", "text"), BAD, ids=[" ".join(o) for o, _, _ in BAD])
def test_bad_input_is_told_in_a_sentence(
    overrides: list[str],
    prepare: Callable[[Path], None],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    assert main([*SMOKE, "controller=random", *overrides]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ") or "\nError: " in told
    assert text in told
    assert "Traceback" not in told
    assert not list(tmp_path.glob("runs/*/trials.csv")), "no work was begun"


def test_a_mistake_in_ones_own_yaml_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("name: mine\n target: [x\n")
    assert main(["--config-dir", str(tmp_path), "space=mine"]) == 2
    told = capsys.readouterr().err
    assert "mine.yaml is no YAML in line 2" in told
