"""The files of a tar or zip archive or of a folder, as a stream of (name, content)."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from mho.data.checks import damaged

File = tuple[str, bytes]


def files_of(path: Path, top: str) -> Iterator[File]:
    """Names below the folder ``top`` (with "/") and contents of the files in ``path``.

    A tar archive comes in its own order, read in one pass. A zip archive or a folder comes sorted: text files, then
    by the last number in a file's name, so that image number 0 of all classes precedes number 1 of any.
    Raises DataError that names the archive when it does not unpack.
    """
    if path.is_dir():
        yield from _folder(path)
        return
    reader = _zip if zipfile.is_zipfile(path) else _tar
    try:
        yield from reader(path, top)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, EOFError, zlib.error, OSError) as error:
        raise damaged(path, "a complete archive", f"one that does not unpack ({error})") from error


def _below(top: str, name: str) -> str | None:
    parts = name.removeprefix("./").split("/", 1)
    return parts[1] if len(parts) == 2 and parts[0] == top and parts[1] else None


def _tar(path: Path, top: str) -> Iterator[File]:
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            name = _below(top, entry.name)
            stream = archive.extractfile(entry) if name and entry.isfile() else None
            if name and stream is not None:
                yield name, stream.read()


def _zip(path: Path, top: str) -> Iterator[File]:
    with zipfile.ZipFile(path) as archive:
        full = {name: entry for entry in archive.namelist() if (name := _below(top, entry)) and not entry.endswith("/")}
        for name in in_order(full):
            yield name, archive.read(full[name])


def _folder(path: Path) -> Iterator[File]:
    for name in in_order(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
        yield name, (path / name).read_bytes()


def in_order(names: Iterable[str]) -> list[str]:
    """Text files first, then by the last number in the file's name, then by path."""

    def key(name: str) -> tuple[bool, int, str]:
        numbers = re.findall(r"\d+", name.rsplit("/", 1)[-1])
        return not name.endswith(".txt"), int(numbers[-1]) if numbers else -1, name

    return sorted(names, key=key)
