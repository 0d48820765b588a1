"""Where randomness enters a network, and what it does to each output to first order.

A forward pass with a :class:`Tape` leaves behind a graph of means, linearised at each bend by its gain, and
a list of sources. Given the gradients g_a of the outputs at a source's node, a source says what covariance
between outputs it causes in each image, split in three by lifetime:

* static: first order in the cells' errors. One draw for all positions and all images.
* curved: static too, but second order (products of two errors, and the bend of a nonlinearity).
* fresh: another draw each read (read noise, converters' rounding).

Shapes: N images, A outputs, G groups, O outputs a group, K rows a group, P positions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.moments.weights import WeightMoments


class Covariance(NamedTuple):
    """Covariance between the outputs of each image, [N, A, A], by lifetime."""

    static: Tensor
    curved: Tensor
    fresh: Tensor

    def total(self) -> Tensor:
        return self.static + self.curved + self.fresh


class Source(Protocol):
    """One entry of randomness. ``node``: the tensor of the graph at which it adds."""

    node: Tensor

    def add(self, g: Tensor, into: Covariance) -> None:
        """Add to ``into`` what it causes, for g [N, A, *node.shape[1:]]."""
        ...


@final
@dataclass
class Tape:
    """The sources of one pass over ``images`` images.

    ``factor``: by what the variances at the next bend are multiplied, from their means and variances.
    """

    images: int
    factor: Callable[[Tensor, Tensor, "Tape"], float]
    sources: list[Source] = field(default_factory=list)


def respond(tape: Tape, chosen: Tensor) -> tuple[Covariance, list[Tensor]]:
    """Covariance of chosen elements of the graph [N, A] by all sources, and their gradients [N, A, ...] at each."""
    zero = chosen.new_zeros(*chosen.shape, chosen.shape[1])
    found = Covariance(zero.clone(), zero.clone(), zero.clone())
    nodes = [source.node for source in tape.sources]
    if not nodes or not chosen.requires_grad:
        return found, []
    per_output = []
    for z in chosen.unbind(1):
        grads = torch.autograd.grad(z.sum(), nodes, retain_graph=True, allow_unused=True)
        per_output.append([torch.zeros_like(n) if g is None else g for n, g in zip(nodes, grads, strict=True)])
    gradients = [torch.stack(gs, 1) for gs in zip(*per_output, strict=True)]
    with torch.no_grad():
        for source, g in zip(tape.sources, gradients, strict=True):
            source.add(g, found)
    return found, gradients


def by_channel(x: Tensor, group: int) -> Tensor:
    """[N, C, *positions] (or [N, C * group]) as [N, C, P]; leading dimensions before N stay."""
    return x.unflatten(-1, (-1, group)) if group > 1 else x


def gram(features: Tensor) -> Tensor:
    """sum_k f_a f_b for features [N, A, ...]: [N, A, A]."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2)


def weighted_gram(g: Tensor, var: Tensor) -> Tensor:
    """sum_k g_a g_b var, g [N, A, ...] and var [N, ...] >= 0: [N, A, A]."""
    flat = g.flatten(2)
    return (flat * var.clamp_min(0).flatten(1).unsqueeze(1)) @ flat.transpose(1, 2)


def positions(op: Op, x: Tensor, images: int) -> Tensor:
    """What drives each row at each position, [N, G, K, P]."""
    if isinstance(op, LinearOp):
        return x.reshape(images, -1, op.in_features).transpose(1, 2).unsqueeze(1)
    pad = [p for size in reversed(op.padding) for p in (size, size)]
    padded = torch.nn.functional.pad(x, pad)
    first = padded.dim() - op.ndim
    for d in range(op.ndim):
        # Each pass turns one spatial dimension into (output position, kernel position).
        dim = first + 2 * d
        count = (padded.shape[dim] - op.dilation[d] * (op.kernel[d] - 1) - 1) // op.stride[d] + 1
        index = (torch.arange(count) * op.stride[d])[:, None] + torch.arange(op.kernel[d]) * op.dilation[d]
        padded = padded.index_select(dim, index.flatten().to(x.device)).unflatten(dim, (count, op.kernel[d]))
    spots = [first + 2 * d for d in range(op.ndim)]
    kernel = [first + 2 * d + 1 for d in range(op.ndim)]
    ordered = padded.permute(0, 1, *kernel, *spots)
    n, channels = ordered.shape[:2]
    return ordered.reshape(n, op.groups, channels // op.groups * math.prod(op.kernel), -1)


def columns(op: Op, g: Tensor) -> Tensor:
    """Gradients at the outputs of an op, [N, A, *as it shapes them], as [N, A, G, O, P]."""
    if isinstance(op, LinearOp):
        rows: Tensor = g.flatten(2).unflatten(2, (-1, op.out_features))
        return rows.transpose(2, 3).unsqueeze(2)
    spots: Tensor = g.flatten(-op.ndim).unflatten(2, (op.groups, -1))
    return spots


def grouped(op: Op, per_weight: Tensor) -> Tensor:
    """[out, ...] as [G, O, K]."""
    groups = op.groups if isinstance(op, ConvOp) else 1
    return per_weight.reshape(groups, per_weight.shape[0] // groups, -1)


def weight_features(g: Tensor, u: Tensor, var: Tensor) -> Tensor:
    """sqrt(var_w) sum_p g_p u_p for every weight, [N, A, G, O, K]: g [N, A, G, O, P], u [N, G, K, P]."""
    n, a, groups, outs, spots = g.shape
    made = g.transpose(1, 2).reshape(n * groups, a * outs, spots) @ u.reshape(n * groups, -1, spots).transpose(1, 2)
    return made.reshape(n, groups, a, outs, -1).transpose(1, 2) * var.sqrt()


def energy(u2: Tensor, var: Tensor, column: Tensor | None) -> Tensor:
    """sum_k var_ok u2_k: [N, G, K, P] -> [N, G, O, P]; var [G, O, K], column [G, O] where uniform."""
    if column is not None:
        return column[None, :, :, None] * u2.sum(2, keepdim=True)
    return torch.einsum("gok,ngkp->ngop", var, u2)


@final
@dataclass(eq=False)
class WeightSource:
    """Static errors of one weight matrix, seen through the moments of its input.

    ``mean``, ``var`` and the shared amplitude ``amp`` of the input as the op takes it.
    """

    node: Tensor
    op: Op
    weights: WeightMoments
    mean: Tensor
    var: Tensor
    amp: Tensor | None
    images: int

    def add(self, g: Tensor, into: Covariance) -> None:
        g5 = columns(self.op, g)
        var, column = self.spread()
        u = positions(self.op, self.mean, self.images)
        rest = self.var if self.amp is None else self.var - self.amp.square()
        if g5.shape[-1] == 1:
            into.static.add_(weighted_gram(g5, energy(u.square(), var, column)))
            into.curved.add_(weighted_gram(g5, energy(positions(self.op, self.var, self.images), var, column)))
            return
        into.static.add_(gram(weight_features(g5, u, var)))
        into.curved.add_(weighted_gram(g5, energy(positions(self.op, rest, self.images), var, column)))
        if self.amp is not None:
            into.curved.add_(gram(weight_features(g5, positions(self.op, self.amp, self.images), var)))

    def spread(self) -> tuple[Tensor, Tensor | None]:
        """(variance of each weight [G, O, K], of each column [G, O] where uniform)."""
        var = grouped(self.op, self.weights.var)
        column = self.weights.column_var
        return var, None if column is None else column.reshape(var.shape[:2])


@final
@dataclass(eq=False)
class FreshSource:
    """Noise that is independent at each element and read; ``var`` of the node's shape."""

    node: Tensor
    var: Tensor

    def add(self, g: Tensor, into: Covariance) -> None:
        into.fresh.add_(weighted_gram(g, self.var))


@final
@dataclass(eq=False)
class BendSource:
    """What a nonlinearity adds beyond its linear part: variance ``var``, of which ``amp``^2 is common to a channel."""

    node: Tensor
    var: Tensor
    amp: Tensor | None
    group: int

    def add(self, g: Tensor, into: Covariance) -> None:
        if self.amp is None:
            into.curved.add_(weighted_gram(g, self.var))
            return
        into.curved.add_(weighted_gram(g, self.var - self.amp.square()))
        together = by_channel(g * self.amp.unsqueeze(1), self.group)
        into.curved.add_(gram(together.flatten(3).sum(-1) if together.dim() > 3 else together))


__all__ = [
    "BendSource",
    "Covariance",
    "FreshSource",
    "Source",
    "Tape",
    "WeightSource",
    "by_channel",
    "columns",
    "energy",
    "gram",
    "positions",
    "respond",
    "weight_features",
    "weighted_gram",
]
