"""Global drift compensation: one digital gain a layer, from the response to known inputs."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mho.crossbar.array import Array, slice_factors
from mho.nn.site import Site
from mho.rng import derive_seed, stream


def response(site: Site, array: Array, vectors: int, seed: int) -> float:
    """sum |y| of ``vectors`` probe inputs, uniform on [0, 1), read once each with read noise."""
    generator = stream(seed, site.name, "probe")
    total = 0.0
    probe: Tensor | None = None
    for k, (w, factor) in enumerate(zip(array.weights, slice_factors(site.hw), strict=True)):
        flat = w.detach().float().cpu().flatten(1)
        if probe is None:
            probe = torch.rand(vectors, flat.shape[1], generator=generator)
        y = probe @ flat.t()
        if array.read_var is not None:
            var = array.read_var[k].detach().float().cpu()
            spread = probe.square() @ var.expand_as(w).flatten(1).t()
            y = y + spread.sqrt() * torch.randn(y.shape, generator=generator)
        total += factor * float(y.abs().sum())
    return total


def drift_gains(
    sites: Mapping[str, Site],
    now: Callable[[str, int], Array],
    fresh: Callable[[str, int], Array],
    chips: Sequence[int],
    vectors: int,
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """alpha = sum|y(0)| / sum|y(t)| for each site and chip; 1 where nothing answers (an empty array).

    ``now``, ``fresh``: the array of a site (by name) on a chip (by place in its lot) now and at time 0, asked for one
    at a time; ``chips``: the number in its lot of each chip, which with ``seed`` gives its probe inputs.
    """
    gains: dict[str, list[float]] = {name: [] for name in sites}
    for place, chip in enumerate(chips):
        chip_seed = derive_seed(seed, chip)
        for name, site in sites.items():
            reference, measured = (response(site, array(name, place), vectors, chip_seed) for array in (fresh, now))
            gains[name].append(reference / measured if measured > 0 else 1.0)
    return {name: tuple(per_chip) for name, per_chip in gains.items()}
