"""Once-for-all training: one set of weights that many architectures are taken from as they are.

`training` is the way in. `schedule` says what a step trains and how fast, `opening` which values progressive shrinking
has opened, `guard` when a training has collapsed, and `budgets` what the networks are specialised for.
"""
