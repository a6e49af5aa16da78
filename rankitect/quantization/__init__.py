"""Compression of a model's numbers: quantizers, and the rotations that make their work easier.

Here belongs what changes weights so that fewer bits hold them, on models of any space; `streams.py` and `rotations.py`
read a graph's residual streams and turn them. What a block computes in few bits is in `rankitect.models`; the stages of
a recipe that do all this are in `rankitect.recipes`.
"""
