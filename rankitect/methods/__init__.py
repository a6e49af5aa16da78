"""What several search methods share.

Here belong moving within a bounded space (`bounded_space.py`), comparing trials by several objectives
(`objectives.py`), searching in two stages (`staged.py`, `evolving.py`), and training and scoring weights that
architectures share (`supernet_search.py`, `shared_weights.py`, `final_layer.py`, `cost_target.py`). What only one
method needs belongs into its file in `controllers/`.

A method that proposes and measures starts from `staged.StagedSearch`, one that trains shared weights from
`supernet_search.SupernetSearch`.
"""
