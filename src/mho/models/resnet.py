"""ResNet-20 for small images (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from typing import final

import torch
from torch import nn


@final
class PadShortcut(nn.Module):
    """Shortcut without weights (option A): every second pixel, new channels are zero.

    ``[batch, c, h, w] -> [batch, channels, ceil(h / stride), ceil(w / stride)]``. Without weights the
    skip path stays digital and free of noise when the network is converted.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thin = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(thin, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


@final
class Block(nn.Module):
    """``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))`` with 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else PadShortcut(outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: torch.Tensor = self.relu2(self.shortcut(x) + branch)
        return out


def resnet20(width: int = 16, in_channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Three groups of three blocks with ``width``, ``2 width``, ``4 width`` channels.

    Input ``[batch, in_channels, h, w]`` of any size >= 4, output ``[batch, classes]`` logits. The default
    (width 16, 3 channels, 10 classes) has 269,722 parameters.
    """
    stem = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks: list[nn.Module] = []
    inputs = width
    for group in range(3):
        outputs = width << group
        for index in range(3):
            blocks.append(Block(inputs, outputs, stride=2 if group > 0 and index == 0 else 1))
            inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*stem, *blocks, *head)
