"""Code that goes along with a model whose layers differ, so that `transformers` loads it (`trust_remote_code`).

Here belongs what is copied into such a folder as it is, and nothing else: the files stand alone, know nothing of
Rankitect, and are not imported by it. `rankitect.models.huggingface_by_layer` writes them beside the weights.
"""
