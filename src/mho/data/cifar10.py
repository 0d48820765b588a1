"""CIFAR-10 from its Python batches, in an archive (.tar.xz, .tar.gz) or unpacked.

A pickle can run code. A batch is therefore opened only after its MD5 sum holds, and even then by an unpickler that
knows nothing but NumPy arrays.
"""

import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mho.data.checks import Bytes, Labels, damaged, require_digest, require_pairs
from mho.data.dataset import Dataset
from mho.data.sources import Source

FOLDER = "cifar-10-batches-py"
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-python.tar.xz", "cifar-10-python.tar")
_TEST = "test_batch"
_IMAGE = (3, 32, 32)


def find_cifar10(root: Path, source: Source) -> tuple[Path, ...] | None:
    """The unpacked folder or the archive directly below ``root``, or None; the folder counts only if complete."""
    folder = root / FOLDER
    if all((folder / member.name).is_file() for member in source.members):
        return (folder,)
    return next(((root / name,) for name in ARCHIVES if (root / name).is_file()), None)


def read_cifar10(paths: tuple[Path, ...], source: Source, name: str) -> Dataset:
    """The data set of ``paths`` (one folder or archive): [50000, 3, 32, 32] and [10000, 3, 32, 32].

    ``source.members`` are the batches with their checksums, train batches in their order.
    Raises DataError that names the file: unreadable archive, missing batch, wrong checksum, count or label.
    """
    (path,) = paths
    digests = {member.name: member.digest for member in source.members}
    batches: dict[str, tuple[Bytes, Labels]] = {}
    for member, content in _members(path, source):
        where = f"{path}, {member}"
        require_digest(where, content, digests[member])
        batches[member] = _unpickle(content, where)
    missing = [member.name for member in source.members if member.name not in batches]
    if missing:
        raise damaged(path, f"the files {', '.join(m.name for m in source.members)}", f"no {', '.join(missing)}")
    train = [batches[member.name] for member in source.members if member.name != _TEST]
    train_x, train_y = np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])
    test_x, test_y = batches[_TEST]
    classes = len(source.classes)
    return Dataset(
        name=name,
        train_x=torch.from_numpy(train_x),
        train_y=torch.from_numpy(require_pairs(path, train_x, train_y, source.train, classes)),
        test_x=torch.from_numpy(test_x),
        test_y=torch.from_numpy(require_pairs(path, test_x, test_y, source.test, classes)),
        mean=source.mean,
        std=source.std,
        classes=source.classes,
    )


def _members(path: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the batches, as they come; an archive is read only as far as the last of them."""
    wanted = {member.name for member in source.members}
    if path.is_dir():
        for name in sorted(wanted):
            yield name, (path / name).read_bytes()
        return
    try:
        with tarfile.open(path, "r|*") as archive:
            for entry in archive:
                folder, _, name = entry.name.removeprefix("./").rpartition("/")
                stream = archive.extractfile(entry) if folder == FOLDER and name in wanted else None
                if stream is not None:
                    yield name, stream.read()
                    wanted.discard(name)
                if not wanted:
                    return
    except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, OSError) as error:
        raise damaged(path, "a complete tar archive", f"one that does not unpack ({error})") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Opens dicts, lists, strings and NumPy arrays; every other global name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.startswith("numpy.") and module.endswith("core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a batch must hold only arrays, not {module}.{name}")


def _unpickle(content: bytes, where: str) -> tuple[Bytes, Labels]:
    """Images [N, 3, 32, 32] and labels [N] of one batch."""
    expected = "a pickled dict with 'data' [N, 3072] of bytes and 'labels'"
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        images, labels = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise damaged(where, expected, f"{type(error).__name__}: {error}") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise damaged(where, expected, f"data of type {getattr(images, 'dtype', type(images).__name__)}")
    return images.reshape(-1, *_IMAGE), labels
