"""What a server grants: sizes, numbers, rates, times."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from mho.hardware.fields import Count, NonNegative, Positive, check_fields, contradiction

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a server. Memory stays below about streams x pipeline x message_bytes + answers_bytes.

    ``message_bytes``: largest message of either direction. ``batch``: most input vectors a message. ``calls_per_s``:
    of the client that holds the device, with a burst of one second's worth; the others share as many.
    ``connections``, ``streams``: open at once. ``idle_s``: after which an unused lease ends. ``patience_s``: how long
    one message may take to come or to be taken. ``answers_bytes``: recent answers kept for calls that come again.
    ``pipeline``: messages of one stream that wait while the device works on another. ``wait_s``: how far one call may
    let the device's clock run on, 0: not at all.
    """

    message_bytes: Count = 16 * MIB
    batch: Count = 4096
    calls_per_s: Positive = 1000.0
    connections: Count = 256
    streams: Count = 64
    idle_s: Positive = 60.0
    patience_s: Positive = 10.0
    answers_bytes: Count = 64 * MIB
    pipeline: Count = 2
    wait_s: NonNegative = 3.2e8

    def __post_init__(self) -> None:
        check_fields(self)
        if self.connections < 2:
            cause = "one watches, one works"
            raise contradiction(self, "connections", self.connections, cause, "allow 2 or more")


@final
class Rate:
    """A bucket that fills with ``per_s`` permits a second and holds one second's worth."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._full = max(per_s, 1.0)
        self._clock = clock
        self._permits = self._full
        self._filled_s = clock()

    def wait_s(self) -> float:
        """0 if a permit was there, and it is taken; else how long until there is one, and none is taken."""
        now_s = self._clock()
        self._permits = min(self._full, self._permits + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        if self._permits >= 1.0:
            self._permits -= 1.0
            return 0.0
        return (1.0 - self._permits) / self._per_s
