"""The baseline of old: one restricted Boltzmann machine, trained by persistent contrastive divergence."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mho.errors import TrainingError
from mho.rng import stream
from mho.train.progress import progress_bar


class RestrictedMachine(nn.Module):
    """E(v, h) = -(v W h + a v + b h) on pixels v [P] and latent units h [H], all of -1 and +1; every pair is joined."""

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(pixels, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(pixels))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(p.numel() for p in self.parameters())

    def hidden_mean(self, v: Tensor) -> Tensor:
        """<h> given pixels [B, P]: tanh of the field, [B, H]."""
        return torch.tanh(v @ self.weight + self.hidden_bias)

    def visible_mean(self, h: Tensor) -> Tensor:
        """<v> given latent units [B, H]: [B, P]."""
        return torch.tanh(h @ self.weight.t() + self.visible_bias)


def hidden_for(parameters: int, pixels: int) -> int:
    """The number of latent units with which a restricted machine has about ``parameters`` parameters, at least 1."""
    return max(1, round((parameters - pixels) / (pixels + 1)))


def spins_of(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Independent spins with the given means."""
    return torch.where(torch.rand(mean.shape, generator=generator) * 2.0 - 1.0 < mean, 1.0, -1.0)


@final
@dataclass(frozen=True)
class PersistentTraining:
    """``updates`` steps of Adam; ``chains`` persistent chains, moved by ``sweeps`` sweeps an update."""

    updates: int = 20_000
    batch: int = 128
    chains: int = 128
    sweeps: int = 5
    lr: float = 1e-3
    seed: int = 0


@torch.no_grad()
def train_rbm(
    machine: RestrictedMachine, images: Tensor, settings: PersistentTraining, *, progress: bool = False
) -> None:
    """Train in place on ``images`` [N, P]. Source: Tieleman, ICML 2008. Raises :class:`TrainingError` for NaN."""
    generator = stream(settings.seed, "rbm")
    pixels = machine.weight.shape[0]
    machine.weight.normal_(0.0, 0.01, generator=generator)
    machine.visible_bias.copy_(torch.atanh(images.mean(0).clamp(-0.98, 0.98)))
    v = spins_of(torch.zeros(settings.chains, pixels), generator)
    optimizer = torch.optim.Adam(machine.parameters(), settings.lr, betas=(0.5, 0.999))
    with progress_bar(settings.updates, progress) as show:
        for update in range(settings.updates):
            data = images[torch.randint(0, len(images), (settings.batch,), generator=generator)]
            mean = machine.hidden_mean(data)
            for _ in range(settings.sweeps):
                h = spins_of(machine.hidden_mean(v), generator)
                v = spins_of(machine.visible_mean(h), generator)
            free = machine.hidden_mean(v)
            machine.weight.grad = v.t() @ free / len(v) - data.t() @ mean / len(data)
            machine.visible_bias.grad = v.mean(0) - data.mean(0)
            machine.hidden_bias.grad = free.mean(0) - mean.mean(0)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * max(1.0 / 30.0, min(1.0, 2.0 * (1.0 - update / settings.updates)))
            optimizer.step()
            show(update + 1, "restricted machine")
    if not bool(torch.isfinite(machine.weight).all()):
        raise TrainingError(f"train_rbm: weights are NaN after {settings.updates} updates. Fix: a lower lr.")


@torch.no_grad()
def sample_rbm(
    machine: RestrictedMachine, count: int, *, sweeps: int = 1000, majority: bool = True, seed: int = 0
) -> Tensor:
    """``count`` images [count, P] after ``sweeps`` sweeps of as many chains from fair coins.

    ``majority``: the most probable value of each pixel given the last latent units, else a sample.
    """
    generator = stream(seed, "rbm", "images")
    v = spins_of(torch.zeros(count, machine.weight.shape[0]), generator)
    mean = v
    for _ in range(sweeps):
        h = spins_of(machine.hidden_mean(v), generator)
        mean = machine.visible_mean(h)
        v = spins_of(mean, generator)
    return torch.where(mean >= 0.0, 1.0, -1.0) if majority else v
