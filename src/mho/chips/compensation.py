"""Global drift compensation: one digital gain a layer, from the response to known inputs."""

from collections.abc import Mapping

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
    sites: Mapping[str, tuple[Site, Tensor, Tensor | None]],
    now: Mapping[str, tuple[Array, ...]],
    fresh: Mapping[str, tuple[Array, ...]],
    vectors: int,
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """alpha = sum|y(0)| / sum|y(t)| for each site and chip; 1 where nothing answers (an empty array)."""
    gains = {}
    for name, (site, _, _) in sites.items():
        per_chip = []
        for chip, (aged, new) in enumerate(zip(now[name], fresh[name], strict=True)):
            chip_seed = derive_seed(seed, chip)
            reference, measured = (response(site, a, vectors, chip_seed) for a in (new, aged))
            per_chip.append(reference / measured if measured > 0 else 1.0)
        gains[name] = tuple(per_chip)
    return gains
