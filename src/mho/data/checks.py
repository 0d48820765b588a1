"""Checks of data files: checksums, damage reports, counts and labels."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mho.errors import DataError

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_CHUNK = 1 << 20


def damaged(where: object, expected: str, found: str) -> DataError:
    """The error of a file whose content is not what it must be; says what to do."""
    return DataError(
        f"{where}: expected {expected}, found {found}. The file is damaged or incomplete: "
        "delete it and download it again, or check your copy against its source."
    )


def digest_bytes(content: bytes, algorithm: str) -> str:
    """Hexadecimal digest of ``content``; ``algorithm`` is a name that hashlib knows ("md5", "sha256")."""
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def digest_file(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file, read in pieces of 1 MiB."""
    total = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            total.update(piece)
    return total.hexdigest()


def require_digest(where: object, content: bytes | Path, digest: str) -> None:
    """Raise a DataError unless ``content`` (bytes, or a file) has the digest "algorithm:hexadecimal"."""
    algorithm, _, expected = digest.partition(":")
    found = digest_file(content, algorithm) if isinstance(content, Path) else digest_bytes(content, algorithm)
    if found != expected:
        raise damaged(where, f"{algorithm} {expected}", f"{algorithm} {found}")


def require_pairs(where: object, images: Bytes, labels: npt.NDArray[np.integer], count: int, classes: int) -> Labels:
    """The labels as int64, when images and labels belong together.

    ``images`` [N, ...], ``labels`` [N]; N must be ``count`` and every label in 0..classes-1.
    Raises DataError with the file ``where``.
    """
    if labels.ndim != 1 or len(images) != len(labels):
        raise damaged(where, f"one label for each of {len(images)} images", f"labels of shape {labels.shape}")
    if len(images) != count:
        raise damaged(where, f"{count} images", f"{len(images)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise damaged(where, f"labels from 0 to {classes - 1}", f"{int(labels.min())} to {int(labels.max())}")
    return labels.astype(np.int64)
