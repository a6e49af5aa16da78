"""Models of a search space: one architecture alone, all of them in one set of weights, and pretrained ones.

Here belongs what turns a space and an architecture into something that runs and holds weights: the plan of its steps,
standalone models, supernets, relaxed supernets, deployed calls, pretrained backbones pruned by importance, and their
files. What a block computes belongs to `rankitect.blocks`, how weights are trained to `rankitect.training`, and
programs for devices to `rankitect.deploy`.

Enter through `supernet.py`: everything else is built on its `Standalone` and `Supernet`. A pretrained model comes in
through `checkpoints/load.py`, is described by `families/`, and becomes a supernet in `backbone.py`.
"""
