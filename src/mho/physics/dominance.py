"""The dominance table: how far below full scale each source of error of a layer sits, so that nobody guesses."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from mho.hardware.spec import Adc, Hardware, Neuron
from mho.physics import cells, converters, neuron, thermal, wires
from mho.physics.averaging import fresh_each_read, longer_read_cell
from mho.physics.typical import Law, TypicalLayer, normal_law

Kind = Literal["static", "slow", "fresh", "deterministic"]

FULL_SCALE_SIGMAS = 4.0
"""Full scale of an output: this many times the rms of the ideal output (an ADC's range, if there is one)."""

INPUT_RMS = 0.3
WEIGHT_RMS = 0.25

_READ_NAMES = {
    "generic": "read noise",
    "pcm": "read noise (1/f)",
    "reram": "read noise",
    "reram-cmo": "read noise (1/f)",
    "flash": "read noise",
    "sram": "kT/C noise",
    "photonic": "laser intensity noise",
}


@final
@dataclass(frozen=True)
class Row:
    """One source. ``sigma``: rms error of the output as a fraction of full scale; ``level_dB``: 20 log10(sigma)."""

    source: str
    kind: Kind
    sigma: float
    note: str

    @property
    def level_dB(self) -> float:
        """Level relative to full scale in dB: negative is below it."""
        return 20.0 * math.log10(self.sigma)


def dominance(
    hw: Hardware,
    rows: int,
    cols: int,
    *,
    t_s: float | None = None,
    input_rms: float | None = None,
    weight_rms: float = WEIGHT_RMS,
) -> tuple[Row, ...]:
    """Every source of error of a layer of ``rows`` inputs x ``cols`` outputs, loudest first.

    Each row is the rms error of the output that one source makes alone, sigma / FS, with the full scale
    FS = 4 sigma_y and sigma_y the rms of the ideal output. An ADC's range is FS of the partial sum that it
    converts (``adc.range_sigma`` instead of 4 where the description says so). Assumed: normal weights of
    rms ``weight_rms`` of full scale and normal inputs of rms ``input_rms`` of the input range, all
    independent and of mean zero: sigma_y^2 = rows E[x^2] E[w^2], and an error e of each weight gives
    rows E[x^2] E[e^2]. Real inputs after a rectifier have a mean, which makes common errors louder.

    ``t_s``: age in s, ``None``: ``environment.t_s``; ``input_rms`` in (0, 1], ``None``: 1 / dac.range_sigma, or
    0.3 without it. Sources that the description does not have are left out: ideal hardware has none.
    Raises :class:`~mho.errors.InputError` for sizes below 1, shares outside (0, 1], a negative age.

    The laws are those of ``mho.physics``, integrated over weights and draws instead of sampled; IR drop is
    the first-order estimate for a tile at its mean conductance.
    """
    described = None if hw.dac is None else hw.dac.range_sigma
    if input_rms is None:
        input_rms = INPUT_RMS if described is None else min(1.0 / described, 1.0)
    age = hw.environment.t_s if t_s is None else float(t_s)
    layer = TypicalLayer(hw, rows, cols, input_rms, weight_rms, age)
    full_scale = FULL_SCALE_SIGMAS * layer.signal
    found: list[Row] = []
    for part in (_cells, _lines, _circuit, _inputs, _outputs):
        for source, kind, variance, note in part(layer):
            if kind == "fresh" and (part is not _cells or fresh_each_read(hw.cell)):
                variance, note = variance / hw.readout.repeats, note + _averaged(hw)
            if variance > 0.0:
                found.append(Row(source, kind, math.sqrt(variance) / full_scale, note))
    return tuple(sorted(found, key=lambda row: -row.sigma))


def _averaged(hw: Hardware) -> str:
    return "" if hw.readout.repeats == 1 else f", mean of {hw.readout.repeats} reads"


Found = Iterator[tuple[str, Kind, float, str]]
"""(source, kind, variance of the output in squared units of full-scale weight times input range, note)."""


def _cells(layer: TypicalLayer) -> Found:
    """What the memory cells do: levels, programming, drift, reads."""
    hw, t = layer.hw, layer.t_s
    cell, signed, draws = hw.cell, hw.mapping.scheme == "signed", cells.static_draws(hw.cell)
    yield "weight levels", "deterministic", _level_variance(layer), _level_note(hw)
    if "programming" in draws:
        error2 = layer.moments(lambda g, xi: cells.program(cell, g + 0.0 * xi, xi, signed=signed) - g)
        yield "programming error", "static", layer.variance(error2), f"{cell.technology} cells"
    if t > 0.0:

        def drift(g: Tensor) -> Tensor:
            return layer.combined(cells.age(cell, g, g, t, None) - g).square()

        yield "mean drift", "deterministic", layer.variance(drift), f"{t:.3g} s after programming; a gain removes most"
        if "aging" in draws:

            def spread(g: Tensor, xi: Tensor) -> Tensor:
                g = g + 0.0 * xi
                return cells.age(cell, g, g, t, xi) - cells.age(cell, g, g, t, None)

            variance = layer.variance(layer.moments(spread))
            yield "spread of drift", "slow", variance, f"{t:.3g} s after programming"
    if cells.has_read_noise(cell):
        temperature_K = hw.environment.temperature_K
        # What repeats share is averaged over all of them together.
        seen = cell if fresh_each_read(cell) else longer_read_cell(cell, hw.readout.repeats)

        def read(g: Tensor) -> Tensor:
            now = cells.age(cell, g, g, t, None)
            sigma = cells.read_sigma_uS(seen, now, g, t, temperature_K=temperature_K)
            return sigma.expand(g.shape).square().sum(0)

        yield _READ_NAMES[cell.technology], "fresh", layer.variance(read), "drawn at each read"


def _level_variance(layer: TypicalLayer) -> float:
    """Rounding of weights to bit slices and to the cell's levels."""
    law = layer.weights
    seen = torch.zeros_like(law.points)
    for factor, w in layer.slices():
        change = layer.combined(layer.levels(w) - layer.targets(w))
        seen = seen + factor * (w + change * (layer.per_span / layer.span_uS))
    return layer.rows * layer.input_rms**2 * law.mean((seen - law.points).square())


def _level_note(hw: Hardware) -> str:
    parts = [] if hw.cell.bits is None else [f"{hw.cell.bits} bits a cell"]
    if hw.mapping.bits_per_slice is not None:
        parts.append(f"{hw.mapping.slices} slice(s) of {hw.mapping.bits_per_slice} bits")
    return ", ".join(parts)


def _lines(layer: TypicalLayer) -> Found:
    """Broken cells, broken lines and the resistance of the lines."""
    hw, faults = layer.hw, layer.hw.faults
    for name, share, stuck_at in (
        ("stuck-on cells", faults.stuck_on, hw.cell.g_max_uS),
        ("stuck-off cells", faults.stuck_off, hw.cell.g_min_uS),
    ):

        def stuck(g: Tensor, share: float = share, stuck_at: float = stuck_at) -> Tensor:
            gap = stuck_at - g
            return share * (1.0 - share) * gap.square().sum(0) + (share * layer.combined(gap)).square()

        if share:
            yield name, "static", layer.variance(stuck), f"{share:.3g} of all cells"
    for name, share in (("dead rows", faults.dead_rows), ("dead columns", faults.dead_cols)):
        if share:
            yield name, "static", share * layer.variance(_dead(layer)), f"{share:.3g} of the lines, no current"
    if hw.wires is not None and hw.wires.wire_ohm > 0.0:
        yield _ir_drop(layer, hw.wires.wire_ohm)


def _dead(layer: TypicalLayer) -> Callable[[Tensor], Tensor]:
    """Squared error of a weight whose cells carry no current."""
    return lambda g: layer.combined(g).square()


def _ir_drop(layer: TypicalLayer, wire_ohm: float) -> tuple[str, Kind, float, str]:
    """First order, every cell of a tile at the mean conductance: each weight loses the share 1 - T_ij."""
    hw, law = layer.hw, layer.weights
    rows = -(-layer.rows // layer.blocks)
    cols = min(layer.cols, hw.tile.cols or layer.cols)
    total, mean_loss = 0.0, 0.0
    slices = layer.slices()
    for factor, w in slices:
        g = layer.levels(w)
        mean_uS = law.mean(g.abs()) / g.shape[0]
        loss = 1.0 - wires.first_order_factor(torch.full((rows, cols), mean_uS, dtype=torch.float64), wire_ohm)
        total += factor**2 * law.mean(layer.combined(g).square()) * float(loss.square().mean())
        mean_loss += float(loss.mean()) / len(slices)
    variance = layer.rows * layer.input_rms**2 * total * (layer.per_span / layer.span_uS) ** 2
    note = f"{wire_ohm:g} ohm a segment, {rows} x {cols} tile, mean loss {100 * mean_loss:.2g} %"
    return "IR drop", "deterministic", variance, note + (", first order is too coarse here" if mean_loss > 0.1 else "")


def _circuit(layer: TypicalLayer) -> Found:
    """Thermal and shot noise of the column currents, in SI units."""
    hw, law, readout = layer.hw, layer.weights, layer.hw.readout
    if not readout.thermal and readout.fano == 0.0:
        return
    bandwidth = thermal.boxcar_bandwidth_Hz(readout.t_read_s)
    per_ampere = layer.per_span / (readout.v_read_V * layer.span_uS * 1e-6)
    mean_x = INPUT_MEAN_OVER_RMS * layer.input_rms
    johnson, shot = 0.0, 0.0
    for factor, w in layer.slices():
        g = layer.levels(w)
        now = cells.age(hw.cell, g, g, layer.t_s, None)
        column_S = layer.rows * law.mean(now.abs()) * 1e-6
        if readout.thermal:
            sigma = thermal.johnson_sigma_A(column_S, bandwidth, hw.environment.temperature_K)
            johnson += (factor * per_ampere * sigma) ** 2
        if readout.fano:
            current = readout.v_read_V * mean_x * column_S
            shot += (factor * per_ampere * thermal.shot_sigma_A(current, bandwidth, readout.fano)) ** 2
    where = f"{readout.t_read_s:.3g} s, {readout.v_read_V:g} V"
    yield "thermal noise", "fresh", johnson, f"{hw.environment.temperature_K:g} K, {where}"
    yield "shot noise", "fresh", shot, f"Fano {readout.fano:g}, {where}"


INPUT_MEAN_OVER_RMS = math.sqrt(2.0 / math.pi)
"""E|x| of a normal input of rms 1."""


def _inputs(layer: TypicalLayer) -> Found:
    """Input converters: an error of x is an error of the output of variance rows E[w^2] E[e^2]."""
    dac, law = layer.hw.dac, layer.weights
    if dac is None:
        return
    x = normal_law(layer.input_rms, count=20001)
    per_error = layer.rows * law.mean(law.points.square())
    driven = x.points
    if dac.bits is not None:
        driven = converters.quantize(x.points, 1.0, dac.bits)
        note = f"{dac.bits} bits, inputs of rms {layer.input_rms:.3g} of the range"
        yield "DAC rounding and clipping", "deterministic", per_error * x.mean((driven - x.points).square()), note
        bent = converters.inl(driven, 1.0, dac.inl_lsb, dac.bits) - driven
        yield "DAC non-linearity", "deterministic", per_error * x.mean(bent.square()), f"{dac.inl_lsb:g} LSB peak"
    gain = (dac.gain_d2d * layer.input_rms) ** 2
    yield "DAC gain mismatch", "static", per_error * gain, f"{100 * dac.gain_d2d:g} % a row"


def _outputs(layer: TypicalLayer) -> Found:
    """Neuron and ADC of each partial sum; errors of different parts are independent."""
    hw, law = layer.hw, layer.weights
    if hw.adc is None and hw.neuron is None:
        return
    rows = layer.rows / layer.blocks
    parts = [(f, layer.input_rms * math.sqrt(rows * law.mean(w.square()))) for f, w in layer.slices()]
    sigmas = None if hw.adc is None else hw.adc.range_sigma
    if sigmas is None:
        full_range = FULL_SCALE_SIGMAS * max(sigma for _, sigma in parts)
    else:
        full_range = sigmas * math.sqrt(sum(sigma**2 for _, sigma in parts) / len(parts))
    in_parts: dict[str, tuple[Kind, float, str]] = {}
    for factor, sigma in parts:
        if sigma == 0.0:  # A slice that holds nothing has nothing to convert.
            continue
        a = normal_law(sigma / full_range, count=20001)
        for source, kind, variance, note in _of_one_part(a, hw):
            before = in_parts.get(source, (kind, 0.0, note))[1]
            in_parts[source] = (kind, before + layer.blocks * (factor * full_range) ** 2 * variance, note)
    for source, (kind, variance, note) in in_parts.items():
        yield source, kind, variance, note


def _of_one_part(a: Law, hw: Hardware) -> Found:
    """Variances in squared units of the range, for a partial sum of the law ``a`` in those units."""
    seen = a.points
    if hw.neuron is not None:
        seen = neuron.transfer(a.points, hw.neuron, None, None)
        note = "what the next layer must live with; training knows it"
        yield "neuron transfer", "deterministic", a.mean((seen - a.points).square()), note
        yield from _neuron_mismatch(a, seen, hw.neuron)
    if hw.adc is not None:
        yield from _adc(a, seen, hw.adc, hw.output_noise)


def _neuron_mismatch(a: Law, seen: Tensor, spec: Neuron) -> Found:
    xi = normal_law(1.0)
    column = xi.points.unsqueeze(-1)
    # A smooth function needs fewer points than rounding does.
    some, seen = a.points[::10], seen[::10]
    mass = a.mass[::10] / a.mass[::10].sum()
    for name, gain, offset, level in (
        ("neuron gain mismatch", column, None, spec.gain_d2d),
        ("neuron offset mismatch", None, column, spec.offset_d2d),
    ):
        if level:
            error2 = (neuron.transfer(some, spec, gain, offset) - seen).square()
            yield name, "static", float(xi.mass @ (error2 @ mass)), f"{level:g} a neuron"


def _adc(a: Law, seen: Tensor, adc: Adc, output_noise: float) -> Found:
    """Sources of an ADC for the signal ``seen`` (after the neuron) with the masses of ``a``."""
    yield "output noise", "fresh", output_noise**2, f"{output_noise:g} of the range"
    yield "ADC gain mismatch", "static", adc.gain_d2d**2 * a.mean(seen.square()), f"{100 * adc.gain_d2d:g} % a column"
    if adc.bits is None:
        return
    lsb = 1.0 / converters.levels(adc.bits)
    rounded = converters.quantize(seen, 1.0, adc.bits)
    yield "ADC rounding and clipping", "deterministic", a.mean((rounded - seen).square()), f"{adc.bits} bits"
    if adc.enob is not None:
        yield "ADC noise", "fresh", converters.enob_sigma(adc.bits, adc.enob) ** 2, f"{adc.enob:g} effective bits"
    yield "ADC offset mismatch", "static", (adc.offset_d2d_lsb * lsb) ** 2, f"{adc.offset_d2d_lsb:g} LSB a column"
    bent = converters.inl(seen, 1.0, adc.inl_lsb, adc.bits) - seen
    yield "ADC non-linearity", "deterministic", a.mean(bent.square()), f"{adc.inl_lsb:g} LSB peak"
