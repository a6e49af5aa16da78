"""Language models, pruned from a pretrained backbone or trained from scratch. Enter through `task.py`.

Here belong the text and its held-out parts, the backbone and what its refits predict, healing, the costs of a phone,
and the uniform baselines. What belongs to one family of pretrained models is in `rankitect.models.families`.
"""
