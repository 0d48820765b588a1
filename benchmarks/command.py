"""How a benchmark's data says which command made it."""

import shlex
import sys
from collections.abc import Sequence

PLACES = ("--data-dir", "--out", "--runs", "--peer", "--peer-python")
"""Options that say where things lie on one machine: no part of what was done."""


def command(arguments: Sequence[str] | None = None) -> str:
    """``python benchmarks/NAME.py ...`` as it was called, without the places of this machine."""
    given = list(sys.argv if arguments is None else arguments)
    kept, skip = ["python", f"benchmarks/{given[0].replace(chr(92), '/').rpartition('/')[2]}"], False
    for word in given[1:]:
        name = word.partition("=")[0]
        if skip or name in PLACES:
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return shlex.join(kept)


if __name__ == "__main__":
    print(command())
