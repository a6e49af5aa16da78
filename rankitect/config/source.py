"""A user's folder of configurations, as Hydra reads it: each file is checked when it is read, and no other is.

This is a config source of Hydra's (its public interface for plug-ins). Files are checked before Hydra sees any of
their text, since Hydra resolves references in a list of defaults while it composes. What is not composed is not read: a
broken file that a command does not use does not stop it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from rankitect.config.trust import refuse_resolvers
from rankitect.documents import YAML_BYTES, as_kind, parse_yaml, read_text

__all__ = ["search_path"]


def search_path(folder: Path) -> str:
    """A folder as an entry of Hydra's search path."""
    Plugins.instance().register(_CheckedFiles)
    return f"{_CheckedFiles.scheme()}://{folder}"


class _CheckedFiles(ConfigSource):
    """Files of a user's folder. The members are those of `ConfigSource`."""

    @staticmethod
    def scheme() -> str:
        return "rankitect"

    def load_config(self, config_path: str) -> ConfigResult:
        """A file as Hydra merges it.

        Raises:
            ConfigError: It is no YAML, has a key twice, is no mapping, or asks for more than the value of another key
                in `${…}`.
        """
        path = Path(self._place(self._normalize_file_name(config_path)))
        text = read_text(path, most=YAML_BYTES)
        content: Any = parse_yaml(text, called=path)
        if content is not None:
            as_kind(content, dict[str, Any], path)
        refuse_resolvers(content, f"{path}: ")
        return ConfigResult(
            config=OmegaConf.create(text) if content else OmegaConf.create({}),  # read again: Hydra has its own numbers
            path=self.full_path(),
            provider=self.provider,
            header=self._get_header_dict(text),
        )

    def is_group(self, config_path: str) -> bool:
        return os.path.isdir(self._place(config_path))

    def is_config(self, config_path: str) -> bool:
        return os.path.isfile(self._place(self._normalize_file_name(config_path)))

    def available(self) -> bool:
        return self.is_group("")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names: list[str] = []
        for name in os.listdir(self._place(config_path)):
            self._list_add_result(names, os.path.join(config_path, name), name, results_filter)
        return sorted(set(names))

    def _place(self, config_path: str) -> str:
        return os.path.realpath(os.path.join(self.path, config_path))
