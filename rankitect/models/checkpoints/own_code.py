"""Models that bring code of their own, which is never run: what of it may stand in config.json."""

from __future__ import annotations

from rankitect.errors import AssetError, shown
from rankitect.models.families.values import same

__all__ = ["CODE", "check_code"]

CODE = "auto_map"
"""The key of config.json that names the classes of a model's own code."""


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
    if given is None:
        return
    if not isinstance(given, dict):
        raise AssetError(f"{where}: {CODE} is {shown(given)}; it must name a class for each of AutoConfig and others.")
    base = architecture.removesuffix("ForCausalLM")
    known = {
        "AutoConfig": f"configuration_{model_type}.{base}Config",
        "AutoModel": f"modeling_{model_type}.{base}Model",
        "AutoModelForCausalLM": f"modeling_{model_type}.{architecture}",
    }
    for key, name in known.items():
        own = given.get(key)
        plain = own.rpartition("--")[2] if isinstance(own, str) else own  # "owner/repository--module.class"
        if own is not None and not same(plain, name):
            raise AssetError(
                f"{where}: {CODE}.{key} is {shown(own)}, code of the model's own, which is not run and may compute "
                f"something else than {architecture}. Supported: {name!r}. If it computes the same, remove {CODE} "
                "from the file."
            )
