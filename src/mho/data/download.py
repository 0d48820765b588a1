"""Downloads that go on where they broke off: HTTP Range requests plugged into pooch, which checks and files them."""

import contextlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mho.data.sources import Source
from mho.errors import DataError

Progress = Callable[[str, int, int | None], None]
"""Called with the address, the bytes on the disk and the bytes in all (None: the server does not say)."""

_PIECE = 1 << 16
_AWAY = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def default_cache() -> Path:
    """The folder of downloaded data sets where this system keeps caches."""
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("mho"))


def fetch(source: Source, cache_dir: Path, progress: Progress | None = None) -> None:
    """Bring the files of ``source`` below ``cache_dir``, each with the right checksum; those there are kept.

    Processes that ask for the same files wait for one another. Raises DataError: no network, a refused address, a wrong
    checksum, a folder that cannot be written. What a broken transfer brought stays for the next call.
    """
    import pooch

    folder = cache_dir / source.folder
    base_url = source.base_url.rstrip("/") + "/"
    store = pooch.create(folder, base_url, registry={file.name: file.digest for file in source.files})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock"):
            for file in source.files:
                store.fetch(file.name, downloader=ResumingDownloader(progress=progress))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"{source.base_url}: a downloaded file has the wrong checksum and was thrown away ({error}). "
            "Try again, or put the files from another source into a folder and give it as data_dir."
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the download ({error}). Free space or give another cache_dir."
        ) from error


@dataclass(frozen=True)
class ResumingDownloader:
    """A pooch downloader that keeps ``NAME.part`` and asks for the rest of it.

    It gives up after ``attempts`` transfers in a row that brought nothing, ``wait_s`` seconds apart.
    """

    attempts: int = 4
    wait_s: float = 1.0
    timeout_s: float = 30.0
    progress: Progress | None = None

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Bring ``url`` to ``output_file``; ``pooch`` is pooch's own and not used."""
        target = Path(output_file)
        part = target.parent / f"{url.rsplit('/', 1)[-1]}.part"
        failures = 0
        while True:
            before = _size(part)
            try:
                self._transfer(url, part)
            except _AWAY as error:
                refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
                failures = 0 if _size(part) > before else failures + 1
                if refused or failures >= self.attempts:
                    raise DataError(
                        f"{url}: the download stopped ({error}). {_size(part)} bytes are kept in {part}; the next call "
                        "goes on from there. Without a network, put the files into a folder and give it as data_dir."
                    ) from error
                time.sleep(self.wait_s)
            else:
                part.replace(target)
                return

    def _transfer(self, url: str, part: Path) -> None:
        """One request for what is missing; ConnectionError when it ends too early."""
        have = _size(part)
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            reply = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            # Nothing lies beyond what is here: either it is all there, or it belongs to another file.
            if error.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                raise ConnectionError("the kept part did not fit and was thrown away") from error
            return
        with reply:
            have, total = _place(reply, have)
            with part.open("r+b" if have else "wb") as sink:
                sink.seek(have)
                while piece := reply.read(_PIECE):
                    sink.write(piece)
                    have += len(piece)
                    if self.progress is not None:
                        self.progress(url, have, total)
        if total is not None and have != total:
            raise ConnectionError(f"it ended after {have} of {total} bytes")


def _place(reply: http.client.HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Where the reply's bytes begin in the file, and how long the file is."""
    if reply.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", reply.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != asked:
            raise http.client.HTTPException(
                f"asked for the bytes from {asked}, got {reply.headers.get('Content-Range')}"
            )
        return asked, int(match[2])
    length = reply.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``lock`` where the system has them (POSIX)."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows: two downloads at once may repeat work
        yield
        return
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
