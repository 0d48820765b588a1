"""Variance of the class margin over chips, to first order in the static noise of the weights.

    Var m_n ~ sum over weights of sigma_w^2 (dm_n/dw)^2,    dm_n/dw = sum over reads of delta_n h_n

with delta = dm/d(partial sum) and h what drives the row. A fully connected layer needs no gradient of its weight:
sigma^2 ||h||^2 ||delta||^2. A kernel is one array read at every position, so its gradient is summed over positions
before it is squared: independent errors at each position would average out, the chip's do not (after average
pooling by factors of hundreds).
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.crossbar.ops import Block, ConvOp, LinearOp, Op
from mho.errors import HardwareError, InputError
from mho.objectives.observe import Product, readout_slope
from mho.objectives.weight_noise import has_weight_noise, weight_variance

Read = tuple[Tensor, Tensor]
"""(h, delta) of one read, samples first: [N, ..., in] and [N, ..., out], or as a convolution has them."""


def patches(x: Tensor, op: ConvOp) -> Tensor:
    """What drives the rows at each output position: [N, groups, rows of a group, positions] from [N, channels, ...]."""
    x = F.pad(x, [p for p in reversed(op.padding) for _ in range(2)])
    for d, (kernel, stride, dilation) in enumerate(zip(op.kernel, op.stride, op.dilation, strict=True)):
        x = x.unfold(2 + d, dilation * (kernel - 1) + 1, stride)
    for d, dilation in enumerate(op.dilation):
        axis = 2 + op.ndim + d
        x = x.index_select(axis, torch.arange(0, x.shape[axis], dilation, device=x.device))
    positions, kernel_axes = range(2, 2 + op.ndim), range(2 + op.ndim, 2 + 2 * op.ndim)
    x = x.permute(0, 1, *kernel_axes, *positions)
    return x.reshape(x.shape[0], op.groups, -1, x.shape[2 + op.ndim :].numel())


def sample_gradient(op: Op, h: Tensor, delta: Tensor) -> Tensor:
    """delta_n h_n summed over the positions of each sample: [N, out, rows], rows as in ``weight.flatten(1)``."""
    if isinstance(op, LinearOp):
        # A single position where there is none.
        delta, h = delta.reshape(len(delta), -1, delta.shape[-1]), h.reshape(len(h), -1, h.shape[-1])
        return delta.transpose(1, 2) @ h
    per_group = delta.flatten(2).unflatten(1, (op.groups, -1))
    gradient: Tensor = (per_group @ patches(h, op).transpose(2, 3)).flatten(1, 2)
    return gradient


def quadratic(op: Op, reads: Sequence[Read], variance: Tensor) -> Tensor:
    """sum over weights of variance (sum over reads of delta h)^2 of each sample, [N].

    ``variance``: broadcastable to the weight; all reads are of this one weight.
    """
    if len(reads) == 1 and isinstance(op, LinearOp) and reads[0][0].dim() == 2:
        h2, delta2 = reads[0][0].square(), reads[0][1].square()
        if variance.dim() == 0 or variance.shape[1] == 1:
            return h2.sum(1) * (delta2 * variance.reshape(-1)).sum(1)
        return ((delta2 @ variance) * h2).sum(1)
    total = sum(sample_gradient(op, h, delta) for h, delta in reads)
    assert isinstance(total, Tensor)
    flat = variance if variance.dim() == 0 else variance.flatten(1)
    return (flat * total.square()).sum((1, 2))


def margin_variance(margins: Tensor, products: Iterable[Product]) -> Tensor:
    """Var m_n of each sample, [N], in squared units of ``margins`` [N]; one backward pass, with a graph.

    ``products``: what :func:`observed` saw in the pass that gave the margins. In train mode slopes are
    those on the chip of this pass. Uses that are cut off from the margin have no part in it.

    Raises :class:`HardwareError` where the hardware has no static weight noise, :class:`InputError` where a layer
    does not keep samples apart.
    """
    seen = list(products)
    noisy = [p for p in seen if has_weight_noise(p.hw)]
    if not noisy:
        names = ", ".join(dict.fromkeys(p.hw.name for p in seen)) or "none"
        raise HardwareError(
            f"margin_noise: no weight that was read has a static error (hardware: {names}). Fix: a cell with "
            "programming noise, or margin_noise = 0."
        )
    deltas = torch.autograd.grad(margins.sum(), [p.output for p in noisy], create_graph=True, allow_unused=True)
    uses: dict[int, list[tuple[Product, Tensor]]] = {}
    for product, delta in zip(noisy, deltas, strict=True):
        _check_samples(product, len(margins))
        if delta is not None:
            uses.setdefault(id(product.at.weight), []).append((product, delta))
    total = torch.zeros_like(margins)
    for group in uses.values():
        total = total + _of_one_weight(group)
    return total


def _of_one_weight(group: list[tuple[Product, Tensor]]) -> Tensor:
    """Contribution of one weight matrix to the variance of each margin, [N]."""
    first = group[0][0]
    op, variances = first.op, weight_variance(first.at)
    reads: dict[tuple[int, Block], list[Read]] = {}
    for product, delta in group:
        for part in product.parts():
            slope = 1.0 if part.preactivation is None else readout_slope(part.preactivation, product.hw)
            read = (part.driven, delta * (part.factor * slope))
            if product.batch_axis:
                read = (read[0].transpose(0, 1), read[1].transpose(0, 1))
            reads.setdefault((part.slice_index, part.block), []).append(read)
    contributions = []
    for (k, block), of_block in reads.items():
        variance = variances[k]
        if variance.dim() and variance.shape[1] > 1:
            variance = op.cut_weight(variance, block)
        contributions.append(quadratic(op, of_block, variance))
    return torch.stack(contributions).sum(0)


def _check_samples(product: Product, samples: int) -> None:
    x, op = product.x, product.op
    batched = x.dim() == op.ndim + 2 if isinstance(op, ConvOp) else x.dim() >= 2
    if not batched or x.shape[product.batch_axis] != samples:
        raise InputError(
            f"{product.at.site.name}: margin_noise needs the {samples} samples of the batch along axis "
            f"{product.batch_axis} of its input, which has shape {tuple(x.shape)}. Fix: keep samples on the first axis "
            "of every layer, or margin_noise = 0."
        )


__all__ = ["margin_variance", "patches", "quadratic", "sample_gradient"]
