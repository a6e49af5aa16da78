"""Search spaces, one file each (a large one may keep its parts in a second file).

A space is a function, or a class with `from_config`, that returns a `rankitect.graph.SearchSpace` or a graph-free
`rankitect.space.ChoiceSpace`. Here belong what is open in a family of models and the points of it that are known by
name. What a layer computes belongs to `rankitect.blocks`. Spaces import no controller, no evaluator and no other space.

To add one, write a file and name its class in configs/space/. Begin with `mobile_llm.py`; docs/authoring.md explains
it.
"""
