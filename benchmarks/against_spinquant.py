"""Rotated weights against those of SpinQuant's own code (facebookresearch/SpinQuant), for the same rotations.

Its functions run on the processor here: "cuda" in their source is replaced, and the one kernel that needs a GPU, the
fast Hadamard transform, by a product with the same matrix. Give the folder of a checkout:

    git clone https://github.com/facebookresearch/SpinQuant
    python benchmarks/against_spinquant.py --code SpinQuant
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from common import arguments, table
from torch import nn

from rankitect.blocks.hadamard import hadamard
from rankitect.models.backbone import largest
from rankitect.models.supernet import Standalone, build
from rankitect.quantization.rotations import draw, turning
from rankitect.search_spaces.mobile_llm import mobile_llm

FILES = ("utils/hadamard_utils.py", "utils/fuse_norm_utils.py", "eval_utils/rotation_utils.py")
SIZES: dict[str, Any] = {
    "vocab": 50,
    "layers": 3,
    "widths": [48],
    "kv_heads": [2],
    "group": [2],
    "ffn": [128],
    "head": 8,
}


def transformed(x: torch.Tensor) -> torch.Tensor:
    """What fast_hadamard_transform gives: the last axis times Sylvester's matrix of 1 and -1."""
    n = x.shape[-1]
    result: torch.Tensor = x @ (hadamard(n) * n**0.5).to(x)
    return result


def theirs(code: Path) -> SimpleNamespace:
    """The functions of the checkout by name."""
    utils = ModuleType("utils")
    helpers = ModuleType("utils.utils")
    vars(helpers)["HadamardTransform"] = SimpleNamespace(apply=transformed)
    vars(utils).update(monkeypatch=None, quant_utils=None, utils=helpers)
    sys.modules |= {"utils": utils, "utils.utils": helpers}
    names: dict[str, Any] = {}
    for file in FILES:
        source = (code / file).read_text().replace('"cuda"', '"cpu"').replace(".cuda()", ".cpu()")
        module = ModuleType(file.removesuffix(".py").replace("/", "."))
        sys.modules[module.__name__] = module
        exec(compile(source, str(code / file), "exec"), vars(module))
        names |= vars(module)
    return SimpleNamespace(**names)


def linear(weight: torch.Tensor) -> nn.Linear:
    """A weight of ours as a layer of theirs."""
    rows = weight.detach().clone().double()
    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = rows
    return layer


def as_theirs(model: Standalone) -> SimpleNamespace:
    """Our model in the shape that their functions take."""
    weights = dict(model.named_parameters())
    layers = []
    for i in range(SIZES["layers"]):
        own = {name.removeprefix(f"layers.{i}."): w for name, w in weights.items() if name.startswith(f"layers.{i}.")}
        attention = {f"{n}_proj": linear(own[f"attn.shared.{n}"].flatten(0, -2)) for n in "qkv"}
        attention["o_proj"] = linear(own["attn.shared.o"].flatten(1))
        feed = {f"{n}_proj": linear(own[f"mlp.{n}"]) for n in ("gate", "up", "down")}
        norms = [SimpleNamespace(weight=own[f"norm{n}.weight"].detach().clone()) for n in (1, 2)]
        layers.append(
            SimpleNamespace(
                self_attn=SimpleNamespace(**attention), mlp=SimpleNamespace(**feed), input_layernorm=norms[0],
                post_attention_layernorm=norms[1],
            )
        )  # fmt: skip
    embed = SimpleNamespace(weight=nn.Parameter(weights["embed.weight"].detach().clone().double(), False))
    norm = SimpleNamespace(weight=weights["norm.weight"].detach().clone())
    return SimpleNamespace(
        model=SimpleNamespace(embed_tokens=embed, layers=layers, norm=norm), lm_head=linear(weights["embed.weight"])
    )


def main() -> None:
    """Print the largest differences."""
    options = arguments(str(__doc__).splitlines()[0], 1, code="SpinQuant")
    space = mobile_llm(**SIZES, patterns=["full"], runs=[1])
    model = build(space, largest(space), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    code, other = theirs(Path(options.code)), as_theirs(model)
    ready = turning(space, model, head="untied", r3=False, r4=True)
    rotations = draw(ready.sizes, 0)
    ours = as_theirs(rotated := ready.model(rotations, model))
    ours.lm_head = linear(rotated.owner("head").weight)
    code.fuse_ln_linear(other.model.norm, [other.lm_head])
    code.rotate_embeddings(other, rotations["stream"])
    code.rotate_head(other, rotations["stream"])
    for i, layer in enumerate(other.model.layers):
        attention, feed = layer.self_attn, layer.mlp
        code.fuse_ln_linear(layer.post_attention_layernorm, [feed.up_proj, feed.gate_proj])
        code.fuse_ln_linear(layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj])
        code.rotate_attention_inputs(layer, rotations["stream"])
        code.rotate_attention_output(layer, rotations["stream"])
        code.rotate_mlp_input(layer, rotations["stream"])
        code.rotate_mlp_output(layer, rotations["stream"])
        code.rotate_ov_proj(layer, 4, SIZES["head"], R2=rotations[f"layers.{i}.attn.shared"])
    rows = []
    for name in (
        "embed_tokens",
        "lm_head",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ):
        pairs = [(find(ours, name, i), find(other, name, i)) for i in range(SIZES["layers"])]
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        rows.append((name, f"{worst:.1e}"))
    table("Rotated weights, ours against SpinQuant's", ("weight", "largest difference, relative"), rows, timed=False)


def find(model: SimpleNamespace, name: str, layer: int) -> torch.Tensor:
    """A weight by their name."""
    if name in ("embed_tokens", "lm_head"):
        holder = model.lm_head if name == "lm_head" else model.model.embed_tokens
    else:
        one = model.model.layers[layer]
        holder = vars(one.self_attn).get(name) or vars(one.mlp)[name]
    weight: torch.Tensor = holder.weight.detach().double()
    return weight


if __name__ == "__main__":
    main()
