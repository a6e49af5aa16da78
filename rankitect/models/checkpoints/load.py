"""Loading a pretrained model from wherever it is: a named asset, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from rankitect.data.assets import ASSETS, asset_path
from rankitect.errors import AssetError, safe, shown
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint
from rankitect.models.checkpoints.gguf import load_gguf
from rankitect.models.checkpoints.gguf_file import is_gguf
from rankitect.models.checkpoints.huggingface import load_huggingface

__all__ = ["load_checkpoint"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""Names as `HuggingFaceTB/SmolLM2-135M`; paths may look like it, too."""


def load_checkpoint(path_or_name: str | Path) -> DecoderCheckpoint:
    """Load a pretrained model of a supported family.

    Args:
        path_or_name: The name of an asset ("smollm2-135m", fetched on first use), a GGUF file (of several parts,
            any), or a Hugging Face folder with config.json, safetensors and tokenizer.json.

    Raises:
        AssetError: There is no such asset, file or folder, or it is damaged or of an unsupported kind.
    """
    name = str(path_or_name)
    models = [known for known, asset in ASSETS.items() if asset.filename.endswith(".gguf")]
    if name in models:
        return load_gguf(
            asset_path(name), source=f"{name} ({ASSETS[name].requirement}, sha256 {ASSETS[name].sha256[:12]})"
        )
    allowed = f"an asset ({', '.join(sorted(models))}), a .gguf file, or a Hugging Face folder with config.json"
    try:
        path = Path(path_or_name).expanduser()
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # nothing there, no such user, or a name that no file can have
        why = "no asset, file or folder has this name"
        if _HUB_NAME.fullmatch(name):
            why += ", and models of the Hugging Face hub are not fetched (hf download NAME --local-dir FOLDER)"
        if not isinstance(error, FileNotFoundError):
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise AssetError(f"There is no checkpoint {shown(name)}: {safe(why)}. Give {allowed}.") from error
    if stat.S_ISDIR(mode) and (path / "candidate.json").is_file():
        raise AssetError(f"{path} is the folder of a candidate, which rankitect.models.candidate.load_backbone reads.")
    if stat.S_ISDIR(mode):
        return load_huggingface(path)
    if stat.S_ISREG(mode) and (path.suffix.lower() == ".gguf" or is_gguf(path)):
        return load_gguf(path)
    raise AssetError(f"{path} is not a checkpoint that can be loaded{_instead(path)}. Give {allowed}.")


def _instead(path: Path) -> str:
    """What a file is that people take for a checkpoint, for the message that refuses it."""
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        return ": pickled weights are not read, because loading them can run code"
    if path.suffix == ".safetensors" or path.name == "config.json":
        return ": it is one file of a folder, which is loaded as a whole"
    return ""
