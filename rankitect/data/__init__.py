"""Data: text and its tokens, tables of clicks, pinned files, and files that no reader sees half of.

Here belongs what turns files into arrays, with errors that name file, row and column, and what keeps the results. What
is learned from the arrays belongs to `rankitect.tasks`, and how well, to `rankitect.metrics`. Nothing here knows a
model.

The ways in are `text.py` for text, `ranking/prepare.py` for click logs, and `assets.py` for pinned models and data.
"""
