"""Costs at the output, and the exact or iterated rest of the output layer that they nudge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.ebm.hopfield.activations import Activation
from mho.errors import InputError

Values = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class MeanSquares:
    """l(s, y) = |s - onehot(y)|^2 / 2 at the last layer, whose units are the classes.

    The nudged layer rests at phi((pre + nudge y) / (1 + nudge)): exact where its potential is quadratic, which is
    required; nudges above -1.
    """

    needs_readout = False

    def loss(self, s: Tensor, y: Tensor, values: Values) -> Tensor:
        """l of each example, [batch]."""
        return (s - _onehot(s, y)).square().sum(1) / 2

    def nudged(self, s: Tensor, pre: Tensor, y: Tensor, nudge: complex, values: Values) -> tuple[Tensor, complex]:
        """Where the last layer would rest without bounds under ``pre`` and ``nudge`` times the cost, and how stiff it
        is there: the curvature of its own part of the energy."""
        return (pre + nudge * _onehot(pre.real, y)) / (1 + nudge), 1 + nudge

    def scores(self, s: Tensor, values: Values) -> Tensor:
        """[batch, classes]; the largest is the answer."""
        return s

    def check(self, activation: Activation, nudge: complex, shape: tuple[int, ...]) -> None:
        """Raise :class:`InputError` where the layer has no closed form, or none at all."""
        if not activation.quadratic:
            raise InputError(
                f"MeanSquares: an output layer of {type(activation).__name__} has no closed form under this cost. "
                "Way out: Clip or Identity there, or a readout with CrossEntropy."
            )
        if nudge.real <= -1:
            raise InputError(
                f"MeanSquares: nudge = {nudge.real}: the energy is unbounded at -1 and below. Fix: above -1."
            )
        if len(shape) != 1:
            raise InputError(f"MeanSquares: an output of shape {shape}. Fix: a Dense layer with a unit a class.")


@final
@dataclass(frozen=True)
class CrossEntropy:
    """l(s, y) = -log softmax(R s + c)_y, with a readout R, c that is no state (Laborieux et al. 2021).

    Its nudge is a force nudge R^T (onehot(y) - softmax(R s + c)) on the last layer, taken at the layer's present
    state: a fixed-point step, which contracts for small nudges. The readout is programmed like every weight of a chip,
    and read without noise: it is a product in digital logic with what the cells hold.
    """

    needs_readout = True

    def loss(self, s: Tensor, y: Tensor, values: Values) -> Tensor:
        """l of each example, [batch]."""
        return F.cross_entropy(self.scores(s, values), y, reduction="none")

    def nudged(self, s: Tensor, pre: Tensor, y: Tensor, nudge: complex, values: Values) -> tuple[Tensor, complex]:
        """``pre`` and ``nudge`` times the force at ``s``; a force does not stiffen."""
        error = self.error(s, y, values)
        w = values["readout.weight"]
        force = _plain(lambda part: part @ w, error).reshape(s.shape)
        return pre + nudge * force, 1.0

    def error(self, s: Tensor, y: Tensor, values: Values) -> Tensor:
        """onehot(y) - softmax(scores): -dl / dscores, analytic in s."""
        scores = self.scores(s, values)
        weights = torch.exp(scores - scores.real.amax(1, keepdim=True))
        return _onehot(scores.real, y) - weights / weights.sum(1, keepdim=True)

    def scores(self, s: Tensor, values: Values) -> Tensor:
        """[batch, classes] logits."""
        w, b = values["readout.weight"], values["readout.bias"]
        return _plain(lambda part: part @ w.t(), s.flatten(1)) + b

    def check(self, activation: Activation, nudge: complex, shape: tuple[int, ...]) -> None:
        """Every activation and nudge is possible."""


Cost = MeanSquares | CrossEntropy


def _onehot(like: Tensor, y: Tensor) -> Tensor:
    if y.dim() != 1 or len(y) != len(like):
        raise InputError(f"target of shape {list(y.shape)} for a batch of {len(like)}. Fix: one class number each.")
    return torch.zeros_like(like).scatter_(1, y.unsqueeze(1), 1.0)


def _plain(apply, part: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.complex(apply(part.real), apply(part.imag)) if part.is_complex() else apply(part)
