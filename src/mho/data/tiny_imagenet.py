"""Tiny ImageNet: 64 x 64 JPEG files of 200 classes, in an archive (.tar.xz, .zip) or unpacked.

Labels are the positions of the class ids in ``wnids.txt``, for train and validation images alike. The test set of this
project is the labelled validation set; the original test images have no labels.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mho.data.archive import File, files_of
from mho.data.checks import damaged, require_digest
from mho.data.dataset import Dataset
from mho.data.sources import Source
from mho.errors import InputError

FOLDER = "tiny-imagenet-200"
_SIDE = 64
_TEXTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")


def find_tiny_imagenet(root: Path, source: Source) -> tuple[Path, ...] | None:
    """The unpacked folder or an archive directly below ``root``, or None; the complete archive before a subset."""
    if (root / FOLDER / "wnids.txt").is_file():
        return (root / FOLDER,)
    return next(((root / file.name,) for file in source.files + source.members if (root / file.name).is_file()), None)


def read_tiny_imagenet(paths: tuple[Path, ...], source: Source, name: str, limit_per_class: int | None) -> Dataset:
    """The data set of ``paths`` (one folder or archive), decoded: uint8 [N, 3, 64, 64], grey images as RGB.

    ``limit_per_class`` keeps the first train images of each class and stops reading as soon as all are there.
    Raises DataError that names the file: wrong checksum of an archive, damaged image, unknown class id, classes with
    different numbers of images, missing validation images; InputError for a limit that the files cannot meet.
    """
    (path,) = paths
    if limit_per_class is not None and limit_per_class < 1:
        raise InputError(f"limit_per_class is {limit_per_class}; it must be at least 1.")
    digest = source.digest_of(path.name)
    if path.is_file() and digest is not None:
        require_digest(path, path, digest)
    found = _collect(path, _relevant(files_of(path, FOLDER)), limit_per_class)
    return _finish(path, found, source, name, limit_per_class)


@dataclass
class _Part:
    """Pixels and labels, gathered image by image."""

    pixels: bytearray = field(default_factory=bytearray)
    labels: list[int] = field(default_factory=list)

    def add(self, image: bytes, label: int) -> None:
        self.pixels += image
        self.labels.append(label)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """uint8 [N, 3, 64, 64] and int64 [N]."""
        images = np.frombuffer(self.pixels, np.uint8).reshape(-1, _SIDE, _SIDE, 3)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(self.labels, dtype=torch.int64)


@dataclass
class _Collected:
    texts: dict[str, str] = field(default_factory=dict)
    train: _Part = field(default_factory=_Part)
    test: _Part = field(default_factory=_Part)


def _relevant(files: Iterable[File]) -> Iterator[File]:
    return ((name, content) for name, content in files if name in _TEXTS or _is_image(name))


def _is_image(name: str) -> bool:
    return name.endswith(".JPEG") and "/" in name


def _text(path: Path, name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(f"{path}, {name}", "text in UTF-8", str(error)) from error


def _collect(path: Path, files: Iterable[File], limit: int | None) -> _Collected:
    """Read until the files end, or until every class has ``limit`` train images and every validation image is there."""
    found = _Collected()
    label_of: dict[str, int] = {}
    wnid_of: dict[str, str] = {}
    counts: list[int] = []
    full = 0
    for name, content in files:
        if name in _TEXTS:
            found.texts[name] = _text(path, name, content)
            if name == "wnids.txt":
                label_of = {wnid: position for position, wnid in enumerate(found.texts[name].split())}
                counts = [0] * len(label_of)
            elif name == "val/val_annotations.txt":
                wnid_of = dict(_two_columns(path, name, found.texts[name]))
            continue
        part, folder, *_ = name.split("/")
        base = name.rsplit("/", 1)[-1]
        if part == "train":
            label = _label(path, name, label_of, folder)
            if limit is None or counts[label] < limit:
                found.train.add(_decode(path, name, content), label)
                counts[label] += 1
                full += counts[label] == limit
        elif part == "val":
            if base not in wnid_of:
                raise damaged(f"{path}, {name}", "its line in val_annotations.txt before it", "none")
            found.test.add(_decode(path, name, content), _label(path, name, label_of, wnid_of[base]))
        if full == len(label_of) and wnid_of and len(found.test.labels) == len(wnid_of):
            break
    return found


def _two_columns(path: Path, name: str, text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        columns = line.split("\t")
        if len(columns) < 2:
            raise damaged(f"{path}, {name}", "two or more columns, tab-separated", repr(line[:80]))
        yield columns[0], columns[1]


def _label(path: Path, name: str, label_of: dict[str, int], wnid: str) -> int:
    if wnid not in label_of:
        raise damaged(f"{path}, {name}", f"a class id of the {len(label_of)} in wnids.txt, read before it", repr(wnid))
    return label_of[wnid]


def _decode(path: Path, name: str, content: bytes) -> bytes:
    """64 x 64 x 3 bytes of a JPEG file."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise damaged(f"{path}, {name}", "a complete JPEG image", f"{len(content)} bytes ({error})") from error
    if image.size != (_SIDE, _SIDE):
        raise damaged(f"{path}, {name}", f"{_SIDE} x {_SIDE} pixels", f"{image.size[0]} x {image.size[1]}")
    return image.tobytes()


def _finish(path: Path, found: _Collected, source: Source, name: str, limit: int | None) -> Dataset:
    """Check the counts and make the data set."""
    missing = [text for text in ("wnids.txt", "val/val_annotations.txt") if text not in found.texts]
    if missing:
        raise damaged(path, "the files wnids.txt and val/val_annotations.txt", f"no {' and no '.join(missing)}")
    wnids = found.texts["wnids.txt"].split()
    sizes = np.bincount(found.train.labels, minlength=len(wnids))
    fewest, most = int(sizes.argmin()), int(sizes.argmax())
    if sizes[fewest] != sizes[most] or sizes[fewest] == 0:
        raise damaged(
            path, f"{max(int(sizes[most]), 1)} train images of each class", f"{sizes[fewest]} of class {wnids[fewest]}"
        )
    if limit is not None and sizes[fewest] < limit:
        raise InputError(f"limit_per_class is {limit}, but {path} has {sizes[fewest]} train images of each class.")
    if len(found.test.labels) != source.test:
        raise damaged(path, f"{source.test} validation images", f"{len(found.test.labels)}")
    words = dict(_two_columns(path, "words.txt", found.texts.get("words.txt", "")))
    train_x, train_y = found.train.tensors()
    test_x, test_y = found.test.tensors()
    return Dataset(
        name=name,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        mean=source.mean,
        std=source.std,
        classes=tuple(words.get(wnid, wnid) for wnid in wnids),
    )
