"""``load_dataset``: find a data set's files, or bring them, and read them."""

from pathlib import Path

from mho.data.cifar10 import find_cifar10, read_cifar10
from mho.data.dataset import Dataset
from mho.data.decoded import FOLDER, remembered
from mho.data.download import Progress, default_cache, fetch
from mho.data.mnist import find_mnist, read_mnist
from mho.data.mnist_mini import load_mnist_mini
from mho.data.sources import SOURCES, Source
from mho.data.tiny_imagenet import find_tiny_imagenet, read_tiny_imagenet
from mho.errors import DataError, InputError, nearest

MINI = "mnist-mini"
DATASETS = (MINI, *SOURCES)


def load_dataset(
    name: str = MINI,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    limit_per_class: int | None = None,
    cache_dir: str | Path | None = None,
    source: Source | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The data set ``name``: "mnist-mini", "mnist", "fashion-mnist", "cifar10" or "tiny-imagenet".

    "mnist-mini" is inside the package. The others are looked for in ``data_dir``, then in ``cache_dir`` (by default the
    system's cache folder), and else downloaded there if ``download``. Layouts, below either folder:

    - MNIST/raw/*-ubyte.gz, FashionMNIST/raw/*-ubyte.gz, or the same unpacked;
    - cifar-10-batches-py/, cifar-10-python.tar.gz, cifar-10-python.tar.xz;
    - tiny-imagenet-200/, tiny-imagenet-200.zip, tiny-imagenet-200-subset.tar.xz.

    ``limit_per_class`` keeps the first train images of each class (the test set stays whole). ``source`` replaces
    addresses, checksums and counts, for a mirror: ``dataclasses.replace(SOURCES["mnist"], base_url=...)``.
    ``progress(address, bytes_here, bytes_in_all)`` is called during a download.

    Raises InputError for an unknown name or an impossible limit, DataError for missing, damaged or unreachable files.
    """
    if name == MINI:
        data = load_mnist_mini()
        return data if limit_per_class is None else data.limit(limit_per_class)
    if name not in SOURCES:
        raise InputError(f"load_dataset: unknown data set {name!r}. {nearest(name, DATASETS)}")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: the data folder does not exist. Correct data_dir, or leave it out to download.")
    chosen = SOURCES[name] if source is None else source
    paths = None if data_dir is None else _find(name, Path(data_dir), chosen)
    if paths is None:
        cache = default_cache() if cache_dir is None else Path(cache_dir)
        paths = _find(name, cache, chosen) or _bring(name, chosen, cache, data_dir, download, progress)
    return _read(name, paths, chosen, limit_per_class)


def _find(name: str, root: Path, source: Source) -> tuple[Path, ...] | None:
    if name == "cifar10":
        return find_cifar10(root, source)
    if name == "tiny-imagenet":
        return find_tiny_imagenet(root, source)
    return find_mnist(root, source)


def _bring(
    name: str, source: Source, cache: Path, data_dir: str | Path | None, download: bool, progress: Progress | None
) -> tuple[Path, ...]:
    files = ", ".join((Path(source.folder) / file.name).as_posix() for file in source.files)
    if not download:
        looked = str(cache) if data_dir is None else f"{data_dir} and {cache}"
        raise DataError(
            f"data set {name}: not all its files are in {looked} (wanted: {files}). "
            "Put them there, give another data_dir, or allow the download."
        )
    fetch(source, cache, progress)
    (cache / FOLDER).mkdir(exist_ok=True)
    paths = _find(name, cache, source)
    if paths is None:
        raise DataError(f"data set {name}: {files} were downloaded to {cache}, but they are not a readable data set.")
    return paths


def _read(name: str, paths: tuple[Path, ...], source: Source, limit: int | None) -> Dataset:
    if name == "tiny-imagenet":
        label = name if limit is None else f"{name}-{limit}"
        return remembered(paths[0], source, label, lambda: read_tiny_imagenet(paths, source, name, limit))
    if name == "cifar10":
        data = remembered(paths[0], source, name, lambda: read_cifar10(paths, source, name))
    else:
        data = read_mnist(paths, source, name)
    return data if limit is None else data.limit(limit)
