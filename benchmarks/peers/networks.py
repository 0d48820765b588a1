"""The networks and steps that every tool is timed on, in plain torch alone: no tool is imported here."""

from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 8
OUTPUT_NOISE = 0.04
WEIGHT_NOISE = 0.04
CLIP_SIGMA = 2.5
LEARNING_RATE = 1e-3
CASES = MappingProxyType(
    {
        "train_mlp": ("mlp", True),
        "infer_mlp": ("mlp", False),
        "train_resnet20": ("resnet20", True),
        "infer_resnet20": ("resnet20", False),
    }
)
"""Name of a case: (network, whether it is a training step)."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut that halves the image and pads channels with zeros (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.extra = (1 if inputs == outputs else 2), outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra))
        return F.relu(x + y)


def resnet20() -> nn.Module:
    """ResNet-20 for 32x32 images in 10 classes."""
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = [Block(a, b) for a, b in pairwise(widths)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks, *head)


def network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A digital network, one batch and its classes; the same numbers in every process."""
    torch.manual_seed(0)
    if name == "mlp":
        model: nn.Module = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        x = torch.randn(128, 784)
    else:
        model, x = resnet20(), torch.randn(64, 3, 32, 32)
    return model, x, torch.randint(0, 10, (len(x),))


def training_step(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """zero_grad, forward, cross-entropy, backward, the optimiser's step."""
    model.train()

    def step() -> object:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        return optimizer.step()

    return step


def inference(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """One pass in eval mode without gradients."""
    model.eval()

    def infer() -> object:
        with torch.no_grad():
            return model(x)

    return infer
