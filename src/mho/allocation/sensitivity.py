"""How much the loss minds the noise of each layer: one backward pass a batch.

    dL = 1/2 E sum_o H_oo v_o,      H ~ E_{y ~ p} [ (d log p_y / d a_o)^2 ]

a: outputs of the layer, v: variance of one of them, H: diagonal of the Gauss-Newton matrix of the cross-entropy, which
equals its Fisher information; y is drawn from the network's own prediction p (not from the labels), so that the square
of one gradient is an unbiased estimate. The layers are taken one by one; what bends (ReLU) is taken at its slope.
Martens, "New insights and perspectives on the natural gradient method", JMLR 21 (2020), section 9.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor, nn

from mho.costs.cells import total_conductance
from mho.costs.counts import layout
from mho.costs.phases import drive_share
from mho.crossbar.array import Array, program
from mho.crossbar.mvm import wanted_range
from mho.crossbar.variance import fresh_variance, rounding_variance
from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.nn.site import Programmed, Site, analog_layers, substituted
from mho.nn.surrogate import refuse_unknown_ranges
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.converters import levels
from mho.rng import stream

_LONGER = 4.0
"""A second read time, from which the part of the noise that averages out is told from the part that stays."""
_SOURCES = ("white", "sampled", "frozen", "rounding", "dac", "curvature")


@final
@dataclass(frozen=True)
class Channels:
    """What each output channel of a layer adds: ``array``: to the current of its cells (in no unit); nats as of
    :class:`Sensitivity`."""

    array: tuple[float, ...]
    white: tuple[float, ...]
    sampled: tuple[float, ...]
    rounding: tuple[float, ...]


@final
@dataclass(frozen=True)
class Sensitivity:
    """Nats that the noise of one layer adds to the loss today.

    ``white``: fresh noise that averages with read time and over repeats; ``sampled``: over repeats alone; ``frozen``:
    over neither; ``rounding``: of the ADC; ``dac``: of the DAC; ``curvature``: sum of H over the layer's outputs, nats
    a squared unit of output, for noise of one variance at all. ``channels``: the same by output channel, where asked
    for.
    """

    name: str
    white: float
    frozen: float
    rounding: float
    curvature: float
    sampled: float = 0.0
    dac: float = 0.0
    channels: Channels | None = None


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
        refuse_unknown_ranges(site, ranges)
        y = site.op.apply(x, weight, bias)
        if not y.requires_grad:
            y.requires_grad_()
        self.seen.append(_Seen(site, x.detach(), weight.detach(), ranges.detach(), bound, y))
        return y


def sensitivities(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0, channels: bool = False
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each analog layer of ``model`` (a converted classifier), in the order of their first use.

    ``batches``: inputs and labels; labels are not looked at. ``seed``: of the labels that are drawn. ``channels``: of
    each output channel too. The network is measured in eval mode on the digital product; it is left as it was. Raises
    :class:`InputError` for no batches, for outputs that are not [batch, classes], for the range of a converter that
    nobody has set and for reads that are repeated or timed by columns already.
    """
    twin = copy.deepcopy(model).eval()
    if next(analog_layers(twin), None) is None:
        raise InputError(
            f"allocation: {type(model).__name__} has no analog layer. Way out: mho.convert(model, hardware) first."
        )
    generator, probe, images = stream(seed, "allocation", "labels"), _Probe(), 0
    for _, layer in analog_layers(twin):
        for site in layer.sites.values():
            _one_read(site)
    sums: dict[str, dict[str, Tensor]] = {}
    with substituted(twin, lambda _: probe):
        for inputs, _ in batches:
            _batch(twin, probe, inputs, generator, channels, sums)
            images += len(inputs)
    if not images:
        raise InputError("allocation: no batches were given. Way out: a loader of held-out training images.")
    return tuple(_sensitivity(name, part, images) for name, part in sums.items())


def _one_read(site: Site) -> None:
    readout = site.hw.readout
    if readout.repeats > 1 or readout.column_windows or readout.column_repeats:
        raise InputError(
            f"allocation: {site.name}: its reads are repeated or timed by columns already. Way out: start from a "
            "network whose readout says neither (readout.repeats = 1, no column_windows)."
        )


def _sensitivity(name: str, sums: dict[str, Tensor], images: int) -> Sensitivity:
    total = {source: float(sums[source].sum()) / images for source in _SOURCES}
    if "array" not in sums:
        return replace(Sensitivity(name, 0.0, 0.0, 0.0, 0.0), **total)  # type: ignore[arg-type]
    each = {k: tuple((sums[k] / images).tolist()) for k in ("array", "white", "sampled", "rounding")}
    whole = Sensitivity(name, 0.0, 0.0, 0.0, 0.0, channels=Channels(**each))
    return replace(whole, **total)  # type: ignore[arg-type]


def _batch(
    twin: nn.Module,
    probe: _Probe,
    inputs: Tensor,
    generator: torch.Generator,
    channels: bool,
    sums: dict[str, dict[str, Tensor]],
) -> None:
    """Add what one batch says to ``sums``, by parameter and source, a number an output channel."""
    probe.seen.clear()
    with torch.enable_grad():
        logits = twin(inputs)
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise InputError(f"allocation: outputs of shape {tuple(logits.shape)}: a classifier's [batch, classes].")
        log_p = logits.log_softmax(1)
        drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
        slopes = torch.autograd.grad(log_p.gather(1, drawn).sum(), [s.y for s in probe.seen], allow_unused=True)
    for seen, slope in zip(probe.seen, slopes, strict=True):
        if slope is None:
            continue
        held = sums.setdefault(seen.site.name, {})
        for source, value in _nats(seen, slope, channels).items():
            held[source] = held[source] + value if source in held else value


@torch.no_grad()
def _nats(seen: _Seen, slope: Tensor, channels: bool) -> dict[str, Tensor]:
    """1/2 sum g^2 v by source, and sum g^2, over the batch: [output channels] each."""
    square, op, hw = slope.square(), seen.site.op, seen.site.hw
    settings = {"input_range": seen.ranges[0], "adc_range": seen.ranges[1]}

    def summed(variance: Tensor) -> Tensor:
        return 0.5 * op.sum_to_columns((square * variance).double())

    def fresh_of(each: Hardware) -> Tensor:
        return summed(fresh_variance(seen.x, _array(seen, each), op, each, **settings))

    fresh, longer, twice = fresh_of(hw), fresh_of(longer_read(hw, _LONGER)), fresh_of(repeated_read(hw, 2))
    white = (fresh - longer) / (1 - 1 / _LONGER)
    _, adc = rounding_variance(seen.x, _array(seen, hw), op, hw, **settings)
    found = {
        "white": white.clamp_min(0),
        "sampled": (2 * (fresh - twice) - white).clamp_min(0),
        "rounding": summed(adc),
        "dac": _dac(seen, slope).reshape(1),
        "curvature": op.sum_to_columns(square.double()),
    }
    found["frozen"] = (fresh - found["white"] - found["sampled"]).clamp_min(0)
    if channels:
        g = total_conductance(seen.weight, hw, seen.bound, layout(op, hw).references)
        found["array"] = op.sum_to_columns(op.apply(drive_share(seen.x, _full_input(seen), hw), g, None))
    return found


def _full_input(seen: _Seen) -> Tensor:
    """The input that is full scale: the DAC's range; where none is known (no DAC), the largest one seen."""
    return seen.ranges[0] if float(seen.ranges[0]) > 0 else wanted_range(seen.x, None)


def _dac(seen: _Seen, slope: Tensor) -> Tensor:
    """1/2 sum_i (d log p / d x_i)^2 Delta^2 / 12 over the inputs that are not exactly 0 (0 is a code).

    One rounding error moves all outputs of its row, and all positions that use it, together: taken through the weight,
    not as a variance of each output.
    """
    dac = seen.site.hw.dac
    if dac is None or dac.bits is None:
        return slope.new_zeros((), dtype=torch.float64)
    of_x, _ = seen.site.op.backward(slope, seen.x, seen.weight, True, False)
    assert of_x is not None
    lsb = seen.ranges[0].double() / levels(dac.bits)
    return lsb**2 / 24 * (of_x.square() * (seen.x != 0)).double().sum()


def _array(seen: _Seen, hw: Hardware) -> Array:
    site = seen.site
    return program(seen.weight, site.op, hw, None, t_s=site.hw.environment.t_s, bound=seen.bound, exact_wires=False)
