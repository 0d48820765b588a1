"""The multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int] = (784, 512, 256, 10)) -> nn.Sequential:
    """Flatten, then Linear layers of ``sizes`` with ReLU between them.

    Input ``[batch, ...]`` with ``sizes[0]`` values an image, output ``[batch, sizes[-1]]`` logits.
    The default 784-512-256-10 has 535,818 parameters.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
