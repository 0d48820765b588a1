"""Batches of normalised float32 images from uint8 tensors in memory: fast, and the same for the same seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mho.data.augment import Augment, apply, draw, parse_augment
from mho.errors import InputError
from mho.rng import stream


def normalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std for each channel: uint8 [N, C, H, W] to float32 of that shape, on the device of x."""
    centre = torch.tensor(mean, dtype=torch.float32, device=x.device).view(-1, 1, 1)
    width = torch.tensor(std, dtype=torch.float32, device=x.device).view(-1, 1, 1)
    return x.to(torch.float32).div_(255).sub_(centre).div_(width)


class Batches:
    """An iterable of (x, y): float32 [B, C, H, W] and int64 [B], with ``len()`` batches an epoch, where ``x`` is.

    The order and the augmentation are functions of (seed, epoch) alone (:func:`mho.rng.stream`); the batch size
    changes neither. Each ``iter()`` takes the present epoch and moves the counter on, so a plain loop sees a new
    order every time; :meth:`set_epoch` before the loop makes an epoch repeatable. Without ``shuffle`` and ``augment``
    every epoch is the same.

    ``augment``: None, "shift" (up to ``max_shift`` pixels each way, filled with pixel value 0), "flip" (left and right,
    half of the images), or several of them. ``drop_last`` leaves out a last batch that is not full.
    Raises InputError for impossible settings: an empty set, a batch size below 1, shapes that do not fit, a typo.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        augment: Augment = None,
        max_shift: int = 2,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if x.ndim != 4 or x.dtype != torch.uint8:
            raise InputError(f"Batches: x must be uint8 [N, C, H, W], not {x.dtype} {list(x.shape)}.")
        if y.shape != x.shape[:1]:
            raise InputError(
                f"Batches: y must have one label for each of {len(x)} images, not the shape {list(y.shape)}."
            )
        if not len(mean) == len(std) == x.shape[1]:
            raise InputError(f"Batches: mean and std need one number for each of {x.shape[1]} channels.")
        if batch_size < 1:
            raise InputError(f"Batches: batch_size is {batch_size}; it must be at least 1.")
        if max_shift < 1:
            raise InputError(
                f"Batches: max_shift is {max_shift} pixels; it must be at least 1 (augment=None: no shift)."
            )
        if len(x) < (batch_size if drop_last else 1):
            raise InputError(
                f"Batches: {len(x)} images make no batch of {batch_size} (drop_last={drop_last}). "
                "Give more images, a smaller batch_size or drop_last=False."
            )
        self._x, self._y = x, y
        self._mean, self._std = tuple(mean), tuple(std)
        self._shuffle = shuffle
        self._augment = parse_augment(augment)
        self._max_shift = max_shift
        self._drop_last = drop_last
        self._seed = seed
        self.batch_size = batch_size
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        count = self.images
        return count // self.batch_size if self._drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the present epoch; the counter moves on at once, even if the loop is left early."""
        epoch = self.epoch
        self.epoch += 1
        return self.of_epoch(epoch)

    @property
    def images(self) -> int:
        """Images in the set, before ``drop_last``."""
        return len(self._x)

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``iter()`` be that of ``epoch``."""
        self.epoch = epoch

    def of_epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``epoch`` from number ``start`` on (to go on within an epoch); the counter stays."""
        generator = stream("data", self._seed, epoch)
        # Drawn on the CPU wherever the images are: the order is the same on every device.
        device = self._x.device
        order = torch.randperm(self.images, generator=generator).to(device) if self._shuffle else None
        draws = draw(self._augment, self.images, self._max_shift, generator).to(device)
        for number in range(start, len(self)):
            places = slice(number * self.batch_size, min((number + 1) * self.batch_size, self.images))
            rows = places if order is None else order[places]
            x = apply(self._x[rows], draws, places, self._max_shift)
            # A slice is a view: cloned, so that no caller can write into the data set.
            y = self._y[rows].clone() if order is None else self._y[rows]
            yield normalise(x, self._mean, self._std), y
