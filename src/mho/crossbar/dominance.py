"""The dominance table: how far below full scale each source of error sits, so that nobody guesses.

For a layer of given size every source is switched on alone, and the standard deviation of the output
error that it causes is computed from the same functions that the surrogate and the chips use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, log10, sqrt
from typing import Literal

import torch
from torch import Tensor

from mho.crossbar.array import Array, program, slice_factors
from mho.crossbar.noise import Draw, StaticDraws, draw_static
from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.hardware.spec import Faults, Hardware, Readout
from mho.physics import converters, neuron
from mho.rng import normals

FULL_SCALE_SIGMAS = 4.0
_MOST_COLUMNS = 64

Kind = Literal["static", "slow", "fresh", "deterministic"]


@dataclass(frozen=True)
class Row:
    """One source: ``sigma`` of the output error as a fraction of full scale, and its level in dB."""

    source: str
    kind: Kind
    sigma: float
    note: str = ""

    @property
    def level_dB(self) -> float:
        """20 log10(sigma); -inf for a source that is absent."""
        return 20 * log10(self.sigma) if self.sigma > 0 else -inf


@dataclass(frozen=True)
class _Layer:
    """The layer that the table is about: random weights, one input statistic, its full scale."""

    hw: Hardware
    op: LinearOp
    w: Tensor
    input_rms: float
    t_s: float

    @property
    def signal(self) -> float:
        """Standard deviation of the ideal output, for an input range of 1."""
        return self.input_rms * float(self.w.square().sum(1).mean().sqrt())

    @property
    def full_scale(self) -> float:
        return FULL_SCALE_SIGMAS * self.signal

    @property
    def parts(self) -> int:
        return len(self.op.blocks(self.hw.tile.rows))

    def from_weights(self, weights: Tensor, reference: Tensor) -> float:
        """Output sigma of a weight error, as a fraction of full scale."""
        error = (weights - reference).square().sum(1).mean()
        return self.input_rms * float(error.sqrt()) / self.full_scale


def _held(array: Array, hw: Hardware) -> Tensor:
    """The weights that the slices of an array hold together."""
    parts = zip(slice_factors(hw), array.weights, strict=True)
    return sum((factor * w for factor, w in parts), start=torch.zeros_like(array.weights[0]))


def dominance(
    hw: Hardware,
    rows: int = 256,
    cols: int = 256,
    *,
    t_s: float | None = None,
    input_rms: float = 0.3,
    weight_rms: float = 0.25,
) -> tuple[Row, ...]:
    """Every source of error of ``hw`` for a layer of ``rows`` inputs and ``cols`` outputs, largest first.

    Weights are Gaussian with ``weight_rms`` of full-scale conductance (clipped there), inputs have
    ``input_rms`` of the DAC's range; full scale is four standard deviations of the ideal output (of one
    tile's share of it for the converters). ``t_s``: age, default as described. At most 64 columns are
    looked at. Sources that are absent are left out.

    Raises :class:`InputError` for an empty layer or levels outside (0, 1].
    """
    if rows < 1 or cols < 1:
        raise InputError(f"dominance: a layer of {rows} x {cols}: both must be at least 1.")
    if not (0 < input_rms <= 1 and 0 < weight_rms <= 1):
        raise InputError(f"dominance: input_rms = {input_rms}, weight_rms = {weight_rms}: must be above 0, at most 1.")
    columns = min(cols, _MOST_COLUMNS)
    w = (weight_rms * normals((columns, rows), 0, "dominance")).clamp(-1, 1)
    w[0, 0] = 1.0  # the weight at full scale, by which the layer is scaled
    layer = _Layer(hw, LinearOp(rows, columns), w, input_rms, hw.environment.t_s if t_s is None else t_s)
    found = [row for source in (_array_rows, _read_rows, _converter_rows, _neuron_rows) for row in source(layer)]
    return tuple(sorted((r for r in found if r.sigma > 0), key=lambda r: -r.sigma))


def _clean(hw: Hardware) -> Hardware:
    """The cells alone: no faults, no wires, nothing electrical."""
    return replace(hw, wires=None, faults=Faults(), readout=replace(hw.readout, thermal=False, fano=0.0))


def _program(layer: _Layer, hw: Hardware, draws: StaticDraws | None, t_s: float) -> Array:
    return program(layer.w, layer.op, hw, draws, t_s=t_s, exact_wires=False)


def _weights(layer: _Layer, hw: Hardware, draws: StaticDraws | None, t_s: float) -> Tensor:
    return _held(_program(layer, hw, draws, t_s), hw)


def _draws(layer: _Layer, hw: Hardware) -> StaticDraws:
    def source(shape: tuple[int, ...], label: str) -> Draw:
        return normals(shape, 0, "dominance", label)

    return draw_static(layer.op, hw, layer.w.shape, source) or StaticDraws()


def _array_rows(layer: _Layer) -> Iterator[Row]:
    cell_hw = _clean(layer.hw)
    nominal = _weights(layer, cell_hw, None, 0.0)
    draws = _draws(layer, cell_hw)
    if layer.hw.cell.bits is not None or layer.hw.mapping.slices > 1:
        rounding = layer.from_weights(nominal, layer.w)
        yield Row("levels of the cell", "deterministic", rounding, "rounding to the cell's states")
    if draws.programming is not None:
        programmed = _weights(layer, cell_hw, StaticDraws(programming=draws.programming), 0.0)
        yield Row("programming", "static", layer.from_weights(programmed, nominal), "once a chip")
    if layer.t_s > 0:
        drifted = _weights(layer, cell_hw, None, layer.t_s)
        yield Row("mean drift", "slow", layer.from_weights(drifted, nominal), "a gain for the most part: compensable")
        if draws.aging is not None:
            aged = _weights(layer, cell_hw, StaticDraws(aging=draws.aging), layer.t_s)
            yield Row("spread of drift", "slow", layer.from_weights(aged, drifted), "differs from cell to cell")
    if layer.hw.wires is not None:
        behind = _weights(layer, replace(cell_hw, wires=layer.hw.wires), None, 0.0)
        yield Row("wire resistance", "deterministic", layer.from_weights(behind, nominal), "first-order estimate")
    yield from _fault_rows(layer, cell_hw, nominal)


def _fault_rows(layer: _Layer, cell_hw: Hardware, nominal: Tensor) -> Iterator[Row]:
    faults = layer.hw.faults
    for field, name in (
        ("stuck_on", "cells stuck on"),
        ("stuck_off", "cells stuck off"),
        ("dead_rows", "dead rows"),
        ("dead_cols", "dead columns"),
    ):
        share = getattr(faults, field)
        if share:
            hw = replace(cell_hw, faults=Faults(**{field: share}))
            draws = _draws(layer, hw)._replace(programming=None, aging=None)
            yield Row(name, "static", layer.from_weights(_weights(layer, hw, draws, 0.0), nominal), f"share {share:g}")


def _read_rows(layer: _Layer) -> Iterator[Row]:
    array = _program(layer, _clean(layer.hw), None, layer.t_s)
    if array.read_var is not None:
        variance = sum(
            factor**2 * var.expand(layer.w.shape) if var.dim() < 2 else factor**2 * var
            for factor, var in zip(slice_factors(layer.hw), array.read_var, strict=True)
        )
        sigma = layer.input_rms * float(torch.as_tensor(variance).sum(1).mean().sqrt()) / layer.full_scale
        yield Row("read noise", "fresh", sigma, "1/f included")
    readout = layer.hw.readout
    if readout.thermal:
        hot = replace(_clean(layer.hw), readout=replace(readout, fano=0.0))
        var = _program(layer, hot, None, layer.t_s).thermal_var
        assert var is not None
        yield Row("thermal noise", "fresh", float(var.sum(0).mean().sqrt()) / layer.full_scale, "Johnson-Nyquist")
    if readout.fano:
        shot = _program(layer, replace(_clean(layer.hw), readout=Readout(
            v_read_V=readout.v_read_V, t_read_s=readout.t_read_s, fano=readout.fano)), None, layer.t_s).shot_weight  # fmt: skip
        assert shot is not None
        # The mean of |x| of a Gaussian input is sqrt(2/pi) of its root mean square.
        var = sum((s.sum(1).mean() for s in shot), start=torch.zeros(())) * layer.input_rms * sqrt(2 / torch.pi)
        yield Row("shot noise", "fresh", float(var.sqrt()) / layer.full_scale, f"Fano factor {readout.fano:g}")


def _converter_rows(layer: _Layer) -> Iterator[Row]:
    hw, parts = layer.hw, layer.parts
    # One of n parts carries 1/sqrt(n) of the signal and has that much of the range; the errors of n
    # parts add up in variance: the two cancel, tiles cost no converter resolution here.
    share = 1.0
    signal = layer.signal / layer.full_scale
    if hw.dac is not None:
        if hw.dac.bits is not None:
            lsb = 1 / converters.levels(hw.dac.bits)
            sigma = signal * (lsb / sqrt(12)) / layer.input_rms
            yield Row("DAC quantisation", "deterministic", sigma, f"{hw.dac.bits} bits")
        yield Row("DAC gain mismatch", "static", signal * hw.dac.gain_d2d, "once a row")
    if hw.adc is None:
        return
    if hw.adc.bits is not None:
        lsb = share / converters.levels(hw.adc.bits)
        many = f", {parts} tiles" if parts > 1 else ""
        yield Row("ADC quantisation", "deterministic", lsb / sqrt(12), f"{hw.adc.bits} bits{many}")
        yield Row("ADC offset", "static", lsb * hw.adc.offset_d2d_lsb, "once a column")
        if hw.adc.enob is not None:
            missing = share * converters.enob_sigma(hw.adc.bits, hw.adc.enob)
            yield Row("ADC noise", "fresh", missing, f"{hw.adc.enob:g} effective bits")
        if hw.adc.inl_lsb:
            a = signal * normals((4096,), 0, "dominance", "inl")
            bent = converters.inl(a, 1.0, hw.adc.inl_lsb, hw.adc.bits)
            yield Row("ADC non-linearity", "deterministic", float((bent - a).square().mean().sqrt()), "integral")
    yield Row("ADC gain mismatch", "static", signal * hw.adc.gain_d2d, "once a column")
    yield Row("output noise", "fresh", share * hw.output_noise, "in front of the ADC")


def _neuron_rows(layer: _Layer) -> Iterator[Row]:
    described = layer.hw.neuron
    if described is None:
        return
    a = normals((4096,), 0, "dominance", "neuron") / FULL_SCALE_SIGMAS
    xi = normals((4096,), 0, "dominance", "mismatch")
    nominal = neuron.transfer(a, described, None, None)

    def rms(x: Tensor) -> float:
        return float(x.square().mean().sqrt())

    yield Row("neuron transfer", "deterministic", rms(nominal - a), "asymmetry, offset and saturation")
    gains, offsets = (neuron.transfer(a, described, g, o) for g, o in ((xi, None), (None, xi)))
    yield Row("neuron gain mismatch", "static", rms(gains - nominal), "once a neuron")
    yield Row("neuron offset mismatch", "static", rms(offsets - nominal), "once a neuron")

