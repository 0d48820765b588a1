"""How much the loss minds the noise of each layer: one backward pass a batch.

    dL = 1/2 E sum_o H_oo v_o,      H ~ E_{y ~ p} [ (d log p_y / d a_o)^2 ]

a: outputs of the layer, v: variance of one of them, H: diagonal of the Gauss-Newton matrix of the cross-entropy, which
equals its Fisher information; y is drawn from the network's own prediction p (not from the labels), so that the square
of one gradient is an unbiased estimate. The layers are taken one by one; what bends (ReLU) is taken at its slope.
Martens, "New insights and perspectives on the natural gradient method", JMLR 21 (2020), section 9.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from mho.crossbar.array import Array, program
from mho.crossbar.variance import fresh_variance, rounding_variance
from mho.errors import InputError
from mho.nn.site import Programmed, Site, analog_layers, substituted
from mho.physics.averaging import longer_read
from mho.rng import stream

_LONGER = 4.0
"""A second read time, from which the part of the noise that averages out is told from the part that stays."""


@final
@dataclass(frozen=True)
class Sensitivity:
    """Nats that the noise of one layer adds to the loss today.

    ``white``: fresh noise that averages with read time; ``frozen``: fresh noise that does not; ``rounding``: the ADC's;
    ``curvature``: sum of H over the layer's outputs, nats a squared unit of output, for noise of one variance at all.
    """

    name: str
    white: float
    frozen: float
    rounding: float
    curvature: float


@dataclass
class _Seen:
    """One product of the forward pass, kept until its gradient is known."""

    site: Site
    x: Tensor
    weight: Tensor
    ranges: Tensor
    bound: Tensor | None
    y: Tensor


@final
@dataclass
class _Probe:
    """A substrate that computes the digital product and remembers it."""

    simulated: bool = False
    seen: list[_Seen] = field(default_factory=list)

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        if not float(ranges.detach().min()) > 0 and (site.hw.dac is not None or site.hw.adc is not None):
            raise InputError(
                f"allocation: {site.name}: converter ranges {ranges.tolist()} are not known. Way out: mho.calibrate or "
                "mho.fit the network first."
            )
        y = site.op.apply(x, weight, bias)
        if not y.requires_grad:
            y.requires_grad_()
        self.seen.append(_Seen(site, x.detach(), weight.detach(), ranges.detach(), bound, y))
        return y


def sensitivities(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each analog layer of ``model`` (a converted classifier), in the order of their first use.

    ``batches``: inputs and labels; labels are not looked at. ``seed``: of the labels that are drawn. The network is
    measured in eval mode on the digital product; it is left as it was. Raises :class:`InputError` for no batches, for
    outputs that are not [batch, classes] and for converter ranges that nobody has set.
    """
    twin = copy.deepcopy(model).eval()
    if next(analog_layers(twin), None) is None:
        raise InputError(
            f"allocation: {type(model).__name__} has no analog layer. Way out: mho.convert(model, hardware) first."
        )
    generator, probe, images = stream(seed, "allocation", "labels"), _Probe(), 0
    sums: dict[str, list[float]] = {}
    with substituted(twin, lambda _: probe):
        for inputs, _ in batches:
            for name, part in _batch(twin, probe, inputs, generator).items():
                held = sums.setdefault(name, [0.0] * 4)
                sums[name] = [a + b for a, b in zip(held, part, strict=True)]
            images += len(inputs)
    if not images:
        raise InputError("allocation: no batches were given. Way out: a loader of held-out training images.")
    return tuple(Sensitivity(name, *(value / images for value in part)) for name, part in sums.items())


def _batch(twin: nn.Module, probe: _Probe, inputs: Tensor, generator: torch.Generator) -> dict[str, list[float]]:
    probe.seen.clear()
    with torch.enable_grad():
        logits = twin(inputs)
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise InputError(f"allocation: outputs of shape {tuple(logits.shape)}: a classifier's [batch, classes].")
        log_p = logits.log_softmax(1)
        drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
        slopes = torch.autograd.grad(log_p.gather(1, drawn).sum(), [s.y for s in probe.seen], allow_unused=True)
    found: dict[str, list[float]] = {}
    for seen, slope in zip(probe.seen, slopes, strict=True):
        if slope is None:
            continue
        held = found.get(seen.site.name, [0.0] * 4)
        found[seen.site.name] = [a + b for a, b in zip(held, _nats(seen, slope), strict=True)]
    return found


@torch.no_grad()
def _nats(seen: _Seen, slope: Tensor) -> list[float]:
    """1/2 sum g^2 v by source, and sum g^2, over the batch."""
    square = slope.square()
    hw, longer = seen.site.hw, longer_read(seen.site.hw, _LONGER)
    arrays = [_array(seen, each) for each in (hw, longer)]
    settings = {"input_range": seen.ranges[0], "adc_range": seen.ranges[1]}
    fresh, later = (
        0.5 * float((square * fresh_variance(seen.x, array, seen.site.op, each, **settings)).sum())
        for array, each in zip(arrays, (hw, longer), strict=True)
    )
    white = (fresh - later) / (1 - 1 / _LONGER)
    _, rounding = rounding_variance(seen.x, arrays[0], seen.site.op, hw, **settings)
    return [white, max(0.0, fresh - white), 0.5 * float((square * rounding).sum()), float(square.sum())]


def _array(seen: _Seen, hw: object) -> Array:
    site = seen.site
    return program(
        seen.weight,
        site.op,
        hw,
        None,
        t_s=site.hw.environment.t_s,
        bound=seen.bound,
        exact_wires=False,  # type: ignore[arg-type]
    )
