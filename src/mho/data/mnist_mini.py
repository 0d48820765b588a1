"""mnist-mini: real MNIST digits inside the package, so that the first run needs no network."""

import lzma
from importlib import resources

import torch

from mho.data.checks import Bytes, damaged, require_digest, require_pairs
from mho.data.dataset import Dataset
from mho.data.idx import split_idx
from mho.data.sources import SOURCES

FILE = "mnist_mini.idx.xz"
DIGEST = "sha256:1d64173fea3bd884f52f29546c91731ba9ec6e20783c2fa9d3a6597a48d23289"
TRAIN, TEST = 12_000, 2_400


def unpack(content: bytes, where: object, digest: str = DIGEST) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Train images [12000, 28, 28], train labels, test images [2400, 28, 28], test labels, all uint8.

    ``content`` is four IDX arrays one behind the other, xz-compressed (benchmarks/make_mnist_mini.py writes it).
    Raises DataError when ``digest`` or a count does not hold.
    """
    require_digest(where, content, digest)
    try:
        plain = lzma.decompress(content)
    except lzma.LZMAError as error:
        raise damaged(where, "a complete xz file", str(error)) from error
    train_x, offset = split_idx(plain, where)
    train_y, offset = split_idx(plain, where, offset)
    test_x, offset = split_idx(plain, where, offset)
    test_y, _ = split_idx(plain, where, offset)
    return train_x, train_y, test_x, test_y


def load_mnist_mini() -> Dataset:
    """The first 1,200 train and 240 test images of each digit by index in MNIST, in MNIST's order, bit for bit.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.
    """
    where = resources.files("mho.data") / FILE
    train_x, train_y, test_x, test_y = unpack(where.read_bytes(), where)
    source = SOURCES["mnist"]
    classes = len(source.classes)
    return Dataset(
        name="mnist-mini",
        train_x=torch.from_numpy(train_x).unsqueeze(1),
        train_y=torch.from_numpy(require_pairs(where, train_x, train_y, TRAIN, classes)),
        test_x=torch.from_numpy(test_x).unsqueeze(1),
        test_y=torch.from_numpy(require_pairs(where, test_x, test_y, TEST, classes)),
        mean=source.mean,
        std=source.std,
        classes=source.classes,
    )
