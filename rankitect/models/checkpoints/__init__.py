"""Pretrained Llama-family checkpoints: GGUF files, Hugging Face folders, named assets, and random ones for tests."""

from rankitect.models.checkpoints.gguf import load_gguf
from rankitect.models.checkpoints.huggingface import load_huggingface, save_huggingface
from rankitect.models.checkpoints.llama import (
    LlamaCheckpoint,
    LlamaConfig,
    load_checkpoint,
    random_checkpoint,
    tensor_shapes,
)

__all__ = [
    "LlamaCheckpoint",
    "LlamaConfig",
    "load_checkpoint",
    "load_gguf",
    "load_huggingface",
    "random_checkpoint",
    "save_huggingface",
    "tensor_shapes",
]
