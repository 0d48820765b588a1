"""A converted network run on moments instead of numbers: once forward, and back to its sources."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from mho.errors import ConversionError, InputError
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.moments import pooling, rules, sources
from mho.moments.correction import Corrections
from mho.moments.product import Analytic
from mho.moments.signal import Signal, sure
from mho.moments.sources import Covariance, Tape
from mho.moments.weights import SiteMoments
from mho.nn.site import analog_layers
from mho.nn.surrogate import NewChip
from mho.nn.watch import FirstForward, remove_hooks
from mho.units import seconds

_RULES = (pooling, rules)
"""Imported for the rules that they register."""


@dataclass(frozen=True)
class Moments:
    """Mean and variance over chips and reads of each element of an output, both of its shape."""

    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Response:
    """Means [N, A] of the outputs and their covariance in each image [N, A, A], by the lifetime of its cause."""

    mean: Tensor
    covariance: Covariance


Choice = Hardware | str | Callable[[Hardware], Hardware] | None


@final
class AnalyticNetwork:
    """A copy of a converted network in eval mode whose layers take and give moments.

    The moments of its weights are computed once. ``hardware``: another description than the network was
    converted for, or a change of each layer's own (as for ``mho.fabricate``); ``t_s``: age in seconds, ``None``
    for the description's.
    """

    def __init__(self, model: nn.Module, hardware: Choice = None, t_s: float | str | None = None) -> None:
        if next(analog_layers(model), None) is None:
            raise ConversionError(
                f"mho.moments: {type(model).__name__} has no analog layer. Way out: mho.convert(model, hardware) first."
            )
        description = load_hardware(hardware) if isinstance(hardware, str) else hardware
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        remove_hooks(self.model, NewChip, FirstForward)
        for _, layer in analog_layers(self.model):
            for key, site in layer.sites.items():
                chosen = description(site.hw) if callable(description) else description or site.hw
                layer.sites[key] = replace(site, hw=chosen)
        self._t_s = None if t_s is None else seconds(t_s)
        self._known: dict[str, SiteMoments] = {}
        self._factors: list[float] | None = None

    def forward(self, x: Tensor, tape: Tape | None = None) -> Signal:
        """The network's output as a :class:`Signal`, for known inputs x [N, ...]."""
        if x.dim() < 2 or x.shape[0] == 0:
            raise InputError(f"mho.moments: input of shape {tuple(x.shape)}: needs a batch of one image or more.")
        substrate = Analytic(tape, self._t_s, self._known)
        for _, layer in analog_layers(self.model):
            layer.substrate = substrate
        y = self.model(sure(x, tape))
        if not isinstance(y, Signal):
            raise ConversionError(
                f"mho.moments: {type(self.model).__name__} gives a {type(y).__name__}, not one tensor. Way out: wrap "
                "it in a module that returns the logits alone."
            )
        return y

    def propagate(self, x: Tensor) -> Moments:
        """Mean and variance of every output element, closed layer by layer."""
        with torch.no_grad():
            y = self.forward(x)
        return Moments(*y.moments())

    def respond(
        self,
        x: Tensor,
        keep: Callable[[Tape, list[Tensor], Response], None] | None = None,
        choose: Callable[[Tensor], Tensor] | None = None,
    ) -> Response:
        """Means and covariances of a two-dimensional output [N, A], by the gradients of its means.

        ``choose``: from the means [N, outputs], which outputs of each image are wanted, [N, A] (None: all).
        ``keep`` is called with the tape, the gradients at each source [N, A, *node.shape[1:]], and the result.
        """
        tape = Tape(x.shape[0], Corrections(factors=self._factors) if self._factors is not None else _uncorrected)
        with torch.enable_grad():
            y = self.forward(x, tape)
            if y.dim() != 2:
                raise InputError(f"mho.moments: output of shape {tuple(y.shape)}: a response needs [images, outputs].")
            wanted = y.m if choose is None else y.m.gather(1, choose(y.m.detach()))
            covariance, gradients = sources.respond(tape, wanted)
        response = Response(wanted.detach(), covariance)
        if keep is not None:
            keep(tape, gradients, response)
        return response

    def correct(self, x: Tensor, probes: int = 8) -> tuple[float, ...]:
        """Measure the corrections of the variances at each bend on the images x (``moments.correction``).

        Later responses use them. Returns the factors, in the order of the forward pass.
        """
        measure = Corrections(probes=probes)
        with torch.enable_grad():
            self.forward(x, Tape(x.shape[0], measure))
        self._factors = measure.factors
        return tuple(measure.factors)


def _uncorrected(m: Tensor, v: Tensor, tape: Tape) -> float:
    return 1.0


def propagate(model: nn.Module, x: Tensor, hardware: Choice = None, *, t_s: float | str | None = None) -> Moments:
    """Mean and variance over chips and reads of each output of a converted network, without drawing any.

    ``x`` [N, ...]: known inputs. ``hardware``, ``t_s``: as for :class:`AnalyticNetwork`. One pass through the
    network's own forward code. Each layer's output is taken as normal, elements of one channel as sharing one
    amplitude, channels as independent (README.md says where this is exact and how far it is off).
    Raises :class:`ConversionError` for an operation without a rule, :class:`HardwareError` for a static
    error that is no cell's own.
    """
    return AnalyticNetwork(model, hardware, t_s).propagate(x)


def respond(model: nn.Module, x: Tensor, hardware: Choice = None, *, t_s: float | str | None = None) -> Response:
    """Means of the outputs [N, A] and their covariances in each image, exact to first order in static errors.

    Twice what :func:`propagate` looks at, and A passes back: correlations between layers, positions, channels and
    residual branches are followed by the gradients of the means. Second-order terms are those of the
    closure. Arguments and errors as for :func:`propagate`; the output has two dimensions.
    """
    return AnalyticNetwork(model, hardware, t_s).respond(x)
