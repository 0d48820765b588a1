"""Build src/mho/data/mnist_mini.idx.xz from the four files of MNIST.

    python benchmarks/make_mnist_mini.py --data-dir DATA

DATA holds MNIST/raw/*.gz. The same input gives the same images; the compressed bytes also depend on the version of
liblzma. Put the SHA-256 that is printed into src/mho/data/mnist_mini.py.
"""

import argparse
import hashlib
import lzma
from pathlib import Path

import numpy as np

from mho.data.idx import read_idx, write_idx
from mho.data.mnist_mini import FILE, TEST, TRAIN
from mho.data.sources import SOURCES

LIMIT = 2_000_000
CLASSES = 10


def first_of_each(images: np.ndarray, labels: np.ndarray, per_class: int) -> bytes:
    """Two IDX arrays, one behind the other: the first ``per_class`` images of each class in their order, and labels."""
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:per_class] for digit in range(CLASSES)]))
    return write_idx(images[chosen]) + write_idx(labels[chosen])


def compress(content: bytes) -> bytes:
    """xz; four literal context bits (the pixel to the left) save 2 % over the default, predictors all cost more."""
    filters = [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": 1 << 24,
            "lc": 4,
            "lp": 0,
            "pb": 0,
            "nice_len": 273,
        }
    ]
    return lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=filters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST/raw/*.gz")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/mho/data" / FILE)
    options = parser.parse_args()
    raw = options.data_dir / "MNIST" / "raw"
    digests = {file.name: file.digest for file in SOURCES["mnist"].files}
    content = b""
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        names = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
        images, labels = (read_idx(raw / name, digests[name]) for name in names)
        content += first_of_each(images, labels, count // CLASSES)
    packed = compress(content)
    if len(packed) >= LIMIT:
        raise SystemExit(f"{len(packed)} bytes are more than {LIMIT}: take fewer images.")
    options.out.write_bytes(packed)
    print(f"{options.out}: {len(packed)} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
