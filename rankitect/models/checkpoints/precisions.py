"""In which precisions GGUF files are written. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from rankitect.errors import AssetError

__all__ = ["FILE_TYPES", "PLAIN", "PRECISIONS", "GGUFPrecision", "require_quantizer"]

GGUFPrecision = Literal["float32", "float16", "bfloat16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"]
PRECISIONS: tuple[GGUFPrecision, ...] = get_args(GGUFPrecision)
"""How the matrices of a file are stored. Those from "q8_0" on are made by llama.cpp itself."""
FILE_TYPES: Mapping[GGUFPrecision, int] = {
    "float32": 0, "float16": 1, "bfloat16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_0": 2
}  # fmt: skip
"""llama.cpp's numbers of them (`general.file_type`)."""
PLAIN = ("float32", "float16", "bfloat16")
"""Those that need nothing but the package `gguf`."""


def require_quantizer(precision: GGUFPrecision) -> None:
    """Check that a precision can be made.

    Raises:
        AssetError: It is made by llama.cpp, which is not installed.
    """
    if precision in PLAIN:
        return
    try:
        import llama_cpp  # noqa: F401
    except ImportError as error:
        raise AssetError(
            f"precision={precision} is made by llama.cpp: pip install llama-cpp-python. Without it there are "
            f"{', '.join(PLAIN)}."
        ) from error
