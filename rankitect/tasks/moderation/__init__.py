"""Guards: language models whose next token after a template says whether an exchange is safe.

What a guard is pruned from, its costs and its files are those of `rankitect.tasks.language`; here belongs what differs:
labelled exchanges in place of text, verdicts in place of perplexity. Begin with `task.py`.
"""
