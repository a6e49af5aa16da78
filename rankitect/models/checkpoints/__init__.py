"""Pretrained checkpoints as files: GGUF, Hugging Face folders, named assets, and random ones for tests.

Here belongs what reads and writes a file format. What the weights of a family are called in a format, and which sizes
its configuration states, is said by `rankitect.models.families`. Enter through `load.py`.
"""

from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, random_checkpoint, tensor_shapes
from rankitect.models.checkpoints.gguf import load_gguf
from rankitect.models.checkpoints.huggingface import load_huggingface, save_huggingface
from rankitect.models.checkpoints.load import load_checkpoint
from rankitect.models.families import DecoderConfig

__all__ = [
    "DecoderCheckpoint",
    "DecoderConfig",
    "load_checkpoint",
    "load_gguf",
    "load_huggingface",
    "random_checkpoint",
    "save_huggingface",
    "tensor_shapes",
]
