"""Tasks: what a kind of model is for. Each is a package that satisfies `rankitect.contracts.task`.

Here belongs what only one kind of model has: its data, loss and quality, its costs, the models it is compared with, and
what is written for a candidate. What a metric computes belongs to `rankitect.metrics`, how weights are trained to
`rankitect.training`, and what several tasks do alike stands here beside them.

Enter a task through its `task.py`.
"""
