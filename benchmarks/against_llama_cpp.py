"""The backbone's program against llama.cpp on the same weights: prefill of 128 tokens, decode at 256, one thread.

llama.cpp gets the backbone's own GGUF file (4 bits) and one with the same weights in float32, which is written once.
Rounds alternate, so that ratios hold on a machine that drifts. It needs llama-cpp-python, which is built on
installation:

    pip install llama-cpp-python
    python benchmarks/against_llama_cpp.py --rounds 15
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from common import arguments, table
from on_device import NAMES, _parts

TOKENS = {"prefill_ms": 128, "decode_ms": 256}


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=15, folder="runs/bench-llama-cpp")
    options.folder, options.overrides = Path(options.folder), []
    options.folder.mkdir(parents=True, exist_ok=True)
    from llama_cpp import Llama

    from rankitect.data.assets import asset_path

    four_bits = asset_path("smollm2-135m")
    whole = options.folder / "float32.gguf"
    if not whole.exists():
        in_float32(four_bits, whole)
    place = exported(options)
    made = {"llama.cpp, float32": whole, "llama.cpp, its 4 bits": four_bits}
    models = {
        name: Llama(str(path), n_ctx=264, n_threads=1, n_threads_batch=1, n_batch=256, verbose=False)
        for name, path in made.items()
    }
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for name in NAMES:
            times.setdefault(("ExecuTorch, float32", name), []).append(ours(place, name))
            for title, model in models.items():
                times.setdefault((title, name), []).append(theirs(model, name))
    rows = []
    for title in ("ExecuTorch, float32", *models):
        cells = []
        for name in NAMES:
            own, base = (times[title, name], times["ExecuTorch, float32", name])
            low, high = min(own), max(own)
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):.1f} ({low:.1f} to {high:.1f}), ratio {ratio:.2f}")
        rows.append((title, *cells))
    header = ("runtime", "prefill 128, ms", "decode 256, ms")
    table(
        "One thread, the backbone",
        header,
        rows,
        "Median (range) of rounds; ratios within rounds, to ExecuTorch.",
        timed=False,
    )


def in_float32(source: Path, target: Path) -> None:
    """The same GGUF file with every tensor in float32."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"]
    writer = gguf.GGUFWriter(target, bytes(architecture.parts[architecture.data[0]]).decode())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        if field.name == "general.file_type":
            writer.add_file_type(0)
        else:
            writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_LOADED: dict[str, Any] = {}


def exported(options: Any) -> Path:
    """The backbone's program, made once."""
    place = options.folder / "program"
    if not (place / "model.pte").exists():
        parts = _parts(options)
        task = parts.task
        model = task.backbone.supernet.extract(task.reference)
        predicted = {name: task.latency.predict(task.reference, name) for name in NAMES}
        parts.device.export(place, model, task.checkpoint.tokenizer, predicted, task.sample_text())
    return place / "model.pte"


def ours(path: Path, name: str) -> float:
    """Milliseconds of one run of the program, in this process."""
    from rankitect.deploy.worker import Loaded

    if not _LOADED:
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(1)
        _LOADED.update({n: Loaded(str(path), 1, n.removesuffix("_ms")) for n in NAMES})
    return float(_LOADED[name].round()[0])


def theirs(model: Any, name: str) -> float:
    """Milliseconds of one evaluation by llama.cpp."""
    count = TOKENS[name]
    model.reset()
    if name == "decode_ms":
        model.eval(list(range(100, 100 + count - 1)))
        batch = [7]
    else:
        batch = list(range(100, 100 + count))
    started = time.perf_counter()
    model.eval(batch)
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main()
