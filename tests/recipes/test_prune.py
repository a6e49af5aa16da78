"""The stages `prune` and `prune_vocabulary`: what is left of a model computes what it computed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rankitect
from rankitect.blocks import Head, TiedHead
from rankitect.blocks.dense import UNSEEN
from rankitect.errors import ConfigError, SpaceError
from rankitect.graph import SearchSpace
from rankitect.models.importance import observe
from rankitect.models.plan import make_plan
from rankitect.models.pruning import pruned, smaller
from rankitect.models.supernet import Standalone, build
from rankitect.search_spaces.mobile_llm import mobile_llm

SPACE = mobile_llm(
    vocab=40, layers=3, widths=[16], kv_heads=[2], group=[2], ffn=[24, 16, 8], patterns=["full"], head=8, runs=(1, 0)
)
WHOLE = SPACE.architecture(
    {p: max(c.values) for p, c in SPACE.choices.items() if c.numeric}
    | {p: c.values[0] for p, c in SPACE.choices.items() if not c.numeric}
)
IDS = torch.arange(60).view(4, 15) % 40


def model() -> Standalone:
    return build(SPACE, WHOLE, 3).eval()


def test_units_that_give_nothing_are_the_ones_that_go() -> None:
    whole = model()
    with torch.no_grad():
        for number in range(3):
            whole.owner(f"layers.{number}.mlp").get_parameter("up")[5:21] = 0.0
    small = smaller(SPACE, WHOLE, None, 8, {})
    statistics = observe(whole, [IDS])
    left = pruned(SPACE, whole, small, statistics)
    assert left.owner("layers.0.mlp").get_parameter("gate").shape == (8, 16)
    assert torch.allclose(left(IDS), whole(IDS), atol=1e-5)


def test_refits_bring_the_outputs_nearer_to_those_of_the_whole() -> None:
    whole = model()
    small = smaller(SPACE, WHOLE, None, 8, {})
    statistics = observe(whole, [IDS])
    errors = [
        float((pruned(SPACE, whole, small, statistics, refit=r)(IDS) - whole(IDS)).square().mean())
        for r in (True, False)
    ]
    assert errors[0] < errors[1]


def test_the_layers_of_least_influence_are_left_out() -> None:
    small = smaller(SPACE, WHOLE, 2, None, {"layers.0": 0.5, "layers.1": 0.1, "layers.2": 0.3})
    runs = [small.choices[f"layers.{i}.runs"] for i in range(3)]
    assert runs == [1, 0, 1]
    left = pruned(SPACE, model(), small, observe(model(), [IDS]))
    assert not any(name.startswith("layers.1") for name, _ in left.named_parameters())
    assert left.plan.architecture == small


def test_a_layer_that_changes_nothing_has_no_influence() -> None:
    whole = model()
    with torch.no_grad():
        for owner, name in (("layers.1.mlp", "down"), ("layers.1.attn.shared", "o")):
            holder = owner if owner in dict(whole.named_modules()) else "layers.1.attn"
            whole.owner(holder).get_parameter(name).zero_()
    influence = observe(whole, [IDS]).influence
    assert influence["layers.1"] == pytest.approx(0.0, abs=1e-6)
    small = smaller(SPACE, WHOLE, 2, None, influence)
    assert torch.allclose(pruned(SPACE, whole, small, observe(whole, [IDS]))(IDS), whole(IDS), atol=1e-5)


def cut(tokens: tuple[int, ...]) -> tuple[SearchSpace, Standalone, Standalone]:
    """A space with a head for some tokens, the model of it, and the whole model."""
    whole = model()
    space = SPACE.with_blocks({"head": Head(40, tokens=tokens)}, {"head": "head"})
    plan = make_plan(space, WHOLE)
    rows = whole.owner("embed").get_parameter("weight").detach()[list(tokens)]
    tensors = {
        key: rows.clone() if key[0] == "head" else whole.owner(key[0]).get_parameter(key[1]).detach().clone()
        for key in plan.shapes()
    }
    return space, Standalone(plan, tensors).eval(), whole


def test_a_cut_head_scores_the_kept_tokens_as_before_and_no_other() -> None:
    space, small, whole = cut((3, 7, 39))
    given, wanted = small(IDS), whole(IDS)
    assert given.shape == wanted.shape
    assert torch.equal(given[..., [3, 7, 39]], wanted[..., [3, 7, 39]])
    others = [i for i in range(40) if i not in (3, 7, 39)]
    assert (given[..., others] == UNSEEN).all()
    given[..., 7].sum().backward()
    again = SearchSpace.from_json(space.to_json(), ("rankitect",))
    assert make_plan(again, WHOLE).shapes() == small.plan.shapes()
    saved = SPACE.cost(WHOLE, "flops", T=1, P=0) - space.cost(WHOLE, "flops", T=1, P=0)
    assert saved == 2 * 16 * (40 - 3)


@pytest.mark.parametrize("tokens", [(3, 40), (-1, 2), (3, 3), ("x",), (True,), (2.0,), [1, 2], "ab", None, 5], ids=repr)
def test_a_head_from_a_file_has_different_tokens_of_its_vocabulary(tokens: Any) -> None:
    for block in (Head, TiedHead):
        with pytest.raises(SpaceError, match=f"{block.__name__}: tokens are"):
            block(40, tokens=tokens)


SMOKE = ["task=moderation", "preset=smoke", "recipe=none"]


@pytest.mark.parametrize(
    ("stage", "wanted"),
    [
        ("{stage: prune, layers: 9}", r"recipe\.small: layers is 9; allowed: at most 4"),
        ("{stage: prune, ffn: 100}", r"recipe\.small: ffn is 100; allowed in space=mobile_llm: 32, 64, 96, 128"),
        ("{stage: prune}", "there is nothing to prune"),
        ("{stage: prune_vocabulary, keep: []}", "keep"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(tmp_path: Path, stage: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        rankitect.train([*SMOKE, f"+recipe.small={stage}", f"output_dir={tmp_path / 'run'}"], quiet=True)


@pytest.mark.parametrize("later", ["train", "distil"])
def test_what_trains_on_all_tokens_is_refused_behind_a_head_that_scores_a_few(tmp_path: Path, later: str) -> None:
    stages = [
        "+recipe.cut={stage: prune_vocabulary, keep: [ab]}",
        f"+recipe.later={{stage: {later}, tokens: 64, batch: 1, context: 16}}",
    ]
    wanted = r"recipe.later: the head head was cut to \d+ tokens, and .* put it before prune_vocabulary"
    with pytest.raises(ConfigError, match=wanted):
        rankitect.train(["task=language", "preset=smoke", "recipe=none", *stages], output_dir=str(tmp_path), quiet=True)


def test_a_model_whose_head_scores_a_few_tokens_learns_from_itself(tmp_path: Path) -> None:
    few = [
        "+recipe.cut={stage: prune_vocabulary, keep: [ab]}",
        "+recipe.round={stage: quantize, method: rtn, group: 0}",
    ]
    tuned = "+recipe.tune={stage: qat, tokens: 64, batch: 1, context: 16}"
    rankitect.train(["task=language", "preset=smoke", "recipe=none", *few, tuned], output_dir=str(tmp_path), quiet=True)
    wrong = "+recipe.tune={stage: qat, teacher: backbone, tokens: 64, batch: 1, context: 16}"
    with pytest.raises(ConfigError, match=r"recipe.tune: the head head was cut to"):
        rankitect.train(
            ["task=language", "preset=smoke", "recipe=none", *few, wrong], output_dir=str(tmp_path / "b"), quiet=True
        )


def test_a_head_is_cut_once(tmp_path: Path) -> None:
    twice = ["+recipe.a.stage=prune_vocabulary", "+recipe.b.stage=prune_vocabulary"]
    with pytest.raises(ConfigError, match=r"recipe\.b: the head head was cut to 2 tokens before"):
        rankitect.train([*SMOKE, *twice, f"output_dir={tmp_path / 'run'}"], quiet=True)


def test_texts_keep_their_tokens_on_any_task(tmp_path: Path) -> None:
    cut = ["task=language", "preset=smoke", "recipe=none", "+recipe.cut={stage: prune_vocabulary, keep: [ab, b]}"]
    trained = rankitect.train([*cut, f"output_dir={tmp_path / 'run'}"], quiet=True)
    assert trained.summary is not None
    from rankitect.models.candidate import load_candidate

    model = load_candidate(trained.folder / "model").model
    assert model.owner("head").get_parameter("weight").shape[0] == 2
