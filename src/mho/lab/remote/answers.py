"""Recent answers, for calls that come again because their answer was lost."""

import hashlib
from collections import OrderedDict
from typing import final

from mho.errors import RangeError

Key = tuple[str, str, str]
"""Client, method, operation."""


def mark_of(*parts: object) -> bytes:
    """What tells one content of a call from another."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        # Numbers and shapes by their text, tensors by their bytes; the length keeps neighbours apart.
        raw = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


@final
class Answers:
    """The last answers, in all at most ``limit_bytes``; the one used least recently goes first.

    An answer that is larger than the limit is not kept: a call that comes again is then left to the device.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Key, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    @property
    def bytes_kept(self) -> int:
        """Bytes of all answers."""
        return self._bytes

    def find(self, key: Key, mark: bytes) -> bytes | None:
        """The answer given before; :class:`~mho.errors.RangeError` if the name then stood for another content."""
        if key not in self._kept:
            return None
        known, answer = self._kept[key]
        if known != mark:
            raise RangeError(
                f"operation {key[2]!r}: {key[1]} was called under this name with other content. "
                "Fix: a name of its own for each call."
            )
        self._kept.move_to_end(key)
        return answer

    def keep(self, key: Key, mark: bytes, answer: bytes) -> None:
        """Keep an answer, and let the oldest go."""
        self._drop(key)
        self._kept[key] = mark, answer
        self._bytes += len(answer)
        while self._bytes > self._limit_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, method: str) -> None:
        """Let all answers of one method go: what they say does not hold any more."""
        for key in [key for key in self._kept if key[1] == method]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        known = self._kept.pop(key, None)
        if known is not None:
            self._bytes -= len(known[1])
