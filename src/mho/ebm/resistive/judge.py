"""A trained resistive network on many virtual chips."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mho.chips.substrate import chip_seed
from mho.ebm.resistive.chips import on_chip
from mho.ebm.resistive.model import ResistiveNetwork
from mho.ebm.resistive.network import Conductances
from mho.errors import InputError
from mho.evaluation.result import Result
from mho.hardware.spec import Hardware
from mho.physics.scaling import scale_hardware_noise
from mho.rng import derive_seed
from mho.units import seconds

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def right(
    model: ResistiveNetwork,
    g_uS: Conductances,
    batches: Batches,
    *,
    noise_seed: int | None = None,
    hw: Hardware | None = None,
) -> NDArray[np.bool_]:
    """Which images are classified right on conductances ``g_uS``, bool [images].

    Outputs are read through the ADC (:meth:`ResistiveNetwork.read`); of equal codes the first one wins.
    ``noise_seed``: fresh read noise, batch n from the stream (seed, n); ``None``: noiseless reads.
    """
    found = []
    for number, (x, y) in enumerate(batches):
        seed = None if noise_seed is None else derive_seed(noise_seed, "batch", number)
        volts = model.read(model.at_rest(x, g_uS, noise_seed=seed, hw=hw).outputs)
        found.append((volts.argmax(1) == y).numpy())
    if not found:
        raise InputError("resistive network: no batch to judge on. Fix: check the subset.")
    return np.concatenate(found)


@torch.no_grad()
def evaluate_on_chips(
    models: ResistiveNetwork | Sequence[ResistiveNetwork],
    batches: Batches,
    *,
    chips: int = 25,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    noise_scales: Sequence[float] = (1.0,),
    ages: Sequence[float | str] = (),
    attrs: dict[str, Any] | None = None,
    tell: Callable[[int, int], object] = lambda done, total: None,
) -> Result:
    """Outcomes of every image on every chip, as a :class:`~mho.evaluation.result.Result`.

    ``models``: one, or one a training seed. Chip i is that of the lot ``seed``, as in ``mho.fabricate``.
    ``noise_scales`` multiply every random source of the hardware; all share a chip's normals. ``ages``: seconds or text
    ("1 day") after programming (empty: as the hardware says). ``clean``: the wanted conductances, reads without noise,
    the same converters.
    ``batches`` are read once a chip, age and scale. ``tell(done, total)`` after each.
    """
    nets = [models] if isinstance(models, ResistiveNetwork) else list(models)
    times = tuple(seconds(a) for a in ages) or (nets[0].hw.environment.t_s,)
    clean, outcomes = [], []
    done, total = 0, len(nets) * chips * len(times) * len(noise_scales)
    for net in nets:
        clean.append(right(net, net.wanted(), batches))
        found = np.zeros((chips, len(times), len(noise_scales), 1, len(clean[-1])), dtype=np.bool_)
        for place, scale in enumerate(noise_scales):
            scaled = scale_hardware_noise(net.hw, float(scale))
            for chip, (number, t_s) in product(range(chips), enumerate(times)):
                chosen = chip_seed(seed, chip)
                g = on_chip(dict(net.w.items()), scaled, chip_seed=chosen, age=t_s)
                fresh = derive_seed(chosen, "fresh")
                found[chip, number, place, 0] = right(net, g, batches, noise_seed=fresh, hw=scaled)
                done += 1
                tell(done, total)
        outcomes.append(found)
    named = range(len(nets)) if seeds is None else seeds
    return Result.of(
        np.stack(outcomes),
        clean=np.stack(clean),
        seeds=tuple(named),
        ages_s=times,
        noise_scales=tuple(float(s) for s in noise_scales),
        attrs={"hardware": nets[0].hw.name, "model": "ResistiveNetwork", "chip_seed": seed, **(attrs or {})},
    )


__all__ = ["evaluate_on_chips", "right"]
