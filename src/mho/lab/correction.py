"""Digital repair of one device: batch-norm statistics, a scale and a shift an output, a low-rank path beside a layer.

Each needs some inputs that the device computes, unlabelled training data for instance, never test data. How many it
needs is a question for :func:`samples_needed`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.lab.deploy import Deployed
from mho.lab.substrate import Correction
from mho.lab.vectors import to_vectors
from mho.nn.norms import first_inputs, reestimate, tracking_norms
from mho.nn.site import Site, Substrate, substituted


def recalibrate_norms(deployed: Deployed, batches: Iterable[Any], *, count: int = 10) -> Deployed:
    """Re-estimate batch-norm statistics from ``count`` batches on the device; ``deployed`` is changed and returned.

    Raises :class:`InputError` where the network has no batch norm, or there is no batch.
    """
    norms = tracking_norms(deployed.model, "recalibrate_norms")
    reestimate(deployed.model, norms, first_inputs(batches, count, "recalibrate_norms"))
    return deployed


@torch.no_grad()
def fit_affine(deployed: Deployed, reference: nn.Module, x: Tensor) -> dict[str, Correction]:
    """Correct each output of each site by a scale and a shift so that it follows ``reference`` on ``x``.

    Least squares over the vectors of ``x`` between the device's products and those of ``reference``, the converted
    network that was deployed, in eval mode; layer after layer, so that a later layer sees the corrected outputs of
    the former. Sets and returns the corrections.
    """
    wanted = _heard(reference, x)
    for name in wanted:
        measured = _heard(deployed.model, x)[name][1].double()
        target = wanted[name][1].double()
        mean_m, mean_w = measured.mean(0), target.mean(0)
        var = (measured - mean_m).square().mean(0)
        covariance = ((measured - mean_m) * (target - mean_w)).mean(0)
        scale = torch.where(var > 0, covariance / var.clamp_min(1e-30), torch.ones_like(var))
        found = Correction(scale.float(), (mean_w - scale * mean_m).float())
        old = deployed.substrate.corrections.get(name)
        deployed.substrate.corrections[name] = found if old is None else found.after(old)
    return dict(deployed.substrate.corrections)


@torch.no_grad()
def fit_low_rank(
    deployed: Deployed, reference: nn.Module, x: Tensor, *, rank: int, ridge: float = 1e-3
) -> dict[str, Correction]:
    """A digital path of ``rank`` beside each site, for what a scale and a shift leave: y <- ... + (x A) B.

    Reduced-rank regression of (reference - device) on the inputs of the site: M = (X^T X + ridge n s^2 I)^-1 X^T R with
    s^2 the mean square of X, then M V_r V_r^T with the first right singular vectors V_r of X M. Costs rank (inputs +
    outputs) digital weights a site. Needs more vectors than the site has inputs, or it fits noise.
    """
    if rank < 1:
        raise InputError(f"fit_low_rank: rank = {rank}: at least 1. Fix: fit_affine has no path.")
    wanted = _heard(reference, x)
    for name in wanted:
        vectors, measured = _heard(deployed.model, x)[name]
        inputs, rest = vectors.double(), (wanted[name][1] - measured).double()
        weight = ridge * len(inputs) * float(inputs.square().mean())
        gram = inputs.t() @ inputs + weight * torch.eye(inputs.shape[1], dtype=torch.float64)
        whole = torch.linalg.solve(gram, inputs.t() @ rest)
        v = torch.linalg.svd(inputs @ whole, full_matrices=False).Vh[:rank].t()
        old = deployed.substrate.corrections.get(name) or Correction.identity(rest.shape[1])
        deployed.substrate.corrections[name] = replace(old, down=(whole @ v).float(), up=v.t().float())
    return dict(deployed.substrate.corrections)


def samples_needed(
    deploy_again: Callable[[], Deployed],
    repair: Callable[[Deployed, Tensor], object],
    score: Callable[[Deployed], float],
    x: Tensor,
    counts: Sequence[int],
) -> dict[int, float]:
    """``score`` of a deployment after ``repair`` with the first ``n`` inputs of ``x``, for each n of ``counts``.

    The smallest n beyond which the score rises no more is what the repair needs. ``deploy_again`` gives an unrepaired
    deployment each time. Raises :class:`InputError` where ``x`` has too few inputs.
    """
    if max(counts) > len(x):
        raise InputError(
            f"samples_needed: {max(counts)} samples asked, x has {len(x)}. Fix: give more, or ask for fewer."
        )
    found = {}
    for n in counts:
        deployed = deploy_again()
        repair(deployed, x[:n])
        found[n] = score(deployed)
    return found


class _Listening:
    """A substrate that notes the products of another one: the vectors that went in, and what came out without bias."""

    def __init__(self, inner: Substrate, heard: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.inner = inner
        self.simulated = inner.simulated
        self.heard = heard

    def mvm(self, site: Site, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        y = self.inner.mvm(site, x, weight, None, *rest)
        outputs_last = y if isinstance(site.op, LinearOp) else y.movedim(1, -1)
        self.heard[site.name] = to_vectors(x, site.op), outputs_last.reshape(-1, outputs_last.shape[-1])
        return y if bias is None else y + site.op.over_columns(bias).to(y.dtype)


def _heard(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What every site was driven with and answered, in the order of the pass."""
    heard: dict[str, tuple[Tensor, Tensor]] = {}
    with substituted(model, lambda layer: _Listening(layer.substrate, heard)):
        model(x)
    return heard
