"""Generate text with an exported program: `python -m rankitect.run_pte FOLDER --prompt "Once"`.

The folder is what a search exports for a candidate: model.pte, program.json and the tokenizer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rankitect.errors import AssetError
from rankitect.terminal import Parser, answered, ended, say

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 for what the user can mend."""
    parser = Parser(prog="python -m rankitect.run_pte", description=__doc__)
    parser.add_argument("folder", help="holds model.pte, program.json and the tokenizer")
    parser.add_argument("--prompt", default="The", help="text to go on from")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate at most")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the file's hash")
    given = parser.parse_args(arguments)
    if given.tokens < 1:
        parser.error(f"--tokens is {given.tokens}; at least 1")
    return answered(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    if not Path(given.folder).is_dir():  # told before torch is imported, which takes seconds
        raise AssetError(f"{given.folder} is no folder: give the folder of an exported program, with its program.json.")
    from rankitect.deploy.artifact import load

    deployed = load(given.folder, verify=not given.no_verify)
    tokenizer = deployed.tokenizer
    begin = () if deployed.begin is None else (deployed.begin,)
    asked = tokenizer.encode(given.prompt).tolist()
    prompt = [*begin, *asked]
    generated, times = [], [time.perf_counter()]
    for token in deployed.generator.stream(prompt, given.tokens, deployed.stop_ids):
        generated.append(token)
        times.append(time.perf_counter())
    say(given.prompt + tokenizer.decode_after(asked, generated))
    first = times[min(1, len(generated))] - times[0]
    rate = (len(generated) - 1) / (times[-1] - times[1]) if len(generated) > 1 else float("nan")
    say(
        f"loaded in {deployed.load_ms:.0f} ms; {len(prompt)} prompt tokens, first token after {first * 1e3:.0f} ms, "
        f"then {rate:.1f} tokens a second",
        sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
