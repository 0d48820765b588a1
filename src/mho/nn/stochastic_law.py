"""The law of a stochastic residual layer as pure functions: r = phi(a + s(x) eps) or phi(a) + s(x) eps.

    s^2(x) = physical terms + unit^2 softplus(theta . psi(x, a))

Random numbers come in as arguments.
"""

import math
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mho.crossbar.noise import StaticDraws
from mho.crossbar.ops import Op
from mho.physics.functions import root

Form = Literal["pre", "post"]

SHARPNESS = 8.0
"""Of the softplus of the remainder: s^2 is linear in the features down to a tenth of the unit."""

FEATURES = ("1", "|a|", "a^2", "||x||^2 / rows")
"""psi(x, a): floor, shot noise, a gain's own noise, read and weight noise. The last needs a product."""


class LayerNoise(NamedTuple):
    """What one forward pass draws. ``static``: of the weights' cells; ``fresh``: normals of the shape of a."""

    static: StaticDraws | None = None
    fresh: Tensor | None = None


class ReadLaw(NamedTuple):
    """Mean and variance of one read of the layer: of a (form "pre") or of phi(a) (form "post")."""

    mean: Tensor
    variance: Tensor


def features(a: Tensor, x: Tensor | None, op: Op | None) -> tuple[Tensor, ...]:
    """psi(x, a) of ``FEATURES``, each broadcastable to a; the last one only where there is a product."""
    found = (a.new_ones(()), a.abs(), a.square())
    if op is None or x is None:
        return found
    return (*found, op.row_norm2(x) / op.rows)


def remainder(psi: tuple[Tensor, ...], theta: Tensor, unit2: Tensor, scales: Tensor) -> Tensor:
    """unit^2 softplus(z) / softplus(1), z = sum_k theta_k psi_k / scale_k: the learned part of s^2, >= 0.

    softplus(z) = ln(1 + e^(8 z)) / 8. theta = (1, 0, ...) is the constant unit^2. theta, scales: [features];
    unit2: 0-d, squared units of the output, 0 for no remainder.
    """
    z = sum(theta[k] / scales[k] * f for k, f in enumerate(psi))
    assert isinstance(z, Tensor)
    at_one = math.log1p(math.exp(SHARPNESS)) / SHARPNESS
    return unit2 / at_one * F.softplus(z, beta=SHARPNESS)


def perturbed(base: Tensor, variance: Tensor | None, eps: Tensor | None) -> Tensor:
    """base + sqrt(variance) eps; the gradient flows through both, and is 0 where the variance is 0.

    With s = sqrt(variance) as a function of the input, E[eps L'(base + s eps)] = s E[L''] (Price 1958): the
    path through s adds s s' E[L''] to the gradient.
    """
    return base if variance is None or eps is None else base + root(variance) * eps
