import gzip

import numpy as np
import pytest

from mho.data.checks import require_digest, require_pairs
from mho.data.idx import parse_idx, read_idx, split_idx, write_idx
from mho.errors import DataError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_read_gives_back_what_was_written(tmp_path, packed):
    path = tmp_path / ("a-ubyte.gz" if packed else "a-ubyte")
    content = write_idx(ARRAY)
    path.write_bytes(gzip.compress(content) if packed else content)
    array = read_idx(path)
    assert array.dtype == np.uint8
    assert np.array_equal(array, ARRAY)
    array[0, 0, 0] = 9  # writable, so that torch can own it


def test_header_is_the_published_one():
    assert write_idx(np.zeros((5, 28, 28), np.uint8))[:16] == bytes.fromhex("00000803 00000005 0000001c 0000001c")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "header"),
        (b"\0\0\x08", "header"),
        (b"\0\0\x0d\1" + bytes(8), "header"),
        (b"\0\0\x08\3\0\0\0\1", "sizes"),
        (write_idx(ARRAY)[:-1], "24 bytes of data"),
        (write_idx(ARRAY) + b"x", "40 bytes"),
    ],
)
def test_damaged_idx_names_file_and_remedy(tmp_path, content, words):
    path = tmp_path / "labels-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "download it again" in str(caught.value)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(write_idx(ARRAY))[:-9])
    with pytest.raises(DataError, match="gzip"):
        read_idx(path)


def test_wrong_digest(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    require_digest(path, path, "md5:900150983cd24fb0d6963f7d28e17f72")
    require_digest("a", b"abc", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(DataError, match="found md5 900150983cd24fb0d6963f7d28e17f72"):
        require_digest(path, path, "md5:00")


def test_arrays_one_behind_the_other():
    other = np.array([7, 8], np.uint8)
    content = write_idx(ARRAY) + write_idx(other)
    first, offset = split_idx(content, "two")
    second, end = split_idx(content, "two", offset)
    assert np.array_equal(first, ARRAY)
    assert np.array_equal(second, other)
    assert end == len(content)
    with pytest.raises(DataError):
        parse_idx(content, "two")


def test_pairs():
    images = np.zeros((3, 2, 2), np.uint8)
    labels = np.array([0, 1, 2], np.uint8)
    assert require_pairs("f", images, labels, 3, 3).dtype == np.int64
    with pytest.raises(DataError, match="one label for each of 3 images"):
        require_pairs("f", images, labels[:2], 3, 3)
    with pytest.raises(DataError, match="4 images"):
        require_pairs("f", images, labels, 4, 3)
    with pytest.raises(DataError, match="labels from 0 to 1"):
        require_pairs("f", images, labels, 3, 2)
