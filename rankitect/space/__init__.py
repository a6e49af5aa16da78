"""Choices and the spaces that they span, without a graph and without torch.

Here are the kinds of choice, the expressions over them (conditions, rules, sizes), and `ChoiceSpace`: everything that
can be asked of a set of choices (drawing, changing, counting, encoding, storing). What a choice decides is not known
here: `rankitect.graph` reads choices as sizes and operators of a model, `rankitect.config.bindings` as settings of a
task or stage.
"""
