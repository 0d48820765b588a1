"""Small files in the original layouts, with checksums of their own given as a Source."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mho.data import SOURCES, FileSum, load_dataset
from mho.data.idx import write_idx
from mho.errors import DataError, InputError

RANDOM = np.random.default_rng(0)


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


def load(name, folder, source, **settings):
    settings = {"cache_dir": Path(folder) / "no-cache", "download": False} | settings
    return load_dataset(name, data_dir=folder, source=source, **settings)


# --- MNIST and Fashion-MNIST -------------------------------------------------------------------------------------


def make_mnist(folder, name="mnist", images=30, labels=None, pack=gzip.compress):
    source = SOURCES[name]
    raw = folder / source.folder
    raw.mkdir(parents=True)
    arrays = []
    for count in (images, 20):
        arrays.append(RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        arrays.append((np.arange(count if labels is None else labels) % 10).astype(np.uint8))
    sums = []
    for file, array in zip(source.files, arrays, strict=True):
        content = pack(write_idx(array))
        path = raw / (file.name if pack is gzip.compress else file.name.removesuffix(".gz"))
        path.write_bytes(content)
        sums.append(FileSum(file.name, md5(content)))
    return replace(source, files=tuple(sums), members=(), train=30, test=20), arrays


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_mnist_layouts(tmp_path, name, pack):
    source, arrays = make_mnist(tmp_path, name, pack=pack)
    data = load(name, tmp_path, source)
    assert np.array_equal(data.train_x[:, 0].numpy(), arrays[0])
    assert data.train_y.tolist() == arrays[1].tolist()
    assert np.array_equal(data.test_x[:, 0].numpy(), arrays[2])
    assert data.test_y.tolist() == arrays[3].tolist()
    assert (data.name, len(data.classes)) == (name, 10)
    assert len(load(name, tmp_path, source, limit_per_class=2).train_y) == 20


def test_mnist_other_places_and_spellings(tmp_path):
    source, arrays = make_mnist(tmp_path, pack=bytes)
    raw = tmp_path / "MNIST" / "raw"
    for path in list(raw.iterdir()):
        path.rename(raw.parent / path.name.replace("-idx", ".idx"))
    assert np.array_equal(load("mnist", tmp_path, source).test_x[:, 0].numpy(), arrays[2])


def test_mnist_wrong_checksum(tmp_path):
    source, _ = make_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected md5") as caught:
        load("mnist", tmp_path, source)
    assert str(path) in str(caught.value)


def test_mnist_unpacked_has_known_checksums(tmp_path):
    make_mnist(tmp_path, pack=bytes)
    with pytest.raises(DataError, match="expected sha256"):
        load("mnist", tmp_path, SOURCES["mnist"])


def test_mnist_counts_are_checked(tmp_path):
    source, _ = make_mnist(tmp_path, labels=29)
    with pytest.raises(DataError, match="one label for each of 30"):
        load("mnist", tmp_path, source)


def test_mnist_number_of_images_is_checked(tmp_path):
    source, _ = make_mnist(tmp_path)
    with pytest.raises(DataError, match="expected 60000 images, found 30"):
        load("mnist", tmp_path, replace(source, train=60_000))


def test_missing_files_and_folders(tmp_path):
    source, _ = make_mnist(tmp_path)
    with pytest.raises(DataError, match="data folder does not exist"):
        load("mnist", tmp_path / "typo", source)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz.*allow the download"):
        load("mnist", tmp_path, source)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz"):
        load("cifar10", tmp_path, None)


# --- CIFAR-10 ----------------------------------------------------------------------------------------------------


def make_cifar(folder, batch=None):
    source = SOURCES["cifar10"]
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    arrays, sums = {}, []
    for member in source.members:
        data = RANDOM.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = RANDOM.integers(0, 10, 20).tolist()
        content = pickle.dumps({b"data": data, b"labels": labels} if batch is None else batch, protocol=2)
        (place / member.name).write_bytes(content)
        sums.append(FileSum(member.name, md5(content)))
        arrays[member.name] = data.reshape(20, 3, 32, 32), labels
    return replace(source, members=tuple(sums), train=100, test=20), arrays


def pack_cifar(folder, suffix):
    mode = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[suffix]
    path = folder / f"cifar-10-python.{suffix}"
    with tarfile.open(path, mode) as archive:
        for name in ("test_batch", *(f"data_batch_{n}" for n in (3, 1, 2, 5, 4))):
            archive.add(folder / "cifar-10-batches-py" / name, f"cifar-10-batches-py/{name}")
    shutil.rmtree(folder / "cifar-10-batches-py")
    return path


@pytest.mark.parametrize("suffix", [None, "tar", "tar.gz", "tar.xz"])
def test_cifar_layouts(tmp_path, suffix):
    source, arrays = make_cifar(tmp_path)
    if suffix is not None:
        pack_cifar(tmp_path, suffix)
    data = load("cifar10", tmp_path, source)
    assert data.train_x.shape == (100, 3, 32, 32)
    for number in range(5):
        images, labels = arrays[f"data_batch_{number + 1}"]
        assert np.array_equal(data.train_x[20 * number : 20 * number + 20].numpy(), images)
        assert data.train_y[20 * number : 20 * number + 20].tolist() == labels
    assert data.test_y.tolist() == arrays["test_batch"][1]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_cifar_pickles_are_opened_only_after_their_checksum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, _ = make_cifar(tmp_path, batch=Evil())
    with pytest.raises(DataError, match=r"(posix|nt)\.mkdir"):  # even with the right checksum
        load("cifar10", tmp_path, source)
    wrong = replace(source, members=tuple(FileSum(m.name, "md5:0") for m in source.members))
    with pytest.raises(DataError, match="expected md5 0"):
        load("cifar10", tmp_path, wrong)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({b"labels": [1] * 20}, "KeyError"),
        ({b"data": np.zeros((20, 3072), np.float32), b"labels": [1] * 20}, "float32"),
        ({b"data": np.zeros((20, 3072), np.uint8), b"labels": [1] * 19}, "uint8"),
        ({b"data": np.zeros((20, 3072), np.uint8), b"labels": [10] * 20}, "labels from 0 to 9"),
        ({b"data": np.zeros((10, 3072), np.uint8), b"labels": [1] * 10}, "100 images"),
        ([1, 2], "TypeError"),
    ],
)
def test_cifar_contents_are_checked(tmp_path, batch, words):
    source, _ = make_cifar(tmp_path, batch=batch)
    with pytest.raises(DataError, match=words):
        load("cifar10", tmp_path, source)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_cifar_truncated_archive(tmp_path, suffix, kept):
    source, _ = make_cifar(tmp_path)
    path = pack_cifar(tmp_path, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="download it again") as caught:
        load("cifar10", tmp_path, source)
    assert str(path) in str(caught.value)


def test_cifar_kept_decoded_only_where_there_is_a_cache_folder(tmp_path, monkeypatch):
    source, _ = make_cifar(tmp_path)
    pack_cifar(tmp_path, "tar.xz")
    load("cifar10", tmp_path, source)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").mkdir()
    first = load("cifar10", tmp_path, source)
    (kept,) = (tmp_path / "cache").iterdir()
    with pytest.raises(DataError, match="99 images"):  # other demands: what was kept does not serve them
        load("cifar10", tmp_path, replace(source, train=99))
    monkeypatch.setattr("mho.data.load.read_cifar10", None)
    second = load("cifar10", tmp_path, replace(source, base_url="http://mirror/"))
    assert torch.equal(first.train_x, second.train_x)
    assert torch.equal(first.test_y, second.test_y)
    assert (first.mean, first.classes, first.name) == (second.mean, second.classes, second.name)
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    with pytest.raises(DataError, match="Delete it"):
        load("cifar10", tmp_path, source)


# --- Tiny ImageNet -----------------------------------------------------------------------------------------------

WNIDS = ("n02", "n01", "n03")  # not sorted: labels are positions, not ranks


def colour(label, number):
    return (60 * label + 10, 200 - 5 * number, 90)


def jpeg(rgb, mode="RGB", size=64):
    sink = io.BytesIO()
    Image.new("RGB", (size, size), rgb).convert(mode).save(sink, "JPEG", quality=95)
    return sink.getvalue()


def tiny_files(train=4, val=6):
    files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": b"n01\tcat, feline\nn02\tdog\nn03\tcrane\nn99\tother\n",
        "val/val_annotations.txt": b"".join(
            b"val_%d.JPEG\t%s\t0\t0\t9\t9\n" % (n, WNIDS[n % 3].encode()) for n in range(val)
        ),
    }
    for number in range(val):
        files[f"val/images/val_{number}.JPEG"] = jpeg(colour(number % 3, 0))
    for number in range(train):
        for label, wnid in enumerate(WNIDS):
            mode = "L" if (number, label) == (1, 0) else "RGB"
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(colour(label, number), mode)
    files["test/images/test_0.JPEG"] = jpeg((1, 2, 3))
    files["train/n01/n01_boxes.txt"] = b"n01_0.JPEG\t0\t0\t9\t9\n"
    return files


def put_tiny(folder, kind, files):
    source = replace(SOURCES["tiny-imagenet"], test=6)
    if kind == "folder":
        for name, content in files.items():
            path = folder / "tiny-imagenet-200" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return source
    name = {"zip": "tiny-imagenet-200.zip", "tar.xz": "tiny-imagenet-200-subset.tar.xz"}[kind]
    path = folder / name
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in reversed(files.items()):
                archive.writestr(f"tiny-imagenet-200/{member}", content)
    else:
        with tarfile.open(path, "w:xz") as archive:
            for member, content in files.items():
                entry = tarfile.TarInfo(f"tiny-imagenet-200/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return replace(source, files=(FileSum(name, md5(path.read_bytes())),), members=())


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.xz"])
@pytest.mark.parametrize("limit", [None, 2])
def test_tiny_layouts(tmp_path, kind, limit):
    source = put_tiny(tmp_path, kind, tiny_files())
    data = load("tiny-imagenet", tmp_path, source, limit_per_class=limit)
    count = 4 if limit is None else limit
    assert data.train_x.shape == (3 * count, 3, 64, 64)
    assert data.test_x.shape == (6, 3, 64, 64)
    assert data.classes == ("dog", "cat, feline", "crane")
    assert torch.bincount(data.train_y).tolist() == [count] * 3
    assert data.test_y.tolist() == [0, 1, 2, 0, 1, 2]
    for x, y in zip(data.test_x, data.test_y.tolist(), strict=True):
        assert (x[:, 30, 30].int() - torch.tensor(colour(y, 0))).abs().max() <= 4
    greens = [data.train_x[data.train_y == 1][n, 1, 30, 30].item() for n in range(count)]
    assert greens == sorted(greens, reverse=True)  # in the order of the numbers
    grey = data.train_x[data.train_y == 0][1]
    assert torch.equal(grey[0], grey[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train/n01/images/n01_2.JPEG": None}, "4 train images of each class, found 3 of class n01"),
        ({"val/images/val_3.JPEG": None}, "6 validation images, found 5"),
        ({"wnids.txt": None}, "wnids.txt"),
        ({"val/val_annotations.txt": None}, "val_annotations.txt"),
        ({"val/val_annotations.txt": b"val_0.JPEG n01\n"}, "tab-separated"),
        ({"wnids.txt": b"n02\nn01\n"}, "'n03'"),
        ({"wnids.txt": b"\xff\xfe"}, "UTF-8"),
        ({"train/n01/images/n01_2.JPEG": b"GIF"}, "complete JPEG image"),
        ({"train/n01/images/n01_2.JPEG": jpeg((9, 99, 9))[:-300]}, "complete JPEG image"),
        ({"train/n01/images/n01_2.JPEG": jpeg((9, 9, 9), size=32)}, "found 32 x 32"),
        ({"train/stray_0.JPEG": jpeg((9, 9, 9))}, "'stray_0.JPEG'"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_tiny_contents_are_checked(tmp_path, change, words, kind):
    files = {name: content for name, content in (tiny_files() | change).items() if content is not None}
    source = put_tiny(tmp_path, kind, files)
    with pytest.raises(DataError, match=words):
        load("tiny-imagenet", tmp_path, source)


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_tiny_damaged_archive(tmp_path, kind):
    source = put_tiny(tmp_path, kind, tiny_files())
    path = tmp_path / source.files[0].name
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="expected md5"):
        load("tiny-imagenet", tmp_path, source)
    unknown = replace(source, files=(FileSum(path.name, md5(path.read_bytes())),))
    with pytest.raises(DataError, match="download it again"):
        load("tiny-imagenet", tmp_path, unknown)


def test_tiny_impossible_limits(tmp_path):
    source = put_tiny(tmp_path, "folder", tiny_files())
    with pytest.raises(InputError, match="has 4 train images"):
        load("tiny-imagenet", tmp_path, source, limit_per_class=5)
    with pytest.raises(InputError, match="at least 1"):
        load("tiny-imagenet", tmp_path, source, limit_per_class=0)


# --- the real files, where there are some ------------------------------------------------------------------------


def test_real_tiny_imagenet_and_cifar():
    folder = os.environ.get("MHO_DATA")
    if not folder or not (Path(folder) / "tiny-imagenet-200-subset.tar.xz").is_file():
        pytest.skip("MHO_DATA names no folder with Tiny ImageNet's subset")
    data = load_dataset("tiny-imagenet", data_dir=folder, download=False, limit_per_class=2)
    assert torch.bincount(data.train_y).tolist() == [2] * 200
    assert torch.bincount(data.test_y).tolist() == [50] * 200
    assert len(set(data.classes)) > 190
