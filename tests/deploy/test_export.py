"""Exported programs give what the model gives, through the real runtime."""

from __future__ import annotations

import gc
import json

import pytest
import torch

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.deploy.artifact import CARD, PROGRAM, export, load
from rankitect.deploy.lowering import lower
from rankitect.deploy.precision import in_8da4w, require_8da4w
from rankitect.errors import AssetError, DataError, DeployError
from rankitect.models.supernet import build
from rankitect.run_pte import main
from rankitect.search_spaces.mobile_llm import mobile_llm
from tests.deploy.tiny import VOCAB, ids, model, space

pytestmark = pytest.mark.slow

TEXT = torch.cat([ids(25, seed) for seed in range(4)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    made = model()
    written = export(folder, made, ByteTokenizer(), prompt=12, capacity=24, text=TEXT, notes={"from": "a test"})
    return folder, made, written


@torch.no_grad()
def perplexity_of(made, windows, first):
    """Of the tokens from `first` on in each window."""
    logits = made(windows[:, :-1])[:, first - 1 :].flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(logits, windows[:, first:].flatten()).exp())


@torch.no_grad()
def test_greedy_output_is_the_eager_models(exported):
    folder, made, _ = exported
    prompt = ids(9)[0].tolist()
    wanted = list(prompt)
    for _ in range(10):
        wanted.append(int(made(torch.tensor([wanted]))[0, -1].argmax()))
    assert load(folder).generator.greedy(prompt, 10) == wanted[9:]


def test_nearly_all_is_delegated_and_the_card_says_so(exported):
    folder, _, written = exported
    card = json.loads((folder / CARD).read_text())
    assert {"program", "program_card"} <= written.keys()
    assert card["delegated"]["share"] > 0.95
    assert set(card["delegated"]["portable"]) == {"aten_embedding_default"}
    assert max(card["checked"]["errors"].values()) < 1e-3
    assert card["layout"]["masks"] == [None, 6]
    assert card["notes"] == {"from": "a test"}
    quality = card["quality"]
    assert (quality["metric"], quality["agreement"]) == ("perplexity", 1.0)
    assert abs(quality["change"]) < 1e-3
    assert quality["model"] == pytest.approx(perplexity_of(exported[1], TEXT[:, :24], first=6), rel=1e-4)


def test_equal_weights_are_stored_once(exported):
    folder, made, _ = exported
    weights = sum(4 * p.numel() for p in made.parameters())
    table = 4 * made.owner("embed").get_parameter("weight").numel()
    assert (folder / PROGRAM).stat().st_size < 1.3 * (weights + table) + 100_000


def test_an_export_leaves_nothing_behind(tmp_path):
    """ExecuTorch keeps what it has seen in a cache: searches that export many models once ran out of memory."""
    from torch.export import ExportedProgram

    gc.collect()
    before = sum(isinstance(o, ExportedProgram) for o in gc.get_objects())
    for seed in (0, 1):
        export(tmp_path / str(seed), model(("full",), seed=seed), ByteTokenizer(), prompt=4, capacity=8, text=TEXT)
    gc.collect()
    assert sum(isinstance(o, ExportedProgram) for o in gc.get_objects()) <= before


def test_the_command_generates_text(exported, capsys):
    folder, _, _ = exported
    assert main([str(folder), "--prompt", "\x01\x02", "--tokens", "5"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(r"\x01\x02"), "what a terminal would obey is spelt out"
    assert out.replace("\n", "").isprintable()
    assert "tokens a second" in err


def test_a_program_of_another_runtime_is_refused(exported, tmp_path, capsys):
    folder, _, _ = exported
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    card = json.loads((tmp_path / CARD).read_text())
    card["runtime"]["version"] = "0.9.0"
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(DeployError, match=r"exported for ExecuTorch 0\.9\.0"):
        load(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "none")]) == 2
    assert "exported for ExecuTorch" in capsys.readouterr().err


def test_a_damaged_program_is_named(exported, tmp_path):
    folder, _, _ = exported
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / PROGRAM).write_bytes((folder / PROGRAM).read_bytes()[:-100])
    with pytest.raises(AssetError, match=r"altered or truncated"):
        load(tmp_path)
    with pytest.raises(DeployError, match="cannot be loaded"):
        load(tmp_path, verify=False).generator.start([1, 2])
    (tmp_path / PROGRAM).unlink()
    with pytest.raises(AssetError, match=r"has no model\.pte"):
        load(tmp_path)
    (tmp_path / CARD).unlink()
    with pytest.raises(AssetError, match=r"has no program\.json"):
        load(tmp_path)


def test_prompts_that_do_not_fit(exported):
    folder, _, _ = exported
    generator = load(folder).generator
    with pytest.raises(DataError, match="24"):
        generator.start([1] * 24)


def test_a_quantized_program_is_its_model(tmp_path, caplog):
    caplog.set_level("INFO", "rankitect")
    rounded = in_8da4w(space(), model(("full", "swa")))
    export(tmp_path, rounded, ByteTokenizer(), prompt=8, capacity=16, text=TEXT)
    card = json.loads((tmp_path / CARD).read_text())
    assert card["precision"] == "8da4w"
    assert card["delegated"]["share"] > 0.9
    assert max(card["checked"]["errors"].values()) < 1e-3
    assert card["quantized_share"] == 1.0
    quality = card["quality"]
    assert quality["model"] == pytest.approx(perplexity_of(rounded, TEXT[:, :16], first=4), rel=1e-4)
    assert quality["model"] != pytest.approx(perplexity_of(model(("full", "swa")), TEXT[:, :16], first=4), rel=1e-4)
    assert quality["program"] == pytest.approx(quality["model"], rel=1e-3), "what was measured is what is exported"
    assert "model.pte in 8da4w: perplexity" in caplog.text
    assert len(load(tmp_path).generator.greedy([1, 2, 3], 6)) == 6


def test_a_precision_that_would_be_applied_to_nothing_is_refused():
    narrow = mobile_llm(vocab=VOCAB, layers=1, widths=(24,), kv_heads=(1,), group=(1,), ffn=(40,), window=6, head=24)
    with pytest.raises(DeployError, match="precision=8da4w cannot be applied to this model"):
        in_8da4w(narrow, build(narrow, narrow.sample(0)))
    with pytest.raises(DeployError, match="precision=8da4w cannot be applied to this model"):
        require_8da4w(narrow)
    require_8da4w(space())


class Sorting(torch.nn.Module):
    def forward(self, x):
        return (torch.linalg.eigvals(x).abs(),)

    def example(self):
        return (torch.eye(4),)


def test_an_operator_that_cannot_be_exported_is_named():
    with pytest.raises(DeployError, match=r"no kernel"):
        lower({"forward": Sorting()})


@pytest.mark.parametrize("wrong", [False, True])
def test_tokens_may_differ_by_rounding_only(tmp_path, monkeypatch, wrong):
    from rankitect.deploy import artifact
    from rankitect.deploy.generate import Generator, Layout

    methods = artifact.calls(model(), 8, 16)
    layout = Layout.of(methods["prefill"], methods["decode"])

    def run(name):
        def call(inputs):
            with torch.no_grad():
                logits, *fresh = methods[name](*inputs)
            if wrong:  # the least likely token comes first
                logits.flatten()[logits.argmin()] = 2 * logits.abs().max()
            return logits + 1e-5 * logits.abs().max() * torch.randn_like(logits), *fresh

        return call

    program = Generator(layout, run("prefill"), run("decode"))
    monkeypatch.setattr(artifact, "_generator", lambda *_: (program, 0.0))
    if wrong:
        with pytest.raises(DeployError, match="generates token"):
            artifact._check_tokens(tmp_path, layout, methods)
    else:
        artifact._check_tokens(tmp_path, layout, methods)
