"""Search methods, one file each: what to measure next.

A controller is a class with the methods of `rankitect.contracts.Controller`. Here belongs how a method chooses; what
several methods share is in `rankitect.methods`, and whatever measures an architecture is an evaluator. Controllers
import no space, no evaluator and no other controller.

To add one, write a file and name its class in configs/controller/. Begin with `random.py`.
"""
