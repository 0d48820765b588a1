"""The digital baseline: a small network that undoes the same bit flips, in many steps (discrete diffusion)."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mho.ebm.generate.forward import BitFlips, flipped
from mho.errors import TrainingError
from mho.rng import derive_seed, stream
from mho.train.progress import progress_bar


def cosine_flips(steps: int) -> BitFlips:
    """Levels with 1 - 2 c_t = cos(pi/2 t/T)^2: what is kept falls slowly at both ends; c_T = 1/2."""
    kept = [math.cos(0.5 * math.pi * t / steps) ** 2 for t in range(1, steps)]
    return BitFlips((*((1.0 - k) / 2.0 for k in kept), 0.5))


class Denoiser(nn.Module):
    """Logits of the clean pixels [B, P] from noisy ones and the time: a small U-shaped convolutional network.

    28 x 28 to 14 x 14 to 7 x 7 and back, ``width`` channels at the finest level; the time enters as a bias of every
    channel.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        w = width
        self.time = nn.Embedding(steps + 1, 4 * w)
        self.inward = nn.Conv2d(1, w, 3, padding=1)
        self.down1 = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(2 * w, 2 * w, 3, stride=2, padding=1)
        self.mixing = nn.Sequential(nn.Flatten(), nn.Linear(2 * w * 49, w), nn.SiLU(), nn.Linear(w, 2 * w * 49))
        self.up1 = nn.Conv2d(4 * w, 2 * w, 3, padding=1)
        self.up2 = nn.Conv2d(3 * w, w, 3, padding=1)
        self.outward = nn.Conv2d(w, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``x`` [B, 784] of -1 and +1, ``t`` [B] int64."""
        a, b, c = self.time(t)[:, :, None, None].split(
            [self.inward.out_channels, self.inward.out_channels, self.down1.out_channels], 1
        )
        fine = nn.functional.silu(self.inward(x.view(-1, 1, 28, 28)) + a)
        middle = nn.functional.silu(self.down1(fine) + c)
        coarse = nn.functional.silu(self.down2(middle))
        coarse = coarse + self.mixing(coarse).view_as(coarse)
        rising = nn.functional.interpolate(coarse, scale_factor=2.0)
        rising = nn.functional.silu(self.up1(torch.cat([rising, middle], 1)))
        rising = nn.functional.interpolate(rising, scale_factor=2.0)
        rising = nn.functional.silu(self.up2(torch.cat([rising, fine], 1)) + b)
        out: Tensor = self.outward(rising).flatten(1)
        return out


def denoiser_size(width: int, steps: int) -> int:
    """The number of parameters of a denoiser."""
    with torch.random.fork_rng(devices=[]):
        return sum(p.numel() for p in Denoiser(width, steps).parameters())


def width_for(parameters: int, steps: int) -> int:
    """The width whose number of parameters is nearest to ``parameters``."""
    return min(range(2, 65), key=lambda width: abs(denoiser_size(width, steps) - parameters))


@final
@dataclass(frozen=True)
class DiffusionTraining:
    """``updates`` steps of Adam on the cross entropy of the clean pixels."""

    updates: int = 5_000
    batch: int = 128
    lr: float = 2e-3
    seed: int = 0


def train_diffusion(
    images: Tensor, flips: BitFlips, width: int, settings: DiffusionTraining, *, progress: bool = False
) -> Denoiser:
    """A denoiser trained on ``images`` [N, 784]; a function of the settings. Raises :class:`TrainingError` for NaN."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, "diffusion"))
        network = Denoiser(width, flips.steps)
    generator = stream(settings.seed, "diffusion", "training")
    optimizer = torch.optim.Adam(network.parameters(), settings.lr)
    levels = torch.tensor([flips.level(t) for t in range(flips.steps + 1)])
    value = math.nan
    with progress_bar(settings.updates, progress) as show:
        for update in range(settings.updates):
            clean = images[torch.randint(0, len(images), (settings.batch,), generator=generator)]
            t = torch.randint(1, flips.steps + 1, (len(clean),), generator=generator)
            noisy = torch.where(torch.rand(clean.shape, generator=generator) < levels[t, None], -clean, clean)
            loss = nn.functional.binary_cross_entropy_with_logits(network(noisy, t), (clean + 1.0) / 2.0)
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * max(1.0 / 30.0, min(1.0, 2.0 * (1.0 - update / settings.updates)))
            optimizer.step()
            value = float(loss.detach())
            show(update + 1, "digital diffusion")
    if not math.isfinite(value):
        raise TrainingError(f"train_diffusion: the loss is {value} after {settings.updates} updates. Fix: a lower lr.")
    return network.eval().requires_grad_(False)


def posterior(x_t: Tensor, clean: Tensor, flips: BitFlips, t: int) -> Tensor:
    """p(x_{t-1} = +1 | x_t, p(x_0 = +1) = clean), pixel by pixel: Bayes' rule for two bit flips, summed over x_0."""
    level, flip = flips.level(t - 1), flips.flip(t)
    total = torch.zeros_like(clean)
    for start, weight in ((1.0, clean), (-1.0, 1.0 - clean)):
        up = (1.0 - level if start > 0 else level) * torch.where(x_t > 0, 1.0 - flip, flip)
        down = (level if start > 0 else 1.0 - level) * torch.where(x_t > 0, flip, 1.0 - flip)
        total = total + weight * up / (up + down)
    return total


@torch.no_grad()
def sample_diffusion(network: Denoiser, flips: BitFlips, count: int, *, majority: bool = True, seed: int = 0) -> Tensor:
    """``count`` images [count, 784] by ancestral sampling from fair coins; ``majority``: the likelier last pixels."""
    generator = stream(seed, "diffusion", "images")
    x = flipped(torch.ones(count, 784), 0.5, generator)
    for t in range(flips.steps, 0, -1):
        clean = torch.cat([torch.sigmoid(network(part, torch.full((len(part),), t))) for part in x.split(256)])
        chance = posterior(x, clean, flips, t)
        if t == 1 and majority:
            return torch.where(chance >= 0.5, 1.0, -1.0)
        x = torch.where(torch.rand(x.shape, generator=generator) < chance, 1.0, -1.0)
    return x
