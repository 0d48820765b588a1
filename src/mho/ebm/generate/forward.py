"""The forward process of a denoising model of binary images: each pixel flips now and then until nothing is left.

Discrete time t = 1 ... T, pixels in {-1, +1}. Step t flips each pixel by itself with probability p_t, so that after t
steps it differs from the image with probability c_t (the *level*), 1 - 2 c_t = prod_s (1 - 2 p_s). As an energy,

    q(x_t | x_{t-1}) ~ exp(g_t x_t x_{t-1}),    g_t = 1/2 ln((1 - p_t) / p_t),

a coupling of fixed strength between a pixel and its noisy copy (Jelincic et al., arXiv:2510.23972). With c_T = 1/2 the
last step leaves uniform noise, exactly: g_T = 0, and generation begins with fair coins.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import InputError


@final
@dataclass(frozen=True)
class BitFlips:
    """Levels c_1 < ... < c_T = 1/2: probability that a pixel differs from the image after t steps.

    Raises :class:`InputError` unless they rise strictly from above 0 to exactly 1/2.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0.0, *self.levels), self.levels, strict=False))
        if not self.levels or not rising or self.levels[-1] != 0.5:
            raise InputError(
                f"BitFlips: levels = {self.levels}: they must rise strictly from above 0 and end with 0.5 (nothing of "
                "the image is left). Fix: for instance (0.04, 0.12, 0.25, 0.5)."
            )

    @property
    def steps(self) -> int:
        """T."""
        return len(self.levels)

    def level(self, t: int) -> float:
        """c_t, for t = 0 ... T; c_0 = 0."""
        return self.levels[t - 1] if t else 0.0

    def flip(self, t: int) -> float:
        """p_t, for t = 1 ... T: probability that step t flips a pixel."""
        return (1.0 - (1.0 - 2.0 * self.level(t)) / (1.0 - 2.0 * self.level(t - 1))) / 2.0

    def field(self, t: int) -> float:
        """g_t, for t = 1 ... T: strength of the field that x_t puts on x_{t-1}, in units of kT; g_T = 0."""
        p = self.flip(t)
        return 0.0 if p == 0.5 else 0.5 * math.log((1.0 - p) / p)

    def pair(self, images: Tensor, t: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x_{t-1}, x_t) of ``images`` (-1 and +1): two neighbouring times of one path of the forward process."""
        before = flipped(images, self.level(t - 1), generator)
        return before, flipped(before, self.flip(t), generator)


def flipped(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """``x`` with every element's sign changed with ``probability``, independently; the very tensor for 0."""
    if probability == 0.0:
        return x
    return torch.where(torch.rand(x.shape, generator=generator) < probability, -x, x)


def binarized(images: Tensor) -> Tensor:
    """uint8 images [N, 1, H, W] as float32 [N, H*W]: +1 where the pixel is 128 or more, else -1.

    Raises :class:`InputError` for anything but grey uint8 images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1:
        raise InputError(
            f"binarized: images are {images.dtype} {list(images.shape)}, needs uint8 [N, 1, H, W]. Fix: a grey data "
            "set (mnist, mnist-mini, fashion-mnist)."
        )
    return images.flatten(1).ge(128).float().mul_(2.0).sub_(1.0)
