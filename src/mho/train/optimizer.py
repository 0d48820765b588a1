"""The plain torch optimizers that a recipe names."""

import torch
from torch import nn

from mho.nn.site import bounded_parameters
from mho.train.settings import TrainSettings


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW over the trainable parameters.

    Weight decay acts on tensors of two or more dimensions only: biases, norms and converter ranges are
    no weights. Weights with a fixed bound have a decay of their own, ``weight_decay_bounded``.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    bounded = {id(weight) for weight, _ in bounded_parameters(model)}
    own = settings.weight_decay if settings.weight_decay_bounded is None else settings.weight_decay_bounded
    held = [p for p in trainable if id(p) in bounded]
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in bounded]
    free = [p for p in trainable if p.ndim < 2]
    kinds = ((decayed, settings.weight_decay), (held, own), (free, 0.0))
    groups = [{"params": members, "weight_decay": decay} for members, decay in kinds if members]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trainable)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999), fused=fused)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=fused)
