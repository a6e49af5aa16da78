"""Metrics, losses and the intervals around them, as functions of arrays and tensors.

Here belongs what is computed from predictions and labels: normalized entropy, perplexity, calibration, distillation
losses, confidence intervals. Nothing here reads a file, holds a model, or knows who asks.

Begin with `ranking_metrics.py` for rankers, `losses.py` for language models, and `intervals.py` for either.
"""
