"""Decoded data sets kept beside their archive, for those who want it: unpacking xz and JPEG takes many seconds.

They are kept in a folder ``cache`` next to the archive, if there is one that can be written. The folder of downloads
has one; in a folder of one's own, ``mkdir cache`` switches it on.
"""

import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mho.data.checks import digest_bytes
from mho.data.dataset import Dataset
from mho.data.sources import Source
from mho.errors import DataError

FOLDER = "cache"
_VERSION = 1
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def remembered(archive: Path, source: Source, label: str, decode: Callable[[], Dataset]) -> Dataset:
    """``decode()``, or its result kept from an earlier call.

    ``label`` names what was asked of the archive; a hash of the archive's name, size and time and of what ``source``
    demands completes the name of the kept file, so that a change of any of them decodes again.
    Raises DataError for a kept file that is damaged. A full disk is a warning: the data set is there all the same.
    """
    folder = archive.parent / FOLDER
    if not archive.is_file() or not folder.is_dir() or not os.access(folder, os.W_OK):
        return decode()
    state = archive.stat()
    identity = (_VERSION, archive.name, state.st_size, state.st_mtime_ns, replace(source, base_url=""))
    key = digest_bytes(repr(identity).encode(), "sha256")[:16]
    path = folder / f"{label}-{key}.npz"
    if path.is_file():
        return _load(path)
    data = decode()
    try:
        _save(path, data)
    except OSError as error:
        warnings.warn(f"{path}: the decoded data set could not be kept ({error}).", stacklevel=2)
    return data


def _save(path: Path, data: Dataset) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(
                stream,
                allow_pickle=False,
                **{name: getattr(data, name).numpy() for name in _ARRAYS},
                name=np.array(data.name),
                mean=np.array(data.mean),
                std=np.array(data.std),
                classes=np.array(data.classes),
            )
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _load(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as kept:
            train_x, train_y, test_x, test_y = (torch.from_numpy(kept[name]) for name in _ARRAYS)
            mean, std = kept["mean"].tolist(), kept["std"].tolist()
            name, classes = str(kept["name"]), kept["classes"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: the kept decoded data set is damaged ({error}). Delete it; it is made again."
        ) from error
    return Dataset(name, train_x, train_y, test_x, test_y, tuple(mean), tuple(std), tuple(classes))
