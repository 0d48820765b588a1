"""Batch-norm statistics re-estimated on what a network really computes: on one chip, on a device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mho.errors import InputError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Statistics = dict[str, tuple[Tensor, Tensor]]


def tracking_norms(model: nn.Module, who: str) -> dict[str, nn.Module]:
    """The batch norms with running statistics by name. Raises :class:`InputError` where there is none."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, NORMS) and m.track_running_stats}
    if not found:
        raise InputError(f"{who}: the network has no batch norm with running statistics to re-estimate.")
    return found


def first_inputs(batches: Iterable, count: int, who: str) -> list[Tensor]:
    """The inputs of the first ``count`` batches (inputs, or pairs). Raises :class:`InputError` where there is none."""
    inputs = []
    for batch in batches:
        inputs.append(batch[0] if isinstance(batch, (tuple, list)) else batch)
        if len(inputs) == count:
            break
    if not inputs:
        raise InputError(f"{who}: there was no batch. Way out: give at least one batch of inputs.")
    return inputs


@torch.no_grad()
def reestimate(model: nn.Module, norms: dict[str, nn.Module], inputs: list[Tensor]) -> Statistics:
    """Mean and variance of each norm over ``inputs``, by ``model`` as it computes now; they are left in the norms."""
    momenta = {n: m.momentum for n, m in norms.items()}
    for m in norms.values():
        m.reset_running_stats()  # type: ignore[operator]  # a batch norm
        m.momentum = None  # type: ignore[assignment]  # plain means
        m.training = True
    try:
        for x in inputs:
            model(x)
    finally:
        for name, m in norms.items():
            m.training, m.momentum = False, momenta[name]
    return {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in norms.items()}  # type: ignore[operator, union-attr]
