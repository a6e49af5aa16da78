"""Programs whose matrices and tables have bits of their own: what is faked runs, and what is counted is there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import pytest
import torch

from rankitect.deploy.artifact import calls
from rankitect.deploy.devices import AnalyticDevice, HostDevice
from rankitect.deploy.lowering import TOLERANCE_QUANTIZED, lower
from rankitect.deploy.parts import Workload, parts_of
from rankitect.deploy.precision import precision_of, quantized_share, require_lowerable, require_lowerable_space
from rankitect.errors import DeployError
from rankitect.graph import SearchSpace
from rankitect.models.deployed import DeployedCall
from rankitect.models.deployed_weights import QuantizedMatrix, QuantizedTable
from rankitect.models.numerics import Numerics, fake_weight
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone, build
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.search_spaces.mobile_llm_bits import Bits

GROUPS = {"bits": 4, "scale_group": 32, "act_bits": 8}
ROWS = {"bits": 4, "act_bits": 8}
EIGHT = {"bits": 8, "act_bits": 8}


def mixed(**numbers: dict[str, int]) -> SearchSpace:
    """One layer of which each block has numbers of its own; "_" in a name stands for a dot."""
    plain = mobile_llm(
        vocab=72, layers=1, widths=(64,), kv_heads=(2,), group=(1,), ffn=(96,), patterns=("full",), head=16, runs=(1,)
    )
    paths = {"attn": "layers.0.attn", "mlp": "layers.0.mlp", "embed": "embed", "head": "head"}
    paths = {k: next(n.path for n in plain.graph.nodes if n.path.startswith(p)) for k, p in paths.items()}
    blocks = {paths[k]: dataclasses.replace(plain.graph.node(paths[k]).block, **v) for k, v in numbers.items()}
    return plain.with_blocks(blocks)


def model_of(space: SearchSpace) -> Standalone:
    model = build(space, space.sample(0), 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # equal norms would be one constant of the file
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.slow
def test_a_program_of_many_bits_is_its_model_and_as_large_as_its_cost() -> None:
    pytest.importorskip("executorch")
    space = mixed(attn=GROUPS, mlp=ROWS, embed={"bits": 4, "scale_group": 32}, head=EIGHT)
    model = model_of(space)
    methods = calls(model, 6, 12)
    lowered = lower(methods)  # which runs it beside its methods
    assert max(lowered.errors.values()) < 1e-5
    assert quantized_share(methods) == 1.0
    assert precision_of(model.plan) == "8da4w, 8da4w (by row), 8da8w, tables in 4 bits"
    ids = torch.randint(0, 72, (1, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, given = model(ids)[0, -1], methods["prefill"](ids, torch.eye(6)[-1:])[0].flatten()
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    assert stored_weights(lowered.buffer, methods) == space.cost(space.sample(0), "program_bytes")


LONG = os.environ.get("RANKITECT_HYPOTHESIS") == "long"
"""Whether many programs are lowered (see `tests.conftest`), seconds each."""


@pytest.mark.identity
@pytest.mark.parametrize("seed", range(100 if LONG else 0))
def test_a_program_of_any_bits_is_its_model_and_as_large_as_its_cost(seed: int) -> None:
    pytest.importorskip("executorch")
    space = mobile_llm(
        vocab=72, layers=2, widths=(64,), kv_heads=(2, 1), group=(1,), ffn=(96, 64), window=4, head=32, runs=(1, 0),
        bits=Bits((32, 8, 4), (8, 4), (32, 8, 4), group=seed % 2 * 32),
    )  # fmt: skip
    architecture = space.sample(seed)
    plan = make_plan(space, architecture)
    generator = torch.Generator().manual_seed(seed)
    model = Standalone(plan, {key: torch.randn(shape, generator=generator) for key, shape in plan.shapes().items()})
    methods = calls(model.eval(), 6, 12)
    lowered = lower(methods)  # which runs it beside its methods
    assert max(lowered.errors.values()) < TOLERANCE_QUANTIZED
    assert stored_weights(lowered.buffer, methods) == space.cost(architecture, "program_bytes")


@torch.no_grad()
def test_calls_of_random_bits_compute_what_their_models_compute() -> None:
    pytest.importorskip("torchao")
    bits = Bits((32, 8, 4), (8, 4), (32, 8, 4))
    space = mobile_llm(
        vocab=72, layers=2, widths=(64,), kv_heads=(2,), group=(1,), ffn=(96,), window=4, head=16, runs=(1,), bits=bits
    )
    ids, errors = torch.randint(0, 72, (1, 6), generator=torch.Generator().manual_seed(0)), []
    for architecture in space.sample_many(12, 0):
        model = build(space, architecture, 0).eval()
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
        given = calls(model, 6, 12)["prefill"](ids, torch.eye(6)[-1:])[0].flatten()
        wanted = model(ids)[0, -1]
        errors.append(float((given - wanted).abs().max() / wanted.abs().max()))
    assert max(errors) < TOLERANCE_QUANTIZED  # an activation that lies between two levels may be rounded either way
    assert sorted(errors)[len(errors) // 2] < 1e-5


def stored_weights(buffer: bytes, methods: Mapping[str, DeployedCall]) -> int:
    """Bytes of the constants of a file, those left out that are no weights: masks, means, positions, single numbers."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    file = deserialize_pte_binary(buffer)
    delegated = {bytes(blob) for blob in file.named_data.buffers}
    tables = {bytes(c.storage) for c in file.program.constant_buffer if len(c.storage)}
    constants = {
        bytes(t.contiguous().numpy().tobytes())
        for m in methods.values()
        for name, t in m.named_buffers(recurse=False)
        if name.startswith("constant")
    }
    weights = {
        p.detach().numpy().tobytes() for m in methods.values() for p in m._weights[0].parameters() if p.dim() == 1
    }
    return sum(len(b) for b in (delegated | tables) - (constants - weights) if len(b) > 64)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"bits": 3, "act_bits": 8}, "weights of 3 bits are not among those"),
        ({"bits": 4, "scale_group": 16, "act_bits": 8}, "groups of a multiple of 32"),
        ({"bits": 8, "scale_group": 32, "act_bits": 8}, "a scale for each output, not for groups of 32"),
        ({"bits": 4, "scale_group": 32}, "need activations of 8 bits, not 32"),
        ({"bits": 4, "scale_group": 32, "act_bits": 4}, "need activations of 8 bits, not 4"),
        ({"act_bits": 8}, "activations of 8 bits need weights of 4 or 8 bits"),
        ({"cache_bits": 8}, "keep keys and values in 32 bits, not in 8"),
    ],
)
def test_bits_that_the_runtime_lacks_are_refused_before_any_work(numbers: dict[str, int], said: str) -> None:
    space = mixed(attn=numbers)
    with pytest.raises(DeployError, match=r"^layers\.0\.attn.* cannot be exported: .*" + said):
        require_lowerable(make_plan(space, space.sample(0)))
    with pytest.raises(DeployError, match=r"^layers\.0\.attn.* cannot be exported: .*" + said):
        require_lowerable_space(space)
    with pytest.raises(DeployError, match=said):
        HostDevice(HostDevice.Config()).latency(space)


def test_tables_and_matrices_hold_what_is_faked() -> None:
    pytest.importorskip("torchao")
    weight = torch.randn(9, 33, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[3, 0], [8, 8]])
    for bits in (4, 8, 16):
        numerics = Numerics(bits, 0, 1)
        table = QuantizedTable(weight, numerics, None)
        torch.testing.assert_close(table(rows), fake_weight(weight, numerics)[rows], rtol=1e-6, atol=1e-6)
    stored = weight.abs().amax(1, keepdim=True) / 5  # searched ranges cut the largest weights off
    for bits in (4, 8):
        numerics = Numerics(bits, 0, 1, "weight_scale")
        matrix = QuantizedMatrix(weight, numerics, stored)
        eye = matrix(torch.eye(33))  # ones and zeros are rounded to themselves
        torch.testing.assert_close(eye.T, fake_weight(weight, numerics, stored), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "called"),
    [
        ({}, "float32"),
        ({"embed": {"bits": 4}}, "float32, tables in 4 bits"),
        ({"embed": {"bits": 8}}, "float32, tables in 8 bits"),
        ({"embed": {"bits": 8}, "attn": GROUPS, "mlp": GROUPS, "head": GROUPS}, "8da4w"),
        ({"embed": {"bits": 4}, "head": EIGHT}, "8da8w, tables in 4 bits"),
    ],
)
def test_a_precision_names_tables_where_they_are_not_the_usual_ones(
    numbers: dict[str, dict[str, int]], called: str
) -> None:
    space = mixed(**numbers)
    assert precision_of(make_plan(space, space.sample(0))) == called


def test_a_part_has_the_bits_of_its_blocks() -> None:
    whole, few = (mixed(**numbers) for numbers in ({}, {"attn": GROUPS, "mlp": EIGHT}))
    parts = [parts_of(make_plan(s, s.sample(0)), Workload("decode", 8))[0] for s in (whole, few)]
    assert parts[0].key != parts[1].key
    assert [p.weight_bytes for p in parts] == [s.cost(s.sample(0), "weight_bytes", "layers") for s in (whole, few)]
    device = AnalyticDevice(AnalyticDevice.Config(prompt=4, context=8))
    assert device.part(parts[1]).p50 < device.part(parts[0]).p50


@pytest.mark.parametrize("device", [HostDevice, AnalyticDevice])
def test_a_device_has_no_precision(device: type) -> None:
    with pytest.raises(ValueError, match=r"device\.precision is no key.*stage `quantize`.*space=mobile_llm_bits"):
        device.Config(precision="8da4w")


def test_an_exported_matrix_switches_no_gradients() -> None:
    """`torch.export` splits a program at each switch, and mends it in a time that grows with their square."""
    matrix = QuantizedMatrix(torch.randn(8, 32), Numerics(4, 32), None).eval()
    with torch.no_grad():
        program = torch.export.export(matrix, (torch.randn(1, 3, 32),), strict=False)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("affine" in call for call in calls) == 4
    assert not [call for call in calls if "set_grad" in call or "wrap_with" in call]
