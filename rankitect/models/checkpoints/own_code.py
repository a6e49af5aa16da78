"""Models that bring code of their own, which is never run: what of it may stand in config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankitect.errors import AssetError, shown
from rankitect.models.families.values import among

__all__ = ["CODE", "IDENTITY", "OURS", "check_classes", "check_code"]

CODE = "auto_map"
"""The key of config.json that names the classes of a model's own code."""
IDENTITY = "rankitect.json"
"""Says which candidate a folder is, where its layers differ."""
OURS = ("configuration_rankitect.py", "modeling_rankitect.py")
"""The code that goes along with a model whose layers differ."""


def check_code(given: object, model_type: str, architecture: str, where: str) -> None:
    """Refuse code of a model's own, unless it is that of its type from before `transformers` had it.

    Such code may compute something else than the class of the same keys, which would be read in silence.

    Args:
        given: The value of `auto_map`, or None.
        model_type: Of the model.
        architecture: The class that its type stands for.
        where: The file, for errors.

    Raises:
        AssetError: It names another class, or no classes.
    """
    base = architecture.removesuffix("ForCausalLM")
    known = {
        "AutoConfig": [f"configuration_{model_type}.{base}Config"],
        "AutoModel": [f"modeling_{model_type}.{base}Model"],
        "AutoModelForCausalLM": [f"modeling_{model_type}.{architecture}"],
    }
    check_classes(given, known, architecture, where)


def check_classes(given: object, known: Mapping[str, Sequence[str]], architecture: str, where: str) -> None:
    """Refuse code of a model's own, unless it is known to compute what is read here.

    Args:
        given: The value of `auto_map`, or None.
        known: For each of its keys that says what the model computes, the classes that are known.
        architecture: The class as which the model is read.
        where: The file, for errors.

    Raises:
        AssetError: It names another class, or no classes.
    """
    if given is None:
        return
    if not isinstance(given, dict):
        raise AssetError(f"{where}: {CODE} is {shown(given)}; it must name a class for each of AutoConfig and others.")
    for key, names in known.items():
        own = given.get(key)
        plain = own.rpartition("--")[2] if isinstance(own, str) else own  # "owner/repository--module.class"
        if own is not None and not among(plain, names):
            raise AssetError(
                f"{where}: {CODE}.{key} is {shown(own)}, code of the model's own, which is not run and may compute "
                f"something else than {architecture}. Supported: {' or '.join(map(repr, names))}. If it computes the "
                f"same, remove {CODE} from the file."
            )
