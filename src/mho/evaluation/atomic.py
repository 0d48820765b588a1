"""Files that are either the old one or the new one, never a half."""

import contextlib
import os
import uuid
from pathlib import Path

from mho.errors import CheckpointError


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it; missing folders are made.

    A process that is killed, or a disk that fills, leaves the former file as it was. Raises
    :class:`CheckpointError` naming the path and the way out where it cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot be written ({error.strerror or error}). The former file, if any, is untouched. "
            "Fix: choose a folder that exists or can be made, is writable, and whose disk has room."
        ) from error
    finally:
        # Gone after a success; left over by an error or Ctrl-C.
        with contextlib.suppress(OSError):
            partial.unlink()
    return target
