"""Devices without read-back: targets stand for what was written, and repeats tell reading from writing.

The likelihood then sees a^2 |v|^2 with a^2 = read^2 + programming^2, as each product meets other sums of the same
errors; between repeats of one input only the reads differ.
"""

import math
from dataclasses import replace

import torch

from mho.lab.twin.cells import ReadBack
from mho.lab.twin.estimates import Z95, Estimate, root
from mho.lab.twin.likelihood import Parameters
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.readout import ReadoutFit, populations, standard_errors
from mho.lab.twin.signals import codes_of, inputs_of
from mho.physics.converters import bow_slope, inl_inverse

UNIDENTIFIED = (
    "adc.gain_d2d: without read-back a gain is told from the conductances of its column only as far as the error of "
    "writing averages out over rows and writings; a common scale of both stays open. Tell: a read-back, or one known "
    "resistor a column.",
    "matrix_uS: what a writing really left is not known; the twin takes the target. Tell: a read-back, or products "
    "with one row driven at a time.",
    "cell.programming_noise_rel, cell.drift_nu, wires.wire_ohm: not told from products here. Tell: a read-back.",
)


def repeats_sigma(data: Measurements, p: Parameters, bits_out: int | None) -> Estimate | None:
    """Sigma of a read of a cell (units of g_max) from the spread of the repeats of held-out inputs; ``None`` without
    any.

    Least squares of (variance over repeats - LSB^2 / 12) on (gain F'(u))^2 |v|^2, F' the slope of a bent converter.
    Sheppard's correction for rounding is exact while the noise is not small against the LSB (from 0.4 LSB on to 2 %).
    Inputs that clip in any repeat are left out.
    """
    slope = weight = error = 0.0
    for pair in data.of("held-out"):
        repeats = len(pair.currents_uA)
        cut = [codes_of(pair, bits_out, k) for k in range(repeats)]
        top = cut[0][2]
        code = torch.stack([c for c, _, _ in cut])
        inside = ((code.abs() < top) & torch.stack([w > 0 for _, w, _ in cut])).all(0)
        r = pair.full_scale_uA / data.unit_uA
        v2 = inputs_of(data, pair, data.can.input_bits).square().sum(1, keepdim=True)
        y = code.double() / top
        inl_lsb = float(p.shared[0])
        bend = 1 + inl_lsb / top * bow_slope(inl_inverse(y.mean(0), inl_lsb, top))
        scale = (p.gain * bend / r) ** 2 * v2
        var = y.var(0)
        slope += float((scale * (var - top**-2 / 12))[inside].sum())
        weight += float((scale * scale)[inside].sum())
        error += float((scale * var)[inside].square().sum()) * 2 / (repeats - 1)
    if weight == 0.0:
        return None
    return root("cell.read_noise", slope / weight, math.sqrt(error) / weight, "g_max", "spread of repeated products")


def split(data: Measurements, fit: ReadoutFit) -> ReadoutFit:
    """The fit with read noise and programming error told apart, and the errors of the gains as the latter makes
    them."""
    both = fit.estimates["cell.read_noise"]
    read = repeats_sigma(data, fit.parameters, fit.bits[1])
    if read is None:
        return fit
    square = both.value**2 - read.value**2
    # The likelihood counts products; those of one writing share its rows x cols errors, which are the fewer.
    written = {p.writing for p in data.of("fit")}
    cells = data.can.rows * data.can.cols * len(written)
    se = math.hypot(*((e.high - e.low) / (2 * Z95) * 2 * e.value for e in (both, read)), square * math.sqrt(2 / cells))
    how = "products against their targets"
    programming = root("cell.programming_noise", square, se, "g_max", how)
    error = standard_errors(data, fit.parameters, fit.covariance, ReadBack(programming.value, 0.0))
    estimates = fit.estimates | {e.name: e for e in (read, programming)}
    # What the likelihood took for the relative part is that of writing and reading together.
    estimates.pop("cell.read_noise_rel", None)
    estimates |= populations(fit.own, error, fit.levels, fit.bits[1])
    return replace(fit, estimates=estimates, error=error)
