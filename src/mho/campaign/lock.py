"""One driver to a folder: a lock that the system takes back when its holder dies."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from mho.campaign.errors import CampaignError

_TRY_EVERY_S = 0.1


@contextlib.contextmanager
def held(path: Path, what: str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` (POSIX ``flock``) while the block runs; its folder is made.

    Raises :class:`CampaignError` naming ``what`` and the holder where another process has it for longer than
    ``patience_s``. A killed holder needs no clearing up: the file stays, the lock is gone.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows: two drivers at once would repeat work, not spoil it
        yield
        return
    deadline = time.monotonic() + patience_s
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise CampaignError(
            f"{what}: {path} cannot be made: {error.strerror}. Fix: a folder that you may write to."
        ) from error
    with handle:
        while not _locked(fcntl, handle.fileno()):
            if time.monotonic() >= deadline:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                raise CampaignError(
                    f"{what} is in use by {holder}. Way out: wait for it or stop it; another --out is another folder."
                )
            time.sleep(_TRY_EVERY_S)
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {platform.node()}\n")
        handle.flush()
        yield


def _locked(fcntl: object, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[attr-defined]
    except BlockingIOError:
        return False
    return True
