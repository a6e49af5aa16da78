"""MobileLLM's config.json (arXiv 2402.14905) as a Llama's.

The class that its folders bring computes a Llama; whether the output table is the embedding, and whether layers run
twice, stands in keys of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.own_code import CODE, check_code
from rankitect.models.families.llama import LLAMA
from rankitect.models.families.values import among, same

__all__ = ["MODEL_TYPE", "as_llama"]

MODEL_TYPE = "mobilellm"
"""The value of `model_type`."""
_ARCHITECTURE = "MobileLLMForCausalLM"
_SHARED, _TWICE, _TIED = "share_embedding", "layer_sharing", "tie_word_embeddings"


def as_llama(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The configuration of the Llama that a MobileLLM is; another model's as given.

    Args:
        raw: The content of config.json.
        where: The file, for errors.

    Raises:
        AssetError: It is a MobileLLM whose layers run twice, or does not say whether its output table is the embedding.
    """
    if not same(raw.get("model_type"), MODEL_TYPE):
        return raw
    given, shared, twice, tied = (raw.get(key) for key in ("architectures", _SHARED, _TWICE, _TIED))
    if given is not None and given != [_ARCHITECTURE]:
        raise AssetError(f"{where}: architectures is {shown(given)}. Supported: {[_ARCHITECTURE]}.")
    if not isinstance(shared, bool):
        stated = f"is {shown(shared)}" if _SHARED in raw else "is missing"
        raise AssetError(
            f"{where}: {_SHARED} {stated}; it must say by true or false whether the output table is the embedding."
        )
    if not among(twice, (False, None)):
        raise AssetError(f"{where}: {_TWICE} is {shown(twice)}. Supported: False; the layers of a backbone run once.")
    check_code(raw.get(CODE), MODEL_TYPE, _ARCHITECTURE, where)
    left = {key: value for key, value in raw.items() if key not in (_SHARED, _TWICE, CODE)}
    layout = LLAMA.huggingface
    left |= {"model_type": layout.model_type, "architectures": [layout.architecture]}
    return {**left, _TIED: shared if among(tied, (False, None)) else tied}
