"""The staged search: its rules, what it refuses, and a whole run in small on a computed device."""

from __future__ import annotations

import json

import pytest

import rankitect
from rankitect.config.resolve import resolve
from rankitect.controllers.staged import skips_in_a_row
from rankitect.errors import ConfigError, DeployError
from rankitect.graph import Architecture
from rankitect.search_spaces.mobile_llm import mobile_llm

SMOKE = ["space=mobile_llm", "controller=staged", "preset=smoke", "device=analytic"]


@pytest.mark.parametrize(
    ("layers", "longest"),
    [
        (["full", "skip", "skip", "full", "skip"], 2),
        (["skip", None, "skip", "skip", "swa"], 3),  # a layer that does not run ends no row
        (["full", "swa"], 0),
        (["skip"], 1),
    ],
)
def test_layers_without_attention_are_counted_in_a_row(layers, longest):
    space = mobile_llm(vocab=16, layers=len(layers), widths=(8,), kv_heads=(1,), group=(1,), ffn=(8,), head=4)
    choices = {"width": 8}
    for i, kind in enumerate(layers):
        layer = {"runs": int(kind is not None), "kv_heads": 1, "group": 1, "ffn": 8, "attn": kind or "full"}
        choices |= {f"layers.{i}.{name}": value for name, value in layer.items()}
    assert skips_in_a_row(space.architecture(choices)) == longest


@pytest.mark.slow
def test_a_whole_run_keeps_its_rules(tmp_path):
    given = [*SMOKE, f"output_dir={tmp_path}/run", "controller.most_skips=1"]
    rankitect.search(given)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [o["name"] for o in summary["objectives"]] == ["perplexity", "prefill_ms"]
    assert summary["pareto"][0]["metrics"]["prefill_ms"]["unit"] == "ms (estimate)"
    assert all(skips_in_a_row(Architecture.from_json(json.dumps(p["architecture"]))) <= 1 for p in summary["pareto"])
    spent = json.dumps(summary["ledger"])
    assert "latency_measurements" in spent


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (["device=none"], ConfigError, "add device=host"),
        (["controller.budget={prefil_ms: 3}"], ConfigError, "no latency 'prefil_ms'.*prefill_ms"),
        (["controller.budget={prefill_ms: -3}"], ConfigError, "more than 0 ms"),
        (["device.prompt=64"], ConfigError, "less than context"),
        (["device=android", "device.adb=/nowhere/adb"], DeployError, "not installed"),
        (["device=phone"], ConfigError, "analytic, android, host, none"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        rankitect.search([*SMOKE, f"output_dir={tmp_path}/run", *change])


@pytest.mark.slow
@pytest.mark.slow
def test_a_budget_that_nothing_meets_is_said_with_the_fastest(tmp_path):
    given = [*SMOKE, f"output_dir={tmp_path}/run", "controller.budget={prefill_ms: 0.000001}"]
    with pytest.raises(ConfigError, match=r"budget\.prefill_ms is 1e-06 ms, but the fastest .* predicted to take"):
        rankitect.search(given)


def test_other_methods_search_against_latency(tmp_path):
    """DNAS meets targets of a learned latency, and every candidate keeps its bounds."""
    given = ["space=mobile_llm", "controller=dnas", "preset=smoke", "device=analytic", f"output_dir={tmp_path}/run"]
    rankitect.search([*given, "~constraints", "+constraints={prefill_ms: [0.4, 0.8]}"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    whole = next(b for b in summary["baselines"] if b["name"] == "backbone")["metrics"]["prefill_ms"]["value"]
    shares = [p["metrics"]["prefill_ms"]["value"] / whole for p in summary["pareto"]]
    assert shares
    assert all(0.39 <= share <= 0.81 for share in shares)


def test_it_brings_a_device_and_evaluators_and_another_device_may_be_chosen():
    brought, chosen = (resolve(["controller=staged", *more]).plugins for more in ([], ["device=analytic"]))
    assert (brought["device"].name, chosen["device"].name) == ("host", "analytic")
    assert brought["evaluator.screen"].name == chosen["evaluator.screen"].name == "briefly_healed"


def test_a_latency_without_a_device_is_refused(tmp_path):
    given = ["space=mobile_llm", "controller=dnas", "preset=smoke", f"output_dir={tmp_path}/run"]
    with pytest.raises(ConfigError, match="add device=host"):
        rankitect.search([*given, "~constraints", "+constraints={prefill_ms: [0.4, 0.8]}"])
