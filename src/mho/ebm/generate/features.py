"""A small classifier whose last hidden layer are the features that images are compared in."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mho.data import Dataset
from mho.ebm.generate.forward import binarized
from mho.errors import CheckpointError, DataError
from mho.rng import derive_seed, stream

WIDTH = 64
"""Number of features."""


def feature_network() -> nn.Sequential:
    """Binary images (-1, +1) [N, 1, 28, 28] to ten classes. Features: all but the last layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(288, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, 10),
    )


@dataclass(frozen=True, eq=False)
class Judge:
    """The classifier, and the share of test images that it names right."""

    network: nn.Sequential
    accuracy: float

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """[N, 64] of binary images [N, 784]."""
        return torch.cat([self.network[:-1](part.view(-1, 1, 28, 28)) for part in images.split(500)])

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """The class of each of ``images`` [N, 784]."""
        return torch.cat([self.network(part.view(-1, 1, 28, 28)).argmax(1) for part in images.split(500)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights (safetensors, about 140 kB) and the accuracy."""
        tensors = {key: value.contiguous() for key, value in self.network.state_dict().items()}
        save_file(tensors, path, {"accuracy": repr(self.accuracy)})


def load_judge(path: str | os.PathLike[str], data: Dataset) -> Judge:
    """The classifier stored at ``path``; its accuracy is measured again on the test images of ``data``.

    Raises :class:`CheckpointError` for a file that is missing, damaged or of another network.
    """
    network = feature_network()
    try:
        network.load_state_dict(load_file(Path(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: no weights of the feature classifier: {error}. Fix: train it again (train_judge) and save it."
        ) from error
    return _measured(network.eval(), data)


def train_judge(data: Dataset, *, seed: int = 0, epochs: int = 4, batch: int = 128) -> Judge:
    """Train the classifier on the binarised train images (shifted by up to two pixels), Adam with one cycle.

    About 100 s for MNIST's 60,000 images and four epochs on one core. A function of ``seed``.
    Raises :class:`DataError` for images that are not 28 x 28 or more than ten classes.
    """
    x, y = binarized(data.train_x), data.train_y
    if x.shape[1] != 784 or len(data.classes) > 10:
        raise DataError(
            f"train_judge: {data.name} has images of {x.shape[1]} pixels in {len(data.classes)} classes; the "
            "classifier is for 28 x 28 pixels in ten. Fix: mnist, mnist-mini or fashion-mnist."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "judge"))
        network = feature_network()
    generator = stream(seed, "judge", "order")
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator).split(batch):
            shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
            image = torch.roll(x[index].view(-1, 1, 28, 28), shift, (2, 3))
            loss = nn.functional.cross_entropy(network(image), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _measured(network.eval().requires_grad_(False), data)


def _measured(network: nn.Sequential, data: Dataset) -> Judge:
    network.requires_grad_(False)
    judge = Judge(network, 0.0)
    right = judge.classes(binarized(data.test_x)) == data.test_y
    return Judge(network, float(right.float().mean()))
