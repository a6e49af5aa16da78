"""Loading a pretrained model from wherever it is: a named asset, a GGUF file or a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from rankitect.data.assets import ASSETS, asset_path
from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint
from rankitect.models.checkpoints.gguf import load_gguf
from rankitect.models.checkpoints.huggingface import load_huggingface

__all__ = ["load_checkpoint"]


def load_checkpoint(path_or_name: str | Path) -> DecoderCheckpoint:
    """Load a pretrained model of a supported family.

    Args:
        path_or_name: The name of an asset ("smollm2-135m", fetched on first use), a ``.gguf`` file, or a Hugging Face
            folder with config.json, safetensors and tokenizer.json.

    Raises:
        AssetError: There is no such asset, file or folder, or it is damaged or of an unsupported kind.
    """
    name = str(path_or_name)
    models = [known for known, asset in ASSETS.items() if asset.filename.endswith(".gguf")]
    if name in models:
        return load_gguf(
            asset_path(name), source=f"{name} ({ASSETS[name].requirement}, sha256 {ASSETS[name].sha256[:12]})"
        )
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return load_huggingface(path)
    if path.is_file() and path.suffix == ".gguf":
        return load_gguf(path)
    allowed = f"an asset ({', '.join(sorted(models))}), a .gguf file, or a Hugging Face folder with config.json"
    if path.exists():
        raise AssetError(f"{path} is not a checkpoint that can be loaded. Give {allowed}.")
    raise AssetError(f"There is no checkpoint {name!r}: no asset, file or folder has this name. Give {allowed}.")
