"""A data set in memory: uint8 images, int64 labels and what is needed to normalise them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mho.data.augment import Augment
from mho.data.batches import Batches, normalise
from mho.errors import DataError, InputError
from mho.rng import stream


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train and test images, uint8 [N, C, H, W], with labels, int64 [N], in 0..len(classes)-1.

    ``mean`` and ``std`` are of the train pixels / 255, one a channel. Nothing else in mho needs this class:
    ``TensorDataset(data.normalise(data.train_x), data.train_y)`` is what any torch ``DataLoader`` takes.
    Raises DataError when shapes, dtypes, counts or labels do not fit.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            where = f"data set {self.name}, {part}"
            if x.dtype != torch.uint8 or x.ndim != 4:
                raise DataError(f"{where}: images must be uint8 [N, C, H, W], not {x.dtype} {list(x.shape)}.")
            if y.dtype != torch.int64 or y.shape != x.shape[:1]:
                raise DataError(f"{where}: {len(x)} images need as many int64 labels, not {y.dtype} {list(y.shape)}.")
            if x.shape[1:] != self.train_x.shape[1:]:
                raise DataError(
                    f"{where}: images are {list(x.shape[1:])}, train images {list(self.train_x.shape[1:])}."
                )
            if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(self.classes):
                raise DataError(f"{where}: labels {int(y.min())} to {int(y.max())} for {len(self.classes)} classes.")
        if not len(self.mean) == len(self.std) == self.train_x.shape[1]:
            raise DataError(f"data set {self.name}: mean and std need {self.train_x.shape[1]} numbers, one a channel.")

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set in the memory of ``device``, where its batches are then made."""
        names = ("train_x", "train_y", "test_x", "test_y")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def normalise(self, x: Tensor) -> Tensor:
        """(x / 255 - mean) / std: uint8 [N, C, H, W] to float32."""
        return normalise(x, self.mean, self.std)

    def train_batches(
        self,
        batch_size: int,
        seed: int = 0,
        augment: Augment = None,
        subset: int | None = None,
        *,
        max_shift: int = 2,
        drop_last: bool = False,
    ) -> Batches:
        """Shuffled batches of the train images (of the first ``subset``); see :class:`mho.data.Batches`."""
        count = _count("train_batches", subset, len(self.train_x))
        return Batches(
            self.train_x[:count],
            self.train_y[:count],
            batch_size,
            mean=self.mean,
            std=self.std,
            shuffle=True,
            augment=augment,
            max_shift=max_shift,
            drop_last=drop_last,
            seed=seed,
        )

    def test_batches(self, batch_size: int, subset: int | None = None) -> Batches:
        """The test images (the first ``subset``) in their own order, without augmentation."""
        count = _count("test_batches", subset, len(self.test_x))
        return Batches(self.test_x[:count], self.test_y[:count], batch_size, mean=self.mean, std=self.std)

    def split_validation(self, count: int, seed: int = 0) -> "Dataset":
        """A data set to choose settings with: ``count`` train images become its test set, the others its train set.

        The real test images are not in it. Each class gives its share of ``count`` (to one image); which images is a
        function of ``seed``. InputError unless 1 <= count < number of train images.
        """
        total = len(self.train_y)
        if not 1 <= count < total:
            raise InputError(f"split_validation: count is {count}; it must be from 1 to {total - 1}.")
        held = torch.zeros(total, dtype=torch.bool)
        held[_even_order(self.train_y, stream("validation", seed))[:count]] = True
        return replace(
            self,
            train_x=self.train_x[~held],
            train_y=self.train_y[~held],
            test_x=self.train_x[held],
            test_y=self.train_y[held],
        )

    def limit(self, per_class: int) -> "Dataset":
        """The same test set with only the first ``per_class`` train images of each class, in their order.

        InputError if a class has fewer, or ``per_class`` is below 1.
        """
        sizes = torch.bincount(self.train_y, minlength=len(self.classes))
        if not 1 <= per_class <= int(sizes.min()):
            raise InputError(f"limit: {per_class} train images per class; {self.name} has 1 to {int(sizes.min())}.")
        kept = torch.zeros(len(self.train_y), dtype=torch.bool)
        for label in range(len(self.classes)):
            kept[torch.nonzero(self.train_y == label).flatten()[:per_class]] = True
        return replace(self, train_x=self.train_x[kept], train_y=self.train_y[kept])


def _count(function: str, subset: int | None, total: int) -> int:
    if subset is None:
        return total
    if not 1 <= subset <= total:
        raise InputError(f"{function}: subset is {subset} images; the data set has 1 to {total}.")
    return subset


def _even_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of the images in which every beginning has each class in proportion to its size."""
    mixed = torch.randperm(len(labels), generator=generator)
    by_class = mixed[torch.argsort(labels[mixed], stable=True)]
    sizes = torch.bincount(labels)
    starts = torch.cumsum(sizes, 0) - sizes
    of = labels[by_class]
    share = (torch.arange(len(labels)) - starts[of] + 0.5) / sizes[of]
    return by_class[torch.argsort(share, stable=True)]
