"""The stage `quantize`: the model's numbers in few bits, rounded to nearest, with searched ranges, or with GPTQ."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError
from rankitect.quantization.settings import QuantizeConfig
from rankitect.recipes.text import HasText

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.data.windows import TextWindows
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["Quantize"]

_log = logging.getLogger(__name__)


class Quantize:
    """Gives the blocks their bits, and the weights their scales and levels.

    A model of a space whose bits are choices keeps those of its architecture; what is no choice is as configured.

    Args:
        config: The bits, and how weights get there.
        data: Calibration text; None where none is needed.
    """

    Config = QuantizeConfig

    def __init__(self, config: QuantizeConfig, data: TextWindows | None) -> None:
        self.config, self._data = config, data
        self._told = False

    @classmethod
    def from_config(cls, config: QuantizeConfig, parts: Parts) -> Quantize:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The method needs calibration text, and the task has none.
        """
        if not config.needs_text:
            return cls(config, None)
        if not offers(parts.task, HasText):
            raise ConfigError(
                f"method={config.method} is fitted to text, and task={parts.names.get('task', '')} has none: use "
                "method=rtn, or method=searched with error=weights."
            )
        return cls(config, parts.task.data)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            DataError: The text is shorter than what is asked for.
        """
        if self._data is not None:
            self._data.require("train", self.config.windows, self.config.calibration_context)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space with the numerics of the configuration.

        Raises:
            SpaceError: A group does not divide a weight's inputs.
            ConfigError: Calibration text is too short for GPTQ.
        """
        from rankitect.quantization.spaces import check_calibration, idle_keys, quantized_space

        if not self._told and (idle := idle_keys(space, self.config)):
            self._told = True
            shown = ", ".join(f"{name}={getattr(self.config, name)}" for name in idle)
            _log.warning("The stage quantize: %s decides nothing in space=%s, whose own bits stand.", shown, space.name)
        changed = quantized_space(space, self.config, "minmax" if self.config.method == "rtn" else "stored")
        check_calibration(changed, self.config)
        return changed

    def provenance(self) -> Mapping[str, JSON]:
        """The settings, and the calibration text."""
        from rankitect.training.placement import placement

        text = {} if self._data is None else {"data": self._data.text.fingerprint}
        # Earlier versions stored weights that lie on their levels; they round to the same, but train otherwise.
        near = {"weights": "near floats"} if self.config.method == "gptq" else {}
        return {**self.config.model_dump(mode="json"), **near, **text, **placement().named}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        """Give a model of the changed space, which takes over the weights of the one that is given."""
        from rankitect.quantization.weights import quantize_weights, with_numerics_of

        space = self.space_after(context.require_space("quantized"))
        quantized = with_numerics_of(space, context.architecture, model)

        def progress(done: int, total: int, note: str) -> None:
            context.check()
            context.progress(done, total, note)

        if self.config.method != "rtn":
            quantize_weights(space, quantized, self.config, self._calibration(quantized, context.seed), progress)
            context.spent = Spent(eval_tokens=self.config.windows * self.config.calibration_context)
        context.space = space
        return quantized.eval()

    def _calibration(self, model: Standalone, seed: int) -> Tensor | None:
        """Windows of training text [N, T], where the model is."""
        if self._data is None:
            return None
        from rankitect.models.supernet import device_of

        c = self.config
        ids = self._data.batch_at("train", 0, batch=c.windows, context=c.calibration_context, seed=seed)
        return ids[:, :-1].to(device_of(model))
