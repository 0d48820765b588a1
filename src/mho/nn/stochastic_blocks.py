"""Residual blocks made of the stochastic residual layer."""

from torch import nn

from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.nn.stochastic import StochasticResidual
from mho.nn.stochastic_law import Form


def stochastic_block(
    inputs: int,
    outputs: int,
    hw: Hardware | None = None,
    *,
    kernel: int | None = None,
    stride: int = 1,
    norm: bool = False,
    form: Form = "pre",
    sigma: float = 0.0,
    clip_sigma: float | None = None,
) -> StochasticResidual:
    """y = skip(x) + ReLU(norm(W x + b + s(x) eps)): one residual block.

    ``kernel=None``: a Linear from ``inputs`` to ``outputs`` features; an odd ``kernel``: a 2-d convolution that keeps
    the size of the image at ``stride`` 1. The skip is the identity where shapes agree, else a
    projection without bias (a Linear, a 1x1 convolution), which mho.convert puts on hardware too. ``norm``: a
    batch norm in front of the ReLU.
    """
    if kernel is not None and (kernel < 1 or kernel % 2 == 0):
        raise InputError(f"stochastic_block: kernel = {kernel!r}: must be odd, or None for a Linear.")
    if stride < 1 or (kernel is None and stride != 1):
        raise InputError(f"stochastic_block: stride = {stride!r}: 1 or more, and 1 without a kernel.")
    same = inputs == outputs and stride == 1
    inner: nn.Module
    projection: nn.Module
    if kernel is None:
        inner, projection = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)
        batch_norm: nn.Module = nn.BatchNorm1d(outputs)
    else:
        inner = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        projection, batch_norm = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
    return StochasticResidual(
        inner,
        hw,
        form=form,
        activation=nn.Sequential(batch_norm, nn.ReLU()) if norm else nn.ReLU(),
        skip="identity" if same else projection,
        sigma=sigma,
        clip_sigma=clip_sigma,
    )
