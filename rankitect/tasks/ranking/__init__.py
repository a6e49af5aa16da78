"""Rankers, which predict clicks from tables of features. Enter through `task.py`.

Here belong training a ranker from its log, its quality by normalized entropy on a later day, its costs, and the rows on
which it is compared with production. Reading a log belongs to `rankitect.data.ranking`.
"""
