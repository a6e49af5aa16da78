"""A standalone model is a module like any other: moved to another precision, compiled, exported, copied, restored."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch

from rankitect.blocks import Concat, Flatten, Linear, Tables
from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.supernet import Standalone, build
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.search_spaces.ranking_blocks import ranking_blocks
from rankitect.search_spaces.ranking_engineered import ranking_engineered
from rankitect.search_spaces.ranking_points import MODELS, baseline

FEATURES = Features(
    ("price", "age", "hour"),
    (CategoricalFeature("user", 9), CategoricalFeature("tags", 7), CategoricalFeature("item", 30)),
)
BAGS = Features(FEATURES.numeric, (CategoricalFeature("user", 9), CategoricalFeature("tags", 7, 3)))
BLOCKS: dict[str, Any] = {
    "blocks": 2, "embedding": (4, 2), "widths": (6, 3), "counts": (3, 5), "pairs": (2, 4), "ranks": (2, 1),
    "heads": (1, 2), "head": 2, "most": 2,
}  # fmt: skip
ENGINEERED: dict[str, Any] = {
    "embedding": (4, 2), "width": (4, 2), "group_rows": (10,), "bottom_layers": 1, "bottom": (5, 3), "top_layers": 2,
    "top": (6, 3), "cross_layers": (1, 2), "ranks": (2, 1), "attention_layers": (1, 2), "heads": (1, 2), "head": 2,
}  # fmt: skip


def own() -> SearchSpace:
    """A space of a user's own, whose names are also those of members of `nn.Module`."""
    g = Graph("own")
    numeric, ids, width = g.input("numeric", B, 3), g.input("ids", B, 4, dtype="int"), g.choice("width", [8, 4])
    tables = Tables(BAGS.rows, BAGS.slots, 4)(ids, name="half")
    x = Linear(width, "relu")(Concat()(numeric, Flatten("width")(tables, name="flat"), name="type"), name="eval")
    g.out = Linear(1)(x, name="logit")
    return SearchSpace(g)


def decoder() -> tuple[SearchSpace, Any]:
    space = mobile_llm(
        vocab=60, layers=3, widths=(32, 16), kv_heads=(1, 2), group=(1, 2), ffn=(32, 48), window=6, head=8
    )
    choices: dict[str, Any] = {"width": 32}
    for i, kind in enumerate(("full", "swa", "skip")):
        layer = {"runs": 2 - i % 2, "kv_heads": 2, "group": 2, "ffn": 48, "attn": kind}
        choices |= {f"layers.{i}.{name}": value for name, value in layer.items()}
    return space, space.architecture(choices)


@cache
def model_and_inputs(name: str) -> tuple[Standalone, tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    if name == "decoder":
        return build(*decoder(), 0).eval(), (torch.randint(0, 60, (2, 16), generator=generator),)
    features = BAGS if name in ("own", "bags") else FEATURES
    ids = torch.randint(0, 7, (5, sum(features.slots)), generator=generator)
    if name in ("own", "bags"):
        ids[1, 2:], ids[2, 3] = -1, -1
    if name in MODELS:
        space, architecture = baseline(name, features, embedding=4, hidden=(8,))
    elif name == "own":
        space, architecture = own(), own().sample(0)
    else:
        kind, _, seed = name.partition(" ")
        space = (
            ranking_engineered(features, **ENGINEERED) if kind == "engineered" else ranking_blocks(features, **BLOCKS)
        )
        architecture = space.sample(int(seed or 0))
    return build(space, architecture, 0).eval(), (torch.randn(5, 3, generator=generator), ids)


def output(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(*inputs).clone()


RANKERS = [*MODELS, *(f"{kind} {seed}" for kind in ("blocks", "engineered") for seed in range(6))]
ALL = ["decoder", "own", "bags", *RANKERS]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_in_another_precision_gives_what_it_gave(name: str, dtype: torch.dtype) -> None:
    model, inputs = model_and_inputs(name)
    moved = copy.deepcopy(model).to(dtype)
    assert {p.dtype for p in moved.parameters()} == {dtype}
    assert output(model, inputs).dtype == torch.float32, "the copy shares nothing with the original"
    given = output(moved, inputs)
    assert given.dtype == dtype
    torch.testing.assert_close(given.float(), output(model, inputs), rtol=0.05, atol=0.03)


@pytest.mark.parametrize("name", ["decoder", "own", *MODELS, "blocks 1", "engineered 1", "engineered 2"])
def test_a_compiled_model_gives_what_it_gave(name: str) -> None:
    model, inputs = model_and_inputs(name)
    torch._dynamo.reset()
    # Lookups in bags count the ids of a batch, which no graph can know before.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=name != "own")
    torch.testing.assert_close(output(compiled, inputs), output(model, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_model_compiled_to_machine_code_gives_what_it_gave() -> None:
    model, inputs = model_and_inputs("decoder")
    torch._dynamo.reset()
    torch.testing.assert_close(output(torch.compile(model), inputs), output(model, inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["decoder", *MODELS, "blocks 1", "engineered 1"])
def test_an_exported_model_gives_what_it_gave(name: str) -> None:
    model, inputs = model_and_inputs(name)
    exported = torch.export.export(model, inputs).module()
    torch.testing.assert_close(output(exported, inputs), output(model, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["decoder", "own", "dlrm", "blocks 0"])
def test_a_copy_is_trained_without_the_original_and_takes_its_weights_back(name: str) -> None:
    model, inputs = model_and_inputs(name)
    before = output(model, inputs)
    other = copy.deepcopy(model).train()
    assert other.training
    assert not model.training
    other(*inputs).float().square().mean().backward()
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.5)
    assert torch.equal(output(model, inputs), before)
    assert not torch.equal(output(other, inputs), before)
    other.load_state_dict(model.state_dict())
    assert torch.equal(output(other.eval(), inputs), before)
    assert {name for name, _ in other.named_parameters()} == set(model.state_dict())
