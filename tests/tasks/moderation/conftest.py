"""What the tests of guards share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tasks.language.tiny import own_cache


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield
