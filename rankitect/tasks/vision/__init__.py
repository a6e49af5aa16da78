"""Classifiers of images: labelled images as data, cross-entropy as loss, accuracy and calibration as quality.

How files become images belongs to `rankitect.data.images`, and what a metric computes to `rankitect.metrics.images`.
Begin with `task.py`.
"""
