"""Generate text with an exported program: `python -m rankitect.run_pte FOLDER --prompt "Once"`.

The folder is what a search exports for a candidate: model.pte, program.json and the tokenizer. A guard judges the
prompt, and a response to it, in place of going on from it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.errors import AssetError
from rankitect.terminal import Parser, answered, ended, say

if TYPE_CHECKING:
    from rankitect.deploy.artifact import Deployed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 for what the user can mend."""
    parser = Parser(prog="python -m rankitect.run_pte", description=__doc__)
    parser.add_argument("folder", help="holds model.pte, program.json and the tokenizer")
    parser.add_argument("--prompt", default="The", help="text to go on from")
    parser.add_argument("--response", default="", help="for a guard: what was answered to the prompt")
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
    notes = deployed.card.get("notes")
    if isinstance(notes, dict) and "template" in notes:
        return _judge(given, deployed, notes)
    if given.response:
        raise AssetError(f"{given.folder} is no guard: leave --response out.")
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


def _judge(given: argparse.Namespace, deployed: Deployed, notes: Mapping[str, Any]) -> int:
    """Say what a guard thinks of an exchange."""
    from rankitect.data.moderation.exchanges import Exchange
    from rankitect.deploy.guards import GuardNotes

    place = Path(given.folder) / "program.json"
    guard = GuardNotes.read(notes, place)
    template, threshold = guard.template, guard.threshold
    exchange = Exchange("", given.prompt, given.response, unsafe=False)
    (tokens,) = template.sequences(deployed.tokenizer, [exchange])
    started = time.perf_counter()
    scores = deployed.generator.start(list(tokens))
    seconds = time.perf_counter() - started
    if max(template.verdicts.ids) >= len(scores):
        raise AssetError(f"{place}: the program has {len(scores)} tokens, and a verdict is none of them.")
    odds = float(scores[template.verdicts.unsafe] - scores[template.verdicts.safe])
    verdict = "unsafe" if odds >= threshold else "safe"
    say(f"{verdict}: log-odds of unsafe {odds:+.2f}, from {threshold:+.2f} on an exchange is called unsafe")
    say(f"loaded in {deployed.load_ms:.0f} ms; {len(tokens)} tokens, verdict after {seconds * 1e3:.0f} ms", sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
