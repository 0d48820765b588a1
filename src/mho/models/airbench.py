"""A slim relative of airbench94 (Jordan 2024, arXiv 2404.00498) for 32x32 images."""

from collections.abc import Sequence

from torch import nn


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm whose scale stays 1: the network cannot win against noise by growing it."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.requires_grad_(False)
    return norm


def _group(inputs: int, outputs: int) -> list[nn.Module]:
    """Convolution, halving by maximum, norm, ReLU, convolution, norm, ReLU."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        _norm(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        _norm(outputs),
        nn.ReLU(),
    ]


def airbench(
    widths: Sequence[int] = (32, 64, 128), in_channels: int = 3, classes: int = 10, stem_stride: int = 1
) -> nn.Sequential:
    """A 2x2 convolution (24 channels), three groups of two 3x3 convolutions, global maximum, Linear.

    Input ``[batch, in_channels, h, w]`` with h, w >= 9 (32 in the paper), output ``[batch, classes]``.
    ``stem_stride`` s: the first convolution has a kernel of 2 s and stride s, so that images s times as large
    cost about the same from there on.
    Differences from the paper: thin, ReLU for GELU, and the first layer is learned, not whitened and
    frozen. The default (32, 64, 128) has 295,106 parameters, 448 of them frozen.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, 24, 2 * stem_stride, stem_stride), nn.ReLU()]
    inputs = 24
    for outputs in widths:
        layers += _group(inputs, outputs)
        inputs = outputs
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers)
