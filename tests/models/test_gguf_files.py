"""GGUF files: what does not lie where it should, or is not what it should be, is refused; parts are one model."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from rankitect.errors import AssetError
from rankitect.models.checkpoints import DecoderConfig, load_checkpoint
from tests.models.checkpoint_files import TINY, gguf_name, lively, some_ids, write_gguf
from tests.models.reference import ReferenceLlama

CHECKPOINT = lively(TINY)
Change = Callable[[bytearray, dict[str, int]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", CHECKPOINT)


def places(path: Path) -> dict[str, int]:
    """Where in a file the value of each scalar key, and the offset of each tensor, stands."""
    reader = gguf.GGUFReader(path)

    def last(field: gguf.ReaderField) -> int:
        return field.offset + sum(part.nbytes for part in field.parts[:-1])

    keys = {key: last(field) for key, field in reader.fields.items() if len(field.types) == 1}
    return keys | {tensor.name: last(tensor.field) for tensor in reader.tensors}


def put(code: str, name: str, value: float, back: int = 0) -> Change:
    """Write a number where a key or the offset of a tensor stands, or some bytes before it."""
    return lambda data, at: struct.pack_into(f"<{code}", data, at[name] - back, value)


def offset_of(name: str, other: str) -> Change:
    return lambda data, at: struct.pack_into("<Q", data, at[name], struct.unpack_from("<Q", data, at[other])[0])


def renamed(old: bytes, new: bytes) -> Change:
    def change(data: bytearray, at: dict[str, int]) -> None:
        data[:] = data.replace(old, new, 1)

    return change


GATE, UP = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (offset_of(UP, GATE), f"the tensor '{UP}' begins at byte"),
        (put("Q", GATE, 4), f"the tensor '{GATE}' begins at byte"),
        (put("Q", GATE, 2**63), f"the tensor '{GATE}' begins at byte"),
        (put("I", "output_norm.weight", 1, 4), "its last tensor ends at byte"),  # half as many bytes: float16
        (put("I", GATE, 1, 4), "without gap or overlap"),
        (put("I", GATE, 99, 4), f"'{GATE}' is stored as unknown type 99"),
        (put("Q", GATE, 2**62, 12), f"the tensor '{GATE}' ends at byte"),
        (lambda data, at: data.extend(b"x" * 64), "its last tensor ends at byte"),
        (lambda data, at: struct.pack_into("<Q", data, 8, 3 * 10**9), "it announces 3,000,000,000 entries"),
        (lambda data, at: struct.pack_into("<Q", data, 16, 3 * 10**9), "it announces 3,000,000,000 entries"),
        (
            lambda data, at: data.__setitem__(slice(0, len(data)), bytes(data).replace(b"ffn_up", b"ffn_uq", 1)),
            "ffn_uq",
        ),
        (
            lambda data, at: data.__setitem__(
                slice(0, len(data)), bytes(data).replace(b"blk.1.ffn_up", b"blk.0.ffn_up", 1)
            ),
            "lists the tensor 'blk.0.ffn_up.weight' twice",
        ),
        (put("f", "llama.rope.freq_base", np.inf), "llama.rope.freq_base is inf; it must be a number from"),
        (put("f", "llama.rope.freq_base", np.nan), "llama.rope.freq_base is nan"),
        (put("f", "llama.attention.layer_norm_rms_epsilon", 0), "layer_norm_rms_epsilon is 0.0; it must be"),
        (put("I", "llama.context_length", 0), "llama.context_length is 0; it must be an integer from 1"),
    ],
)
def test_damaged_tables_are_refused(whole: Path, tmp_path: Path, change: Change, message: str) -> None:
    data = bytearray(whole.read_bytes())
    change(data, places(whole))
    (tmp_path / "damaged.gguf").write_bytes(data)
    with pytest.raises(AssetError, match=re.escape(message)) as caught:
        load_checkpoint(tmp_path / "damaged.gguf")
    assert len(str(caught.value)) <= 500


def test_how_text_is_cut_is_not_guessed(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINT)
    path.write_bytes(path.read_bytes().replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.prf", 1))
    with pytest.raises(AssetError, match=r"the key 'tokenizer\.ggml\.pre' is missing"):
        load_checkpoint(path)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINT, keys={"llama.block_counu": 1})
    path.write_bytes(path.read_bytes().replace(b"llama.block_counu", b"llama.block_count", 1))
    with pytest.raises(AssetError, match=r"it has the key 'llama\.block_count' twice"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(whole: Path, tmp_path: Path, value: float) -> None:
    data = bytearray(whole.read_bytes())
    struct.pack_into("<f", data, len(data) - 4, value)
    (tmp_path / "nan.gguf").write_bytes(data)
    with pytest.raises(AssetError, match="holds values that are not finite numbers"):
        load_checkpoint(tmp_path / "nan.gguf")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama.rope.scaling.factor": "4"}, "llama.rope.scaling.factor is '4'; it must be a number from 0 to"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type is 'longrope'. Supported: 'none' or"),
        ({"llama.rope.scaling.original_context_length": 64}, "original_context_length is 64. Supported: 128."),
        ({"llama.rope.scaling.yarn_log_multiplier": 1}, "'llama.rope.scaling.yarn_log_multiplier' is 1, and no Llama"),
        ({"llama.rope.dimension_count": 16}, "llama.rope.dimension_count is 16. Supported: 32."),
        ({"llama.attention.value_length": 16}, "llama.attention.value_length is 16. Supported: 32."),
        ({"llama.vocab_size": 299}, "llama.vocab_size is 299. Supported: 300."),
        ({"llama.attention.head_count": True}, "llama.attention.head_count is True; it must be an integer"),
        ({"tokenizer.ggml.bos_token_id": True}, "the key 'tokenizer.ggml.bos_token_id' holds True; supported is"),
        ({"llama.logit_scale": 8}, "llama.logit_scale is 8"),
        ({"llama.something": 1}, "'llama.something' is 1, and no Llama that is understood has it"),
        ({"general.type": "adapter"}, "holds no model: its general.type is 'adapter'"),
    ],
)
def test_keys_that_change_what_is_computed_are_refused(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINT, keys=keys)
    with pytest.raises(AssetError, match=re.escape(message)):
        load_checkpoint(path)


def test_keys_that_change_nothing_pass(tmp_path: Path) -> None:
    keys: dict[str, object] = {
        "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1, "llama.expert_count": 0,
        "llama.rope.dimension_count": 32, "llama.vocab_size": 300, "general.description": "rope.scaling",
    }  # fmt: skip
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINT, keys=keys, extra={"rope_freqs.weight": np.ones(16, "f4")})
    again = load_checkpoint(path)
    assert again.config == TINY
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in CHECKPOINT.tensors.items())


def test_a_gguf_file_has_the_logits_that_transformers_reads_from_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    sizes = {"vocab": 258, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "ffn": 48}
    config = DecoderConfig(**sizes, rope_base=500.0, norm_eps=1e-3, tied_embeddings=False)
    path, ids = write_gguf(tmp_path / "tiny.gguf", lively(config)), some_ids(config)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(load_gguf_checkpoint(path)["config"]))
    model.load_state_dict(load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"])
    with torch.no_grad():
        ours = ReferenceLlama.load(load_checkpoint(path))(ids)
        torch.testing.assert_close(ours, model.float().eval()(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["TINY.GGUF", "model-without-suffix", "model.bin"])
def test_a_gguf_file_is_one_whatever_its_name(whole: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(whole.read_bytes())
    assert load_checkpoint(tmp_path / name).config == TINY


# Parts


def split(whole: Path, folder: Path, counts: tuple[int, ...] = (7, 0, 13)) -> list[Path]:
    """A model in as many parts, as `gguf-split` writes them, with so many tensors each."""
    reader, names, paths = gguf.GGUFReader(whole), [gguf_name(name) for name in CHECKPOINT.tensors], []
    arrays = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    for number, count in enumerate(counts):
        path = folder / f"tiny-{number + 1:05}-of-{len(counts):05}.gguf"
        writer = gguf.GGUFWriter(str(path), "llama")
        if number == 0:
            for key, field in reader.fields.items():
                if not key.startswith(("GGUF.", "general.architecture")):
                    kind = field.types[0]
                    inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                    writer.add_key_value(key, field.contents(), kind, inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", len(counts))
        writer.add_int32("split.tensors.count", len(names))
        for name in names[sum(counts[:number]) :][:count]:
            writer.add_tensor(name, arrays[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


@pytest.mark.parametrize("given", [0, 2])
def test_a_model_in_parts_is_read_from_any_of_them(whole: Path, tmp_path: Path, given: int) -> None:
    again = load_checkpoint(split(whole, tmp_path)[given])
    assert again.config == TINY
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in CHECKPOINT.tensors.items())


def test_parts_that_do_not_fit_are_refused(whole: Path, tmp_path: Path) -> None:
    first, second, third = split(whole, tmp_path)
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(AssetError, match=r"one of 3 parts; missing beside it: tiny-00002-of-00003\.gguf"):
        load_checkpoint(third)
    second.write_bytes(third.read_bytes())
    with pytest.raises(AssetError, match=r"says that it is part 3 of 3, its name says 2"):
        load_checkpoint(first)
    second.write_bytes(kept)
    (tmp_path / "renamed.gguf").write_bytes(first.read_bytes())
    with pytest.raises(AssetError, match=r"its name must end in -00001-of-00003\.gguf"):
        load_checkpoint(tmp_path / "renamed.gguf")
    split(whole, tmp_path, (7, 0, 12))
    with pytest.raises(AssetError, match=r"split\.tensors\.count is 20, the 3 parts hold 19 tensors"):
        load_checkpoint(first)
