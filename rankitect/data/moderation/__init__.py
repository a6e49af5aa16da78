"""Texts with verdicts, which a guard model is trained on and judged by: read, divided, and put into a template.

Here belongs what turns files of prompts and responses with labels into sequences of tokens. Begin with `exchanges.py`;
`embedded.py` is what there is without any file, `reading.py` reads a user's own.
"""
