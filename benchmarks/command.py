"""How a benchmark's data says which command made it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

PLACES = ("--data-dir", "--out", "--runs", "--peer", "--peer-python", "--folder", "--env", "--json")
"""Options that say where things lie on one machine: no part of what was done."""


def command(arguments: Sequence[str] | None = None) -> str:
    """``python benchmarks/NAME.py ...`` as it was called, without the places of this machine."""
    given = list(sys.argv if arguments is None else arguments)
    script = Path(given[0]).resolve()
    inside = script.relative_to(HERE) if script.is_relative_to(HERE) else Path(script.name)
    kept, skip = ["python", f"benchmarks/{inside.as_posix()}"], False
    for word in given[1:]:
        name = word.partition("=")[0]
        if skip or name in PLACES:
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return shlex.join(kept)


if __name__ == "__main__":
    print(command())
