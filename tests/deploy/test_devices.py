"""Devices: what each measures, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import stat
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rankitect.contracts import ExportsPrograms, ExportsRankers
from rankitect.deploy.android import Android
from rankitect.deploy.devices import AnalyticDevice, HostDevice
from rankitect.deploy.latency import Latency
from rankitect.deploy.layers import SpaceLayers
from rankitect.deploy.parts import Workload, parts_of
from rankitect.deploy.worker import median_interval
from rankitect.errors import DeployError, SpaceError
from rankitect.models.plan import make_plan
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.space.declaring import Choices
from tests.deploy import tiny


@pytest.fixture(scope="module")
def space():
    return mobile_llm(
        vocab=64,
        layers=5,
        widths=(64, 32),
        kv_heads=(1, 2),
        group=(1, 2),
        ffn=(32, 64, 96),
        window=8,
        head=16,
        runs=(1, 0),
    )


def analytic(**keys):
    return AnalyticDevice(AnalyticDevice.Config(prompt=16, context=32, **keys))


def test_equal_layers_are_one_part_wherever_they_stand(space):
    rng = np.random.default_rng(0)
    for architecture in space.sample_many(8, rng):
        parts = parts_of(make_plan(space, architecture), Workload("prefill", 16))[:-1]
        layers = SpaceLayers(space, 0).of(architecture)
        assert [p.name for p in parts] == [f"layers.{i}" for i in layers]
        by_choices = {}
        for part, layer in zip(parts, layers.values(), strict=True):
            by_choices.setdefault(layer, set()).add(part.key)
        assert all(len(keys) == 1 for keys in by_choices.values())
        assert len({next(iter(k)) for k in by_choices.values()}) == len(by_choices)


def test_predictions_are_sums_of_parts(space):
    device = analytic(measurements=20, error=1.0)
    latency = device.latency(space)
    rng = np.random.default_rng(1)
    for name, workload in device.workloads.items():
        errors = []
        for architecture in space.sample_many(10, rng):
            truth = sum(device.part(p).p50 for p in parts_of(make_plan(space, architecture), workload))
            found = latency.predict(architecture, name)
            assert found.low <= found.ms <= found.high
            errors.append(abs(found.ms / truth - 1))
        assert np.mean(errors) < 0.03
        assert latency.measured(name) <= 20


def test_estimates_are_labelled(space):
    latency = analytic(measurements=6).latency(space)
    assert {spec.unit for spec in latency.specs} == {"ms (estimate)"}
    assert {m.unit for m in latency.metrics(space.sample(0)).values()} == {"ms (estimate)"}


def test_the_interval_of_a_model_whose_layers_were_all_measured_holds_its_whole_program():
    space = mobile_llm(
        vocab=64, layers=5, widths=(64,), kv_heads=(1,), group=(1,), ffn=(32, 64, 96), window=8, head=16, runs=(1,)
    )
    device, call, name = analytic(), 0.05, "prefill_ms"

    class Measuring:
        """Times parts by the formula, and each with the call of a program of its own and a little noise."""

        name, estimate, identity = "measuring", False, {"device": "measuring"}

        def part(self, part):
            ms = device.part(part).p50 * (1 + int(part.key[:2], 16) / 25_500) + call
            return dataclasses.replace(device.part(part), p50=ms, low=0.99 * ms, high=1.01 * ms)

    latency = Latency(Measuring(), space, {name: device.workloads[name]}, target=100.0)
    assert latency.measured(name) == len(SpaceLayers(space, 0).places) <= 12
    for architecture in space.sample_many(5, 1):
        parts = parts_of(make_plan(space, architecture), device.workloads[name])
        whole = sum(device.part(p).p50 for p in parts) + call
        predicted = latency.predict(architecture, name)
        assert predicted.low <= whole <= predicted.high, "although the call is counted once for each part"
        assert predicted.high - predicted.low > 0.08 * predicted.ms


def test_a_part_that_cannot_be_measured_is_left_out_and_the_rest_goes_on(space):
    device = analytic(measurements=20)
    seen = []

    class Failing:
        name, estimate, identity = "failing", False, {"device": "failing"}

        def part(self, part):
            seen.append(part.key)
            if len(set(seen)) % 7 == 3:
                raise DeployError("an operator cannot be exported")
            return device.part(part)

    latency = Latency(Failing(), space, device.workloads, measurements=14, target=0.01)
    assert latency.learn("prefill_ms") is not None
    assert latency.excluded
    assert all("cannot be exported" in text for text in latency.excluded)


def test_the_medians_interval_holds_it_as_often_as_promised():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = median_interval(rng.exponential(size=25).tolist())
        held += low <= np.log(2) <= high
    assert 0.93 <= held / 300 <= 1.0
    assert median_interval([1.0, 2.0]) == (float("-inf"), float("inf"))


@pytest.fixture
def phone(tmp_path):
    adb = tmp_path / "adb"
    adb.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "fake_adb.py").read_text())
    adb.chmod(adb.stat().st_mode | stat.S_IXUSR)

    def made(mode, **keys):
        (tmp_path / "mode").write_text(mode)
        given = {"serial": None, "runner_path": "/data/local/tmp/r/executor_runner", "adb": str(adb), **keys}
        return Android(1, 10, 3, **given)

    return made


def test_a_phone_gives_the_runners_mean(phone, tmp_path):
    made = phone("fine")
    made.require()
    program = tmp_path / "x.pte"
    program.write_bytes(b"")
    timing = made.time(program)
    assert timing.p50 == pytest.approx(2.5)
    assert timing.runs == 30
    assert made.identity["device"] == "Phone"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("none", "no phone is attached"),
        ("unauthorized", r"PHONE1 \(unauthorized\)"),
        ("no runner", "has no executable"),
    ],
)
def test_what_a_phone_lacks_is_said(phone, mode, message):
    with pytest.raises(DeployError, match=message):
        phone(mode).require()


@pytest.mark.parametrize(("mode", "message"), [("gone", "not found"), ("crash", "status 0x14")])
def test_a_phone_that_fails_is_an_error(phone, tmp_path, mode, message):
    program = tmp_path / "x.pte"
    program.write_bytes(b"")
    with pytest.raises(DeployError, match=message):
        phone(mode).time(program)


def test_no_adb_and_another_phone(phone):
    with pytest.raises(DeployError, match="not installed"):
        phone("fine", adb="/nowhere/adb").require()
    with pytest.raises(DeployError, match="PHONE2: the phone is not attached"):
        phone("fine", serial="PHONE2").require()


def test_learning_stops_when_asked_and_begins_again(space):
    from rankitect.contracts import StopRequested

    latency, calls, told = analytic(measurements=14).latency(space), [], []

    def check():
        calls.append(1)
        if len(calls) == 5:
            raise StopRequested

    with pytest.raises(StopRequested):
        latency.learn("prefill_ms", check, lambda done, most, note: told.append((done, most)))
    assert told == [(n, 14) for n in range(1, 5)]
    assert latency.learn("prefill_ms", check) is latency.learn("prefill_ms")


@pytest.fixture(scope="module")
def costed():
    """A space with the latencies of a computed device among its costs."""
    made = tiny.space()
    latency = analytic(measurements=14).latency(made)
    made.learned.update({name: partial(latency.tables, name) for name in latency.workloads})
    return made, latency


@pytest.mark.parametrize("name", ["prefill_ms", "decode_ms"])
def test_a_latency_is_a_cost_of_the_space(costed, name):
    space, latency = costed
    for architecture in space.sample_many(20, 0):
        assert space.cost(architecture, name) == pytest.approx(latency.predict(architecture, name).ms)


def test_draws_keep_a_bound_on_latency(costed):
    space, latency = costed
    every = sorted(space.cost(a, "prefill_ms") for a in space.sample_many(50, 0))
    low, high = every[5], every[15]
    found = [latency.predict(a, "prefill_ms").ms for a in space.sample_many(20, 1, prefill_ms=(low, high))]
    assert low - 1e-9 <= min(found) <= max(found) <= high + 1e-9


def test_the_expected_latency_is_the_mean_over_draws_and_has_slopes(costed):
    space, _ = costed
    rng = np.random.default_rng(0)
    chances = {p: torch.tensor(rng.dirichlet(np.ones(len(c.values)))) for p, c in space.choices.items()}
    leaves = {p: c.requires_grad_(True) for p, c in chances.items()}
    expected = space.cost_tables("prefill_ms").expectation(leaves.__getitem__, torch.zeros((), dtype=torch.float64))
    n = 4000
    columns = {p: rng.choice(len(c), n, p=c.detach().numpy()) for p, c in chances.items()}
    drawn = space.cost(space.canonical(columns), "prefill_ms")
    assert float(expected) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / n**0.5)
    expected.backward()
    slope = leaves["layers.0.runs"].grad
    runs = list(space.choices["layers.0.runs"].values)
    assert slope[runs.index(1)] > slope[runs.index(0)]


def test_a_part_of_a_latency_is_no_cost(costed):
    with pytest.raises(SpaceError, match="unknown cost"):
        costed[0].cost_tables("prefill_ms", "layers")


def test_a_device_exports_what_it_has_the_capability_for():
    estimate, host = analytic(), HostDevice(HostDevice.Config())
    assert isinstance(host, ExportsPrograms)
    assert isinstance(host, ExportsRankers)
    assert not isinstance(estimate, ExportsPrograms)
    assert not isinstance(estimate, ExportsRankers)


def test_a_setting_that_shapes_nothing_makes_no_layer_of_its_own(space):
    declared = Choices("training")
    declared.choice("lr", [1, 3, 9])
    plain, extended = (analytic(measurements=6).latency(s) for s in (space, space.with_settings(declared, {"lr": 3})))
    for seed in range(4):
        architecture = space.sample(seed)
        values = {path: architecture.choices.get(path, c.values[0]) for path, c in space.choices.items()}
        for name in plain.workloads:
            expected = plain.predict(architecture, name)
            for lr in (1, 9):
                given = extended.space.architecture({**values, "lr": lr})
                assert extended.predict(given, name).ms == pytest.approx(expected.ms, rel=0.1)
    assert not any("lr" in dict(layer.choices) for layer in extended._layers.places)
    assert all("lr" not in table.paths for table in extended.tables("prefill_ms").tables)
