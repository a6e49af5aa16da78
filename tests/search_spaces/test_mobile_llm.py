"""The space of language models for phones."""

from __future__ import annotations

import pytest
import torch

from rankitect.errors import SpaceError
from rankitect.graph import SearchSpace
from rankitect.models.checkpoints import DecoderConfig
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import POINTS, MobileLLM, from_backbone, mobile_llm, point
from tests.graph.spaces import CASES


def config() -> DecoderConfig:
    return DecoderConfig(
        vocab=17, d_model=12, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=4, ffn=20, rope_base=1e4, norm_eps=1e-5
    )


def test_the_largest_architecture_of_a_backbones_space_is_the_backbone() -> None:
    space = from_backbone(config(), context=8, ffn_step=8, window=4)
    largest = space.architecture({p: c.values[0] for p, c in space.choices.items()})
    layer = 12 * 4 * (4 + 2 + 2 + 4) + 3 * 12 * 20 + 2 * 12
    assert space.cost(largest, "params") == 17 * 12 + 3 * layer + 12
    assert space.choices["layers.0.ffn"].values == (20, 16, 8)
    assert space.choices["layers.0.kv_heads"].values == (2, 1)
    assert space.choices["layers.0.runs"].values == (1, 0)
    with pytest.raises(SpaceError, match="widths: 13 is more than the backbone's 12"):
        from_backbone(config(), widths=(13,))


def test_layers_that_are_alike_and_all_kept_have_one_choice_of_each_size() -> None:
    space = from_backbone(config(), ffn_step=8, patterns=["full"], alike=True, depth=False)
    assert {path: choice.values for path, choice in space.choices.items() if len(choice.values) > 1} == {
        "kv_heads": (2, 1), "group": (2, 1), "ffn": (20, 16, 8),
    }  # fmt: skip
    assert space.size().distinct == 12
    smallest = space.architecture({path: choice.values[-1] for path, choice in space.choices.items()})
    assert space.cost(smallest, "params") == 17 * 12 + 3 * (12 * 4 * 4 + 3 * 12 * 8 + 2 * 12) + 12


def test_a_layer_run_twice_has_one_set_of_weights() -> None:
    supernet = Supernet(CASES["phone"].make())
    space = supernet.space
    first = {p: c.values[0] for p, c in space.choices.items()}
    once, twice = (space.architecture(first | {"layers.1.runs": n}) for n in (1, 2))
    assert space.cost(once, "params") == space.cost(twice, "params")
    assert space.cost(once, "flops", "layers.1") * 2 == space.cost(twice, "flops", "layers.1")
    assert space.cost(once, "cache_bytes", "layers.1") * 2 == space.cost(twice, "cache_bytes", "layers.1")
    ids = torch.randint(13, (2, 5))
    model = supernet.extract(twice)
    assert model.state_dict().keys() == supernet.extract(once).state_dict().keys()
    assert not torch.equal(model(ids), supernet.activate(once)(ids))


def test_a_dropped_layer_is_not_there() -> None:
    supernet = Supernet(CASES["phone"].make())
    space = supernet.space
    first = {p: c.values[0] for p, c in space.choices.items()}
    less = space.architecture(first | {"layers.1.runs": 0})
    assert not any(p.startswith("layers.1.") and not p.endswith("runs") for p in less.choices)
    assert not any(n.startswith("layers.1.") for n in supernet.extract(less).state_dict())


def test_later_tokens_do_not_change_earlier_ones() -> None:
    supernet = Supernet(CASES["phone"].make())
    ids = torch.randint(13, (2, 11))
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 13
    for architecture in supernet.space.sample_many(4, 0):
        model = supernet.activate(architecture)
        torch.testing.assert_close(model(ids)[:, :7], model(other)[:, :7])


def test_a_point_needs_its_values() -> None:
    with pytest.raises(SpaceError, match="unknown model 'gpt'; known: mobilellm-125m"):
        point(CASES["phone"].make(), "gpt")
    with pytest.raises(SpaceError, match="choice 'width' cannot be 576; allowed: 8, 16"):
        point(mobile_llm(widths=(8, 16)), "mobilellm-125m")
    with pytest.raises(SpaceError, match="mobilellm-125m has 30 layers, the space at most 2"):
        point(mobile_llm(layers=2), "mobilellm-125m")
    assert set(POINTS) >= {"mobilellm-125m", "mobilellm-350m-ls"}


def test_a_space_of_one_width_holds_the_published_shapes_at_that_width() -> None:
    space = mobile_llm(widths=(8,))
    layer = 8 * 64 * (9 + 3 + 3 + 9) + 3 * 8 * 1536 + 2 * 8
    assert space.cost(point(space, "mobilellm-125m"), "params") == 32000 * 8 + 30 * layer + 8
    assert set(MobileLLM.named(space)) == set(POINTS)
    assert set(MobileLLM.named(mobile_llm(layers=30))) == {"mobilellm-125m", "mobilellm-125m-ls"}
    assert set(MobileLLM.named(mobile_llm(widths=(8, 16)))) == set()


def test_an_untied_head_has_a_table_of_its_own() -> None:
    tied, untied = (mobile_llm(vocab=50, layers=2, widths=(8,), tied=t) for t in (True, False))
    chosen = {path: choice.values[0] for path, choice in tied.choices.items()}
    one, other = tied.architecture(chosen), untied.architecture(chosen)
    assert untied.cost(other, "params") == tied.cost(one, "params") + 50 * 8
    assert untied.cost(other, "flops") == tied.cost(one, "flops")


def test_the_full_space_survives_json() -> None:
    space = mobile_llm()
    again = SearchSpace.from_json(space.to_json())
    assert again.size() == space.size()
    some = space.sample_many(20, 0)
    assert (again.cost(some, "flops", T=700) == space.cost(some, "flops", T=700)).all()
