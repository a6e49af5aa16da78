"""One guard around parsers of other projects: whatever they raise becomes one sentence with the file's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rankitect.errors import AssetError, RankitectError, safe, short

__all__ = ["guarded"]


@contextlib.contextmanager
def guarded(what: str, kind: type[RankitectError] = AssetError) -> Iterator[None]:
    """Turn everything that a third-party parser raises inside into an error that a user can act on.

    Parsers written in Rust may panic on input that they do not expect. What Python sees of it is no `Exception`, so
    that only what asks the program itself to stop passes.

    Args:
        what: The beginning of the sentence, such as "tokenizer.json cannot be read as a tokenizer"; what the parser
            said follows in brackets.
        kind: The error to raise.

    Raises:
        RankitectError: Of that kind, for whatever was raised.
    """
    try:
        yield
    except (RankitectError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{what} ({short(safe(said), 160)}).") from error
