"""Sets of labelled images: from folders, archives and files of the usual formats to one array of pixels, and batches.

Here belongs what turns files into `[N, C, H, W]` bytes with labels, once, kept in the cache; how the images are divided
into splits; and augmented, normalised batches that are pure functions of seed and step. What a model learns from them
belongs to `rankitect.tasks.vision`, and how well, to `rankitect.metrics.images`.

The way in is `prepare.py`. `sources.py` says which formats there are, `settings.py` the keys.
"""
