"""MNIST and Fashion-MNIST from their four IDX files, compressed or not."""

from pathlib import Path

import torch

from mho.data.checks import damaged, require_pairs
from mho.data.dataset import Dataset
from mho.data.idx import read_idx
from mho.data.sources import Source

_IMAGE = (28, 28)


def find_mnist(root: Path, source: Source) -> tuple[Path, ...] | None:
    """The four files in the order of ``source.files`` below ``root``, or None if one is missing.

    Looked for in root/MNIST/raw, then root/MNIST (FashionMNIST likewise), as ``.gz``, else unpacked.
    """
    raw = root / source.folder
    for folder in (raw, raw.parent):
        paths = tuple(_first_file(folder, file.name) for file in source.files)
        found = tuple(path for path in paths if path is not None)
        if len(found) == len(paths):
            return found
    return None


def _first_file(folder: Path, packed: str) -> Path | None:
    plain = packed.removesuffix(".gz")
    spellings = (packed, plain, plain.replace("-idx", ".idx"))
    return next((folder / name for name in spellings if (folder / name).is_file()), None)


def read_mnist(paths: tuple[Path, ...], source: Source, name: str) -> Dataset:
    """The data set of the four ``paths`` (train images, train labels, test images, test labels).

    Each file with a known checksum must have it; shapes, counts and the range of labels are checked for all.
    Raises DataError that names the file.
    """
    arrays = [read_idx(path, source.digest_of(path.name.replace(".idx", "-idx"))) for path in paths]
    for path, images in ((paths[0], arrays[0]), (paths[2], arrays[2])):
        if images.shape[1:] != _IMAGE:
            raise damaged(path, "images of 28 x 28 pixels", f"an array of shape {images.shape}")
    classes = len(source.classes)
    return Dataset(
        name=name,
        train_x=torch.from_numpy(arrays[0]).unsqueeze(1),
        train_y=torch.from_numpy(require_pairs(paths[1], arrays[0], arrays[1], source.train, classes)),
        test_x=torch.from_numpy(arrays[2]).unsqueeze(1),
        test_y=torch.from_numpy(require_pairs(paths[3], arrays[2], arrays[3], source.test, classes)),
        mean=source.mean,
        std=source.std,
        classes=source.classes,
    )
