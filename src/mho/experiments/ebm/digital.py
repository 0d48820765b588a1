"""The digital network of the same shape: what a user would have without any of this."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mho.models import build
from mho.rng import derive_seed
from mho.train import TrainSettings, fit
from mho.train.run import Loader


def digital_accuracy(
    sizes: Sequence[int], train: Loader, test: Iterable[tuple[Tensor, Tensor]], *, epochs: int, seed: int
) -> float:
    """Test accuracy, percent, of a multilayer perceptron of ``sizes`` trained by backpropagation for as many epochs.

    AdamW, learning rate 2e-3, one cycle: settings that are usual and were not searched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        model = build("mlp", sizes=tuple(sizes))
    plan = TrainSettings(epochs=epochs, optimizer="adamw", lr=2e-3, weight_decay=0.0, schedule="onecycle")
    fit(model, train, recipe=plan, seed=seed)
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in test:
            right += int((model(x).argmax(1) == y).sum())
            total += len(y)
    return 100.0 * right / total
