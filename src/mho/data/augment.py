"""Augmentations of whole batches of uint8 images: draws first, then arithmetic without random numbers.

Every draw is made for a whole epoch at once, one for each place in its order, so that the batch size does not change
what a place gets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mho.errors import InputError, nearest

AUGMENTATIONS = ("shift", "flip")
Augment = str | Sequence[str] | None


class Draws(NamedTuple):
    """What an epoch's augmentation does with each of N images; None where it is switched off."""

    shifts: Tensor | None
    """Int64 [2, N]: rows down and columns right, each in 0..2 max_shift, with max_shift for "stay"."""
    flips: Tensor | None
    """Bool [N]: mirror left and right."""

    def to(self, device: torch.device) -> "Draws":
        """The same draws on ``device``."""
        return Draws(*(None if d is None else d.to(device) for d in self))


def parse_augment(augment: Augment) -> tuple[str, ...]:
    """The names in ``augment``: None, "shift", "flip", or several of them. An unknown name is an InputError."""
    names = () if augment is None else (augment,) if isinstance(augment, str) else tuple(augment)
    for name in names:
        if name not in AUGMENTATIONS:
            raise InputError(f"augment: unknown augmentation {name!r}. {nearest(str(name), AUGMENTATIONS)}")
    return names


def draw(names: Sequence[str], count: int, max_shift: int, generator: torch.Generator) -> Draws:
    """The draws of an epoch of ``count`` images: uniform shifts in both directions, fair flips."""
    shifts = torch.randint(2 * max_shift + 1, (2, count), generator=generator) if "shift" in names else None
    flips = torch.rand(count, generator=generator) < 0.5 if "flip" in names else None
    return Draws(shifts, flips)


def shift(x: Tensor, moves: Tensor, max_shift: int, background: int = 0) -> Tensor:
    """Move each image of ``x`` [B, C, H, W] by its own whole number of pixels.

    ``moves`` int64 [2, B] in 0..2 max_shift (``max_shift`` leaves the image where it is, more moves it down or right).
    What comes in from outside is ``background``. Any dtype; no loop over images.
    """
    height, width = x.shape[-2:]
    padded = functional.pad(x, (max_shift,) * 4, value=background)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = 2 * max_shift - moves
    return windows[torch.arange(len(x), device=x.device), :, down, right]


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror those images of ``x`` [B, C, H, W] left and right whose entry in ``mirrored`` (bool [B]) is true."""
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


def apply(x: Tensor, draws: Draws, places: slice, max_shift: int) -> Tensor:
    """The images ``x`` at ``places`` of the epoch's order, augmented: flipped first, then shifted."""
    if draws.flips is not None:
        x = flip(x, draws.flips[places])
    if draws.shifts is not None:
        x = shift(x, draws.shifts[:, places], max_shift)
    return x
