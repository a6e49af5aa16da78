"""Candidates in formats of other tools, after the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankitect.deploy.formats import export_candidate
from rankitect.errors import AssetError, ConfigError
from rankitect.models.candidate import LanguageCandidate, load_candidate, save_candidate
from rankitect.models.checkpoints.precisions import PRECISIONS
from tests.models.test_gguf_candidates import BACKBONE, DIFFERENT, TINY, USAGE, logits, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("candidate")
    model = BACKBONE.inherit(DIFFERENT)
    save_candidate(path, BACKBONE.space, DIFFERENT, model, tokenizer(), config=TINY, usage=USAGE)
    return path


def test_a_gguf_file_is_written_into_the_folder_and_the_candidate_stays_whole(folder: Path) -> None:
    place, notes = export_candidate(folder, "gguf", precision="float32")
    assert place == folder / "model.gguf"
    assert "written as deci: layers differ" in notes[0]
    whole, again = load_candidate(folder), load_candidate(place)
    assert isinstance(again, LanguageCandidate)
    assert logits(again.model).equal(logits(whole.model))
    assert again.card["fingerprint"] == whole.card["fingerprint"]


def test_wrong_words_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"to=onnx is no format of a candidate: gguf"):
        export_candidate(folder, "onnx")
    with pytest.raises(ConfigError, match=r"precision=int3 is none of float32, "):
        export_candidate(folder, "gguf", precision="int3")
    with pytest.raises(AssetError, match=r"has no candidate\.json"):
        export_candidate(tmp_path, "gguf")


@pytest.mark.parametrize("precision", PRECISIONS[3:])
def test_few_bits_are_made_by_llama_cpp(folder: Path, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("llama_cpp")
    place, _ = export_candidate(folder, "gguf", tmp_path / "m.gguf", precision)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    whole, again = load_candidate(folder), load_candidate(place)
    assert 0 < float((logits(again.model) - logits(whole.model)).abs().mean()) < 0.5
