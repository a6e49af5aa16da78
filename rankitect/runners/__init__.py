"""Runners: where trials are measured, when it is not in the study's own process.

Here belong the pool of processes of this machine (`pool.py`), the Ray cluster (`cluster.py`), several processes that
train one model (`together.py`), and what runs inside a worker (`workers.py`). Which trial is measured, and what becomes
of its result, is the study's matter. The runner of a single process is `rankitect.study.runner.Inline`.

The way in is `factory.runner_of`, which makes the runner that a configuration asks for.
"""
