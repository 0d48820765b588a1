"""How much the answer moves when the input moves: |df/dx| in four estimators.

Small isotropic input noise of variance s^2 adds s^2/2 ||J||_F^2 to a squared error (Bishop 1995), so
the squared norm is what such noise trains by itself. J = df/dx, [outputs, inputs] for each sample; each
function gives the mean over the batch. Samples are taken as independent: batch statistics in train
mode couple them, and a sample's gradient then holds its share in the answers of the others.
"""

import torch
from torch import Tensor

SMOOTHING = 1e-6
"""delta of the smoothed absolute value sqrt(g^2 + delta^2), in units of the gradient."""


def sphere(projections: int, samples: int, outputs: int, generator: torch.Generator) -> Tensor:
    """Directions uniform on the unit sphere of the outputs: [projections, samples, outputs], float32."""
    v = torch.randn((projections, samples, outputs), generator=generator)
    lengths: Tensor = v.norm(dim=-1, keepdim=True)
    return v / lengths


def pull_back(values: Tensor, x: Tensor, v: Tensor | None = None) -> Tensor:
    """J^T v of each sample, [N, inputs]: one backward pass, with a graph. ``v`` of the shape of ``values``."""
    (g,) = torch.autograd.grad(values, x, torch.ones_like(values) if v is None else v, create_graph=True)
    return g.flatten(1) if g.dim() > 1 else g.unsqueeze(1)


def squared(g: Tensor) -> Tensor:
    """||g||^2 of each sample, [N]."""
    return g.square().sum(1)


def absolute(g: Tensor) -> Tensor:
    """sum_i sqrt(g_i^2 + delta^2) of each sample, [N]: |g| with a slope at 0."""
    return (g.square() + SMOOTHING**2).sqrt().sum(1)


def projected(outputs: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """C ||J^T v||^2, mean over samples and over the directions ``v`` [projections, N, C]; unbiased for ||J||_F^2.

    E[v v^T] = 1/C for v uniform on the sphere. One backward pass a projection.
    Hoffman, Roberts and Yaida 2019 (arXiv:1908.02729).
    """
    flat = outputs.flatten(1)
    count = flat.shape[1]
    return torch.stack([count * squared(pull_back(flat, x, one)).mean() for one in v.to(flat)]).mean()


def exact(outputs: Tensor, x: Tensor, norm: str) -> Tensor:
    """||J||_F^2 ("l2") or sum |J_oi| ("l1"), mean over samples. One backward pass an output."""
    measure = squared if norm == "l2" else absolute
    return torch.stack([measure(pull_back(column, x)).mean() for column in outputs.flatten(1).unbind(1)]).sum()


def of_margin(margins: Tensor, x: Tensor, norm: str) -> Tensor:
    """The same norms of dm/dx for the class margin m [N] alone, mean over samples. One backward pass."""
    measure = squared if norm == "l2" else absolute
    return measure(pull_back(margins, x)).mean()


__all__ = ["SMOOTHING", "absolute", "exact", "of_margin", "projected", "pull_back", "sphere", "squared"]
