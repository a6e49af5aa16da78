"""Training: the loop, optimizers, checkpoints, embedding tables, and several processes side by side.

Here belongs what changes weights, whatever the model and the task. The order in which a model is trained, quantized and
exported is a recipe's matter (`rankitect.recipes`); data and loss are the task's.

The way in is `loop.py`.
"""
