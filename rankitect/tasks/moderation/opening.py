"""The exchanges of a configuration, opened for a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.data.moderation.data import GuardData
from rankitect.data.moderation.embedded import EMBEDDED, embedded_exchanges
from rankitect.data.moderation.exchanges import Exchange, divided
from rankitect.data.moderation.reading import Reading, read_exchanges
from rankitect.data.moderation.template import GuardTemplate
from rankitect.data.windows import epoch_order
from rankitect.errors import DataError, safe, short
from rankitect.tasks.language.text import KnowsItsUse, first_token

if TYPE_CHECKING:
    from rankitect.tasks.moderation.settings import ModerationConfig

__all__ = ["open_exchanges"]


def open_exchanges(checkpoint: KnowsItsUse, config: ModerationConfig, seed: int) -> GuardData:
    """The exchanges that a configuration names, divided and in the template of a model.

    Args:
        checkpoint: The backbone, or a candidate of it, whose tokenizer and chat template count.
        config: The keys of `task`.
        seed: Of the order of training batches.

    Raises:
        ConfigError: A verdict is no single token, or the template leaves no room.
        DataError: The exchanges cannot be read, or labels are of one class; names `task.data`.
    """
    template = GuardTemplate.of(
        checkpoint.tokenizer,
        config.instruction,
        (config.safe, config.unsafe),
        config.context,
        first_token(checkpoint, config.begin),
    )
    try:
        splits = divided(_limited(_exchanges(config), config.limit), config.split_seed)
    except DataError as error:
        raise DataError(f"task.data={short(safe(config.data), 80)}: {error}") from error
    name = config.data if config.data in EMBEDDED else config.data.rstrip("/").rpartition("/")[2]
    return GuardData(name, splits, template, checkpoint.tokenizer, seed)


def _exchanges(config: ModerationConfig) -> list[Exchange]:
    if config.data in EMBEDDED:
        return embedded_exchanges(config.data, config.unsafe_from)
    reading = Reading({str(key): name for key, name in config.columns.items()}, config.ignore, config.unsafe_from)
    return read_exchanges(config.data, "task.data", reading)


def _limited(exchanges: list[Exchange], most: int | None) -> list[Exchange]:
    """At most so many, the same share of each source, in their order."""
    if most is None or most >= len(exchanges):
        return exchanges
    rank = {int(i): n for n, i in enumerate(epoch_order(len(exchanges), "limit", 0, 0))}
    by_source = sorted(range(len(exchanges)), key=lambda i: (exchanges[i].source, rank[i]))
    return [exchanges[i] for i in sorted(by_source[n * len(exchanges) // most] for n in range(most))]
