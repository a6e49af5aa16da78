"""The measuring process on real programs."""

from __future__ import annotations

import pytest

from rankitect.contracts import StopRequested
from rankitect.deploy.host import Host
from rankitect.deploy.lowering import lower
from rankitect.deploy.parts import Workload, parts_of
from rankitect.deploy.timing import Meter, Reference, TimingSettings
from rankitect.errors import DeployError
from tests.deploy.tiny import model

pytestmark = pytest.mark.slow
WORKLOAD = Workload("prefill", 16)
QUICK = TimingSettings(seconds=0.5, rounds=6, target=0.5, stream_bytes=2**20)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("part") / "part.pte"
    part = parts_of(model().plan, WORKLOAD)[0]
    path.write_bytes(lower({"forward": part.program()}).buffer)
    return path


def test_a_program_beside_itself_takes_its_own_time(program):
    with Meter(QUICK) as meter:
        alone = meter.time(program, copies=4)
        beside = meter.time(program, Reference(program, 4, 4 * 123.0), copies=4)
    assert alone.low <= alone.p50 <= alone.high
    assert 0 < alone.p50 <= alone.p99
    assert 60 < beside.p50 < 240  # the reference is said to take 123 ms, so the same program does
    assert beside.p50 / 2 < beside.p90 <= beside.p99  # in the same corrected milliseconds
    assert beside.runs >= 24


def test_what_never_settles_is_flagged(program):
    with Meter(TimingSettings(seconds=0.2, rounds=6, target=1e-9)) as meter:
        timing = meter.time(program)
    assert not timing.settled
    assert not timing.trusted


def test_a_damaged_program_ends_in_an_error_and_the_next_is_measured(program, tmp_path):
    bad = tmp_path / "bad.pte"
    bad.write_bytes(program.read_bytes()[:200])
    with Meter(QUICK) as meter:
        with pytest.raises(DeployError, match=r"bad\.pte"):
            meter.time(bad)
        assert meter.time(program).p50 > 0


def test_a_stop_ends_the_measuring_process(program):
    meter = Meter(TimingSettings(seconds=60, target=1e-9), should_stop=lambda: True)
    with pytest.raises(StopRequested):
        meter.time(program)
    assert meter._process is None


def test_a_part_is_measured_once(tmp_path):
    part = parts_of(model().plan, WORKLOAD)[0]
    host = Host(QUICK, cache=tmp_path)
    first = host.part(part)
    assert host.measured == 1
    host.close()
    if first.trusted:  # a measurement on a busy machine is not kept
        again = Host(QUICK, cache=tmp_path)
        assert again.part(part) == first
        assert again.measured == 0
