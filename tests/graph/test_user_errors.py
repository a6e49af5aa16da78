"""What the user of a space reads when something is wrong: where it is, what it is, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from tests.graph.spaces import CASES


def llama(**changes: Any) -> Callable[[], Any]:
    space = CASES["llama"].make()
    choices: dict[str, Any] = {"d_model": 8, "depth": 1}
    choices |= {f"layers.0.{k}": v for k, v in {"heads": 4, "kv": 2, "ffn": 12, "attn": "full"}.items()}
    choices |= {k.replace("0_", "0.").replace("layers_", "layers."): v for k, v in changes.items()}
    return lambda: space.architecture({k: v for k, v in choices.items() if v is not None})


USING: list[tuple[Callable[[], Any], str]] = [
    (llama(dmodel=8), r"space 'llama' has no choice 'dmodel'; did you mean 'd_model'\?"),
    (llama(zzz=8), r"space 'llama' has no choice 'zzz'; known: d_model, depth, layers.0.heads, .*\.\.\."),
    (llama(d_model=9), r"choice 'd_model' cannot be 9; allowed: 16, 8, 24"),
    (llama(d_model="8"), r"choice 'd_model' cannot be '8'; allowed: 16, 8, 24"),
    (llama(d_model=True), r"choice 'd_model' cannot be True; allowed: 16, 8, 24"),
    (llama(d_model=[[8]]), r"choice 'd_model' cannot be \(\[8\],\); allowed: 16, 8, 24"),
    (llama(layers_0_attn="half"), r"choice 'layers.0.attn' cannot be 'half'; allowed: 'full', 'swa', 'skip'"),
    (llama(layers_0_kv=None), r"space 'llama': choice 'layers.0.kv' has an effect here and needs a value"),
    (llama(depth=2), r"space 'llama': choice 'layers.1.heads' and 3 more has an effect here and needs a value"),
    (
        llama(layers_0_kv=3),
        r"space 'llama': rule 'heads must be a multiple of kv' does not hold for layers.0.heads=4, "
        r"layers.0.kv=3",
    ),
    (
        lambda: CASES["llama"].make().validate(Architecture("ctr", "1", {})),
        r"architecture of space 'ctr' version 1 given to 'llama' version 1",
    ),
    (
        lambda: CASES["llama"].make().validate(Architecture("llama", "2", {})),
        r"architecture of space 'llama' version 2 given to 'llama' version 1",
    ),
    (
        lambda: Architecture.from_json("{}"),
        r"an architecture in JSON .* is not of the form that is expected: space: Field required\.",
    ),
    (lambda: Architecture.from_json("nonsense"), r"an architecture in JSON .* is no JSON: Expecting value.*"),
    (lambda: CASES["llama"].make().cost([], "flop"), r"unknown cost 'flop'; did you mean 'flops'\?"),
    (lambda: CASES["llama"].make().sample(0, param=(0, 1)), r"cannot bound 'param'; did you mean 'params'\?"),
    (lambda: CASES["llama"].make().sample(0, params=(2, 1)), r"params=\(2, 1\): the lower bound is above the upper"),
]


@pytest.mark.parametrize(("make", "text"), USING, ids=range(len(USING)))
def test_a_mistake_of_the_user_is_named(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        make()
    assert re.fullmatch(text, str(caught.value)), str(caught.value)


def test_a_stored_space_brings_no_code_from_elsewhere() -> None:
    text = CASES["ctr"].make().to_json()
    with pytest.raises(SpaceError, match=r"block 'tests.graph.spaces.DotInteract' is not from an allowed package"):
        SearchSpace.from_json(text)
    known = ("rankitect", "tests")
    for name, message in {
        "tests.graph.spaces.Missing": "'tests.graph.spaces.Missing' is no block",
        "tests.graph.spaces.CASES": "'tests.graph.spaces.CASES' is no block",
        "tests.nowhere.Block": "block 'tests.nowhere.Block' cannot be imported: No module named 'tests.nowhere'",
        "os.system": r"block 'os.system' is not from an allowed package \(rankitect, tests\)",
    }.items():
        with pytest.raises(SpaceError, match=message):
            SearchSpace.from_json(text.replace("tests.graph.spaces.DotInteract", name), known)
    with pytest.raises(SpaceError, match="a space in JSON is no JSON"):
        SearchSpace.from_json(text[:-20], known)
    with pytest.raises(SpaceError, match="schema: Input should be less than or equal to 1, not 7"):
        SearchSpace.from_json(text.replace('"schema": 1', '"schema": 7'), known)
    with pytest.raises(SpaceError, match="a space in JSON is not of the form"):
        SearchSpace.from_json("[1]", known)
