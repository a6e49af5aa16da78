"""Measurements, one file each: what one architecture is worth.

An evaluator is a class with the members of `rankitect.contracts.Evaluator`. Here belongs how a quality is obtained
(trained, inherited, or scored without training); data, loss and metric are the task's, in `rankitect.tasks`. Evaluators
import no space, no controller and no other evaluator.

To add one, write a file and name its class in configs/evaluator/. Begin with `proxies.py`.
"""
