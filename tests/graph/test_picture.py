"""The picture of a graph says what an architecture keeps, and can be drawn."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from rankitect.errors import SpaceError
from rankitect.graph.picture import picture
from rankitect.reports.figures.graph_picture import draw_graph
from tests.graph.drawing import every_space
from tests.graph.spaces import CASES


@pytest.mark.parametrize("name", every_space())
def test_every_space_can_be_drawn(name: str) -> None:
    space = CASES[name].make()
    for architecture in (None, space.sample(0)):
        nodes, edges = picture(space, architecture)
        known = {n.id for n in nodes}
        assert len(known) == len(nodes)
        assert {e.source for e in edges} | {e.target for e in edges} <= known
        assert all(n.live for n in nodes) or architecture is not None
        drawn = ElementTree.fromstring(draw_graph(nodes, edges, title=name))
        assert drawn.tag.endswith("svg")


def test_an_architecture_shows_its_numbers_and_what_it_leaves_out() -> None:
    space = CASES["phone"].make()
    choices = {p: c.values[0] for p, c in space.choices.items()} | {"layers.0.attn": "skip", "layers.1.runs": 0}
    nodes, edges = picture(space, space.architecture(choices))
    by_id = {n.id: n for n in nodes}
    assert by_id["embed"].detail == "vocab 13, width 12"
    assert by_id["layers.2.mlp"].detail == "width 20"
    assert by_id["layers.2.mlp"].kind == "SwiGLU"
    assert by_id["ids"].kind == "input"
    assert not by_id["layers.0.attn.full"].live
    assert not by_id["layers.1.mlp"].live
    assert by_id["layers.2.attn.full"].live
    assert by_id["layers.2.attn.switch"].kind == "choice"
    assert by_id["layers.2.attn.switch"].detail == "attn: full"
    live = {n.id for n in nodes if n.live}
    kept = [e for e in edges if e.target in live]
    assert all(e.source in live for e in kept)
    only, wires = picture(space, space.architecture(choices), dropped=False)
    assert {n.id for n in only} == live
    assert set(wires) == set(kept)


def test_a_space_shows_its_choices() -> None:
    nodes, _ = picture(CASES["phone"].make())
    by_id = {n.id: n for n in nodes}
    assert by_id["layers.0.mlp"].detail == "width 20 | 12"
    assert by_id["layers.0.attn.switch"].detail == "attn: full | swa | skip"
    assert by_id["output:"].kind == "output"


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(SpaceError, match="architecture of space 'ctr'"):
        picture(CASES["llama"].make(), CASES["ctr"].make().sample(0))
