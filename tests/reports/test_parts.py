"""Parts of the report: comparison at equal cost, hypervolume, trials, numbers, links, layouts of graphs."""

from __future__ import annotations

import dataclasses
import random
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.errors import RankitectError
from rankitect.graph.picture import PictureEdge, PictureNode
from rankitect.methods.objectives import hypervolume
from rankitect.production.evidence import Evidence
from rankitect.reports.comparison import ModelPoint, compare
from rankitect.reports.figures.architecture import dropped_layers, grids_of
from rankitect.reports.figures.graph_layout import arrange
from rankitect.reports.figures.graph_picture import draw_graph
from rankitect.reports.figures.svg import log_ticks, ticks
from rankitect.reports.numbers import (
    as_duration,
    as_percent,
    as_value,
    compact,
    percent_range,
    possible,
    readable_name,
    signed_percent,
)
from rankitect.reports.roles import Roles
from rankitect.reports.sections.candidates import safe_link
from rankitect.study.pareto import nondominated
from rankitect.study.summary import BaselineSummary, ObjectiveSummary


def roles(quality: str, cost: str, unit: str) -> Roles:
    one = ObjectiveSummary(name=quality, unit="", direction="min", role="quality")
    other = ObjectiveSummary(name=cost, unit="", direction="min", role="cost")
    return Roles(one, other, None, 1.0, unit)


ROLES = roles("perplexity", "block_flops", "share")
LINE = [ModelPoint("u 50%", "baseline", 0.5, 40.0, "u"), ModelPoint("u 75%", "baseline", 0.75, 24.0, "u"),
        ModelPoint("backbone", "reference", 1.0, 19.0)]  # fmt: skip


def against(cost: float, quality: float) -> tuple[str, float, float]:
    found = compare([*LINE, ModelPoint("c", "candidate", cost, quality, rank=1)], ROLES)[0]
    return found.how, found.reference, found.gain


def test_baseline_of_the_same_cost_is_taken_as_measured() -> None:
    assert against(0.752, 20.0) == ("measured", 24.0, pytest.approx(1 / 6))


def test_between_two_baselines_the_reference_is_their_geometric_mean() -> None:
    how, reference, gain = against(0.625, 31.0)
    assert (how, reference) == ("interpolated", pytest.approx((40 * 24) ** 0.5))
    assert gain < 0.001


def test_backbone_is_the_upper_end_of_every_recipe() -> None:
    assert against(0.875, 20.0)[1] == pytest.approx((24 * 19) ** 0.5)


def test_nothing_is_extrapolated_below_the_cheapest_baseline() -> None:
    assert against(0.4, 39.0) == ("costlier", 40.0, pytest.approx(0.025))
    assert compare([*LINE, ModelPoint("c", "candidate", 0.4, 41.0, rank=1)], ROLES) == []
    assert compare([*LINE, ModelPoint("c", "candidate", 1.2, 18.0, rank=1)], ROLES) == []
    assert against(1.2, 19.5)[0] == "cheaper"


def test_among_models_of_different_recipes_the_best_of_all_is_the_rival() -> None:
    models = [ModelPoint("lr", "baseline", 4, 0.86, "lr"), ModelPoint("dcnv2", "baseline", 200, 0.79, "dcnv2")]

    def held(cost: float, quality: float) -> tuple[str, str, bool]:
        (found,) = compare(
            [*models, ModelPoint("c", "candidate", cost, quality, rank=1)],
            roles("normalized_entropy", "flops", "FLOPs"),
        )
        return found.how, found.against, found.won

    assert held(100, 0.78) == ("best of all", "dcnv2", True)
    assert held(100, 0.80) == ("best of all", "dcnv2", False), "better than all that is as cheap, and yet no win"
    assert held(300, 0.78) == ("best of all, cheaper", "dcnv2", False)


@pytest.mark.parametrize("cost", [0.5, 0.625])
def test_a_small_gain_on_every_example_is_clear_although_examples_differ_much(cost: float) -> None:
    rng = np.random.default_rng(0)
    cheap = rng.normal(3.0, 1.0, 40)
    dear = cheap - 0.5 + rng.normal(0, 0.01, 40)
    share = (cost - 0.5) / 0.25
    own = (1 - share) * cheap + share * dear - 0.03 + rng.normal(0, 0.01, 40)
    models = {"a": cheap.tolist(), "b": dear.tolist(), "c": own.tolist()}
    wide = (5.0, 60.0)
    points = [
        ModelPoint(name, kind, x, float(np.exp(np.mean(models[name]))), "u", wide, 40, name, rank=1)  # type: ignore[arg-type]
        for name, kind, x in [("a", "baseline", 0.5), ("b", "baseline", 0.75), ("c", "candidate", cost)]
    ]
    rows = Evidence("perplexity", {k: np.array([v], np.float32) for k, v in models.items()}, clusters=np.arange(40))
    (plain,), (found,) = compare(points, ROLES), compare(points, ROLES, rows)
    assert plain.separated is False
    assert found.separated is True
    assert found.paired is not None
    assert found.paired[0] < found.gain < found.paired[1]
    assert found.gain == pytest.approx(1 - np.exp(np.mean(own - (1 - share) * cheap - share * dear)))
    assert compare(points, ROLES, dataclasses.replace(rows, metric="loss")) == [plain]


def test_the_strongest_recipe_is_the_reference() -> None:
    points = [*LINE, ModelPoint("d 75%", "baseline", 0.75, 22.0, "d"), ModelPoint("c", "candidate", 0.75, 21.0, rank=1)]
    assert compare(points, ROLES)[0].reference == 22.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), st.integers(0, 10_000))
def test_hypervolume_depends_on_the_front_only(points: list[tuple[float, float]], seed: int) -> None:
    area = hypervolume(points, (1.0, 1.0))
    assert 0 <= area <= 1
    shuffled = random.Random(seed).sample(points, len(points))
    assert hypervolume(shuffled, (1.0, 1.0)) == pytest.approx(area)
    front = [points[i] for i in nondominated(points)]
    assert hypervolume(front, (1.0, 1.0)) == pytest.approx(area)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=15), st.sampled_from([1, -1]))
def test_front_holds_exactly_what_nothing_beats(points: list[tuple[float, float]], sign: int) -> None:
    kept = {points[i] for i in nondominated([(cost, -sign * quality) for cost, quality in points])}
    for cost, quality in points:
        beaten = any(c <= cost and sign * q >= sign * quality and (c, q) != (cost, quality) for c, q in points)
        assert ((cost, quality) in kept) != beaten


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 3)] * n), max_size=12)))
def test_of_any_number_of_values_what_is_left_is_what_nothing_dominates(costs: list[tuple[int, ...]]) -> None:
    kept = [costs[i] for i in nondominated(costs)]
    beaten = {p for p in costs if any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in costs)}
    assert kept == sorted(set(costs) - beaten)


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high)
    assert len(found) <= 12
    slack = 1e-6 * max(abs(low), abs(high), 1.0)
    assert all(low - slack <= t <= high + slack for t in found)


@given(st.floats(1e-3, 1e6), st.floats(1.5, 1e4))
def test_log_ticks_are_inside(low: float, ratio: float) -> None:
    found = log_ticks(low, low * ratio)
    assert found
    assert all(low * 0.999 <= t <= low * ratio * 1.001 for t in found)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (compact(24.0), "24.0"), (compact(24.0, trim=True), "24"), (compact(134_515_008), "135 M"),
        (compact(None), "–"),
        (compact(float("inf")), "–"), (compact(0.00001234), "1.23e-05"), (compact(1536, trim=True), "1536"),
        (as_percent(0.6), "60%"), (as_percent(0.6251), "62.5%"), (as_duration(425), "7 min 05 s"),
        (as_duration(7620), "2 h 07 min"), (as_value(5.3e10, "FLOPs"), "53.0 GFLOPs"),
        (as_value(3e6, "tokens"), "3.00 M tokens"),
        (as_value(1024**2 * 5, "bytes"), "5.00 MiB"), (as_value(0.45, "share of the backbone"), "45%"),
        (as_value(45.0, "%"), "45%"), (as_value(19.1, "perplexity"), "19.1"), (as_value(3, "count"), "3"),
        (readable_name("block_flops"), "Block FLOPs"), (readable_name("kv_cache_bytes"), "KV cache bytes"),
        (readable_name("prefill_ms"), "Prefill latency"), (readable_name("latency_p50_ms"), "Latency p50"),
        (signed_percent(-0.0064), "−0.64%"), (signed_percent(1321.667), "+132,167%"),
        (percent_range(-0.5, 0.25), "−50.0% to +25.0%"), (percent_range(-1.0, 1e300), "−100.0% to over +1,000%"),
    ],
)  # fmt: skip
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown == expected


def test_intervals_end_where_the_metric_does() -> None:
    assert possible("log_loss", (-0.4, 1.6)) == (0.0, 1.6)
    assert possible("auc", (-0.1, 1.3)) == (0.0, 1.0)
    assert possible("normalized_entropy", (0.7, 0.8)) == (0.7, 0.8)
    assert possible("score", (-1.0, 1.0)) == (-1.0, 1.0)
    assert possible("log_loss", None) is None


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "javascript:alert(1)", "https://x", "//host/x", "C:\\x", "\\\\host\\x", ""],
)
def test_paths_outside_the_run_folder_are_not_linked(path: str) -> None:
    assert safe_link("file", path).href is None


def test_paths_inside_the_run_folder_are_quoted() -> None:
    assert safe_link("graph", 'candidates/01 "a"/graph.svg').href == "../candidates/01%20%22a%22/graph.svg"


def test_choices_with_positions_make_grids() -> None:
    grids = grids_of({"layers.0.ffn": 4, "layers.2.ffn": 8, "layers.1.runs": 0, "d_model": 576, "a.b.3.x": "skip"})
    assert grids["layers"].rows == {"ffn": [4, None, 8], "runs": [None, 0, None]}
    assert dropped_layers(grids["layers"]) == [1]
    assert grids["a.b"].rows == {"x": [None, None, None, "skip"]}


def stack(depth: int, odd: int = -1) -> tuple[list[PictureNode], list[PictureEdge]]:
    nodes, edges, x = [PictureNode("ids", "ids", "input", "B T")], [], "ids"
    for i in range(depth):
        scope = f"layers.{i}"
        kind = "Other" if i == odd else "SwiGLU"
        nodes += [
            PictureNode(f"{scope}.ffn", "ffn", kind, "B T 8", scope),
            PictureNode(f"{scope}.add", "add", "Add", "B T 8", scope),
        ]
        edges += [
            PictureEdge(x, f"{scope}.ffn"),
            PictureEdge(f"{scope}.ffn", f"{scope}.add"),
            PictureEdge(x, f"{scope}.add"),
        ]
        x = f"{scope}.add"
    return [*nodes, PictureNode("head", "head", "Head")], [*edges, PictureEdge(x, "head")]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_repeated_scopes_are_drawn_once_with_their_number() -> None:
    nodes, edges = stack(12)
    folded, whole = texts(draw_graph(nodes, edges)), texts(draw_graph(nodes, edges, compress=False))
    assert folded.count("SwiGLU") == 1
    assert "×12" in folded
    assert whole.count("SwiGLU") == 12
    assert "×12" not in whole


def test_a_different_scope_interrupts_the_run() -> None:
    found = texts(draw_graph(*stack(12, odd=5)))
    assert ("×5" in found, "×6" in found, found.count("SwiGLU"), found.count("Other")) == (True, True, 2, 1)


def test_picture_of_a_graph_escapes_and_marks_what_is_dropped() -> None:
    nodes = [PictureNode("a", "<script>x</script>", "input"), PictureNode("b", "b", "Linear", live=False)]
    svg = draw_graph(nodes, [PictureEdge("a", "b")])
    assert "<script" not in svg
    assert 'class="dead"' in svg


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ("aa", [], "two nodes called 'a'"),
        ("a", [("a", "b")], "no node 'b'"),
        ("ab", [("a", "b"), ("b", "a")], "circle of wires"),
    ],
)
def test_graphs_that_cannot_be_drawn_are_refused(nodes: str, edges: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(RankitectError, match=message):
        draw_graph([PictureNode(n, n) for n in nodes], [PictureEdge(*e) for e in edges])


@given(st.integers(0, 100_000), st.integers(1, 14))
def test_layout_points_downwards_and_boxes_do_not_overlap(seed: int, count: int) -> None:
    """Random DAGs with random nested scopes, also such as no box can hold."""
    dice = random.Random(seed)
    nodes = {
        f"n{i}": (dice.choice(["", "", "s0", "s1", "s0.t", "s1.t"]), (dice.uniform(40, 120), 40.0))
        for i in range(count)
    }
    pairs = {(f"n{a}", f"n{b}") for a in range(count) for b in range(a + 1, count) if dice.random() < 0.25}
    edges = [PictureEdge(*pair) for pair in sorted(pairs)]
    placed = arrange(nodes, edges)
    assert set(placed.nodes) == set(nodes)
    boxes = list(placed.nodes.values())
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= -1e-6
        assert y >= -1e-6
        assert x + w <= placed.width + 1e-6
        assert y + h <= placed.height + 1e-6
        for a, b, c, d in boxes[:i]:
            assert x + w <= a + 1e-6 or a + c <= x + 1e-6 or y + h <= b + 1e-6 or b + d <= y + 1e-6
    for edge in edges:
        assert placed.nodes[edge.source][1] + 40 <= placed.nodes[edge.target][1] + 1e-6
    for _, _, (_, top), (_, bottom), _ in placed.segments:
        assert bottom >= top - 1e-6


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("uniform width", ["uniform width 60%", "uniform width 75%"]),
        ("uniform", ["uniform 4 bits", "uniform 8 bits"]),
        ("uniform width 4 bits", ["uniform width 60% 4 bits", "uniform width 75% 4 bits"]),
        ("dcnv2", ["dcnv2"]),
    ],
)
def test_sizes_and_bits_of_one_recipe_are_one_family(family: str, names: list[str]) -> None:
    assert {BaselineSummary(name=name, fingerprint="0" * 64, metrics={}).family for name in names} == {family}
