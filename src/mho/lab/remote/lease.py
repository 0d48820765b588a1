"""Who holds the device: one client at a time, by name."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

from mho.errors import DeviceBusyError


@final
class Lease:
    """Held by the client that called last, until it lets go, vanishes, or has not called for ``idle_s``.

    While a call of the holder is under way the lease does not end by age. All methods are called from one thread.
    """

    def __init__(self, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle_s = idle_s
        self._clock = clock
        self._holder: str | None = None
        self._calls = 0
        self._used_s = 0.0
        self._grips = 0
        self._term = 0

    @property
    def holder(self) -> str | None:
        """The client that holds the device now."""
        if self._holder is not None and not self._calls and self._clock() - self._used_s >= self._idle_s:
            self._end()
        return self._holder

    def take(self, client: str) -> None:
        """Take or keep the lease; :class:`~mho.errors.DeviceBusyError` where another client has it."""
        holder = self.holder
        if holder not in (None, client):
            left_s = self._idle_s if self._calls else self._idle_s - (self._clock() - self._used_s)
            raise DeviceBusyError(
                f"another client ({holder}) holds the device; the call was not carried out. "
                f"Way out: wait until it lets go, at the latest {left_s:.3g} s after its last call."
            )
        self._holder = client
        self._used_s = self._clock()

    @contextmanager
    def call(self, client: str) -> Iterator[None]:
        """A call of ``client``: it needs the lease, and keeps it from ageing."""
        self.take(client)
        term = self._term
        self._calls += 1
        try:
            yield
        finally:
            if self._term == term:
                self._calls -= 1
                self._used_s = self._clock()

    @contextmanager
    def grip(self, client: str) -> Iterator[None]:
        """A line to ``client``: when the last of its lines is cut, the client has vanished and the lease ends."""
        self.take(client)
        term = self._term
        self._grips += 1
        try:
            yield
        finally:
            if self._term == term:
                self._grips -= 1
                if not self._grips:
                    self._end()

    def free(self, client: str) -> None:
        """``client`` lets go; nothing happens if it does not hold the device."""
        if self._holder == client:
            self._end()

    def _end(self) -> None:
        # A call or a line that outlives the lease must not count in the next one.
        self._term += 1
        self._holder, self._calls, self._grips = None, 0, 0
