"""The probability that one of several jointly normal logits is the largest. No random numbers."""

import torch
from torch import Tensor

from mho.errors import InputError

NODES = 256


def normal_nodes(count: int, dims: int) -> Tensor:
    """``count`` quasi-random points [count, dims] of a standard normal: a centred Sobol net through Phi^-1.

    Deterministic. ``count`` a power of two; ``dims`` >= 0.
    """
    if dims == 0:
        return torch.zeros(count, 0, dtype=torch.float64)
    unit = torch.quasirandom.SobolEngine(dims, scramble=False).draw(count, dtype=torch.float64)
    points: Tensor = torch.special.ndtri(unit + 0.5 / count)
    return points


def right_and_rivals(mean: Tensor, labels: Tensor, count: int) -> Tensor:
    """The right class and the ``count`` wrong ones with the largest means, [N, 1 + count], for means [N, classes]."""
    classes = mean.shape[1]
    if labels.shape != mean.shape[:1] or classes < 2 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"forecast: {tuple(labels.shape)} labels from {int(labels.min())} to {int(labels.max())} for logits of "
            f"shape {tuple(mean.shape)}. Fix: one label from 0 an image, and two logits or more."
        )
    others = mean.scatter(1, labels[:, None], -torch.inf).topk(min(count, classes - 1), 1).indices
    return torch.cat((labels[:, None], others), 1)


def differences(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of z_0 - z_j, j = 1 ...: [N, A-1] and [N, A-1, A-1] in float64, of z with [N, A] and [N, A, A]."""
    wide, spread = mean.double(), cov.double()
    cross = spread[:, 0, 1:]
    joint = spread[:, :1, :1] - cross[:, :, None] - cross[:, None, :] + spread[:, 1:, 1:]
    return wide[:, :1] - wide[:, 1:], joint


def all_positive(mean: Tensor, cov: Tensor, nodes: int = NODES) -> Tensor:
    """P(every d_j > 0) of d ~ N(mean [N, D], cov [N, D, D]), by Genz' sequential transformation on a Sobol net.

    The integrand is smooth, so that 256 nodes give three digits and more (Genz, J. Comput. Graph. Stat. 1, 141,
    1992). Variables are taken in the order of the likeliest to fail. A variance of zero is a comparison.
    """
    var = cov.diagonal(dim1=1, dim2=2)
    scale = var.clamp_min(1e-300).sqrt()
    order = (mean / scale).argsort(1)
    mean = (mean / scale).gather(1, order)
    corr = cov / (scale[:, :, None] * scale[:, None, :])
    corr = corr.gather(1, order[:, :, None].expand_as(corr)).gather(2, order[:, None, :].expand_as(corr))
    dims = mean.shape[1]
    jitter = 1e-9 * torch.eye(dims, dtype=corr.dtype)
    factor, _ = torch.linalg.cholesky_ex(corr + jitter)
    uniform = torch.special.ndtr(normal_nodes(nodes, max(dims - 1, 0)))
    weight = mean.new_ones(len(mean), nodes)
    drawn: list[Tensor] = []
    for j in range(dims):
        shift = mean[:, j, None]
        for i, y in enumerate(drawn):
            shift = shift + factor[:, j, i, None] * y
        limit = -shift / factor[:, j, j, None].clamp_min(1e-12)
        passing = torch.special.ndtr(-limit)
        weight = weight * passing
        if j < dims - 1:
            # y | y > limit, from the upper tail: precise also where passing is tiny.
            upper = (uniform[:, j] * passing).clamp(1e-300, 1.0 - 1e-16)
            drawn.append(-torch.special.ndtri(upper))
    return weight.mean(1).clamp(0, 1)
