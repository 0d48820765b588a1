"""One training step that is either taken whole or leaves nothing behind, and what it is made of."""

from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

import torch
from torch import nn

from mho import nn as analog
from mho.errors import InputError, NonFiniteError, TrainingError
from mho.objectives.distillation import Teacher

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
StepLoss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


@runtime_checkable
class ModelLoss(Protocol):
    """A loss that needs the model and its input, e.g. for a Jacobian: ``on_model(model, x, y) -> scalar``."""

    def on_model(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor: ...


def distilled(loss: Loss, teacher: Teacher) -> StepLoss:
    """``loss(model(x), y)`` and the share of it that follows the teacher."""

    def both(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = model(x)
        return teacher.mixed(loss(out, y), out, x)

    return both


def plain(loss: Loss | ModelLoss) -> StepLoss:
    """``loss(model(x), y)``, or the loss's own ``on_model``."""
    if isinstance(loss, ModelLoss):
        return loss.on_model
    return lambda model, x, y: loss(model(x), y)


@final
class BufferGuard:
    """A copy of a model's buffers: a refused batch has already been through the batch norms."""

    def __init__(self, model: nn.Module) -> None:
        self._places = [(m, key) for m in model.modules() for key, _ in m.named_buffers(recurse=False)]
        self._saved: list[torch.Tensor | None] = [None] * len(self._places)

    @torch.no_grad()
    def take(self) -> None:
        """Remember the buffers as they are now."""
        olds, nows = [], []
        for slot, (module, key) in enumerate(self._places):
            now, old = getattr(module, key), self._saved[slot]
            if now is None:
                self._saved[slot] = None
            elif old is not None and old.shape == now.shape and old.dtype == now.dtype and old.device == now.device:
                olds.append(old)
                nows.append(now)
            else:
                self._saved[slot] = now.clone()
        if olds:
            torch._foreach_copy_(olds, nows)

    @torch.no_grad()
    def put_back(self) -> None:
        """Set the buffers to what :meth:`take` saw, in place where their shape is the same."""
        for (module, key), old in zip(self._places, self._saved, strict=True):
            now = getattr(module, key)
            if now is not None and old is not None and old.shape == now.shape:
                now.copy_(old)
            else:
                setattr(module, key, None if old is None else old.clone())


def attempt(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: StepLoss,
    x: torch.Tensor,
    y: torch.Tensor,
    guard: BufferGuard,
) -> float | None:
    """Take one step and return its loss; None when loss or gradients are NaN or infinite.

    A refused step leaves parameters, buffers and optimizer as they were. Raises :class:`TrainingError`
    where the loss is no scalar or does not depend on the parameters.
    """
    guard.take()
    optimizer.zero_grad()
    try:
        value = loss(model, x, y)
    except InputError as error:
        guard.put_back()
        if not isinstance(error, NonFiniteError) and bool(torch.isfinite(x).all()):
            raise
        return None
    if value.numel() != 1 or not value.requires_grad:
        guard.put_back()
        fault = "does not depend on a trainable parameter" if value.numel() == 1 else f"has shape {list(value.shape)}"
        raise TrainingError(
            f"fit: the loss {fault}. Fix: return one differentiable number, e.g. the mean over the batch."
        )
    torch.autograd.backward(value)
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    # One test for both: on an accelerator each costs a synchronisation.
    if not bool(torch.isfinite(value.detach()).to(norm.device) & torch.isfinite(norm)):
        guard.put_back()
        optimizer.zero_grad()
        return None
    optimizer.step()
    analog.project_(model)
    return float(value.detach())


@final
class Average:
    """Exponential moving average of parameters and floating buffers; other buffers are copied.

    Starts at the weights after the first step; then ``a <- d a + (1 - d) w`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that the start is forgotten soon. Weights inside convex bounds
    stay inside. Kept in float32 at least.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of ``model``; ``step`` is the number of updates before."""
        decay = min(self.decay, (1 + step) / (10 + step))
        means, values = [], []
        for name, value in model.state_dict().items():
            mean = self.values.get(name)
            if mean is not None and mean.is_floating_point() and mean.shape == value.shape:
                means.append(mean)
                values.append(value.to(mean.dtype))
            else:
                wide = torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype
                self.values[name] = value.detach().to(wide, copy=True)
        if means:
            torch._foreach_lerp_(means, values, 1 - decay)

    def move_into(self, model: nn.Module) -> None:
        """Give ``model`` the averaged values, if there are any."""
        if self.values:
            model.load_state_dict(self.values)
            analog.project_(model)
