"""The readout of a tile: gain and offset of each column, non-linearity, fresh noise, steps of both converters."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.lab.columns import Columns
from mho.lab.twin import bits as steps
from mho.lab.twin.cells import ReadBack
from mho.lab.twin.columns import ColumnFit, fit_columns, start
from mho.lab.twin.estimates import Estimate, exactly, normal, positive, realised, root, spread
from mho.lab.twin.judge import repeats_are_equal
from mho.lab.twin.likelihood import SHARED, Codes, Parameters
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.rows import SIGNIFICANCE, RowFit, fit_rows, with_row_gain
from mho.lab.twin.signals import codes, inputs_of, reference_of, sweep_of
from mho.physics.converters import levels

HOW = "likelihood of the codes"
QUIET_LSB = 0.05
"""Width that codes get where the device has none, in LSB: what is found is good to about that."""


@dataclass(frozen=True, eq=False)
class ReadoutFit:
    """``own``: gain and offset [cols]; ``error``: their standard errors; ``covariance`` [cols, 2, 2]: without
    that of the reference; ``levels``: of the output's codes; ``rows``: gains of the rows, where these are not
    alike; ``bits``: (input, output), ``None``: none seen.

    ``estimates`` by the names of the hardware's keys; cells' noise in units of g_max and of g.
    """

    parameters: Parameters
    own: Columns
    error: Columns
    covariance: Tensor
    levels: int
    rows: RowFit | None
    bits: tuple[int | None, int | None]
    estimates: dict[str, Estimate]
    unidentified: tuple[str, ...]


def joined(parts: list[Codes]) -> Codes:
    """Data of one converter under each other."""
    first = parts[0]
    if any(p.levels != first.levels for p in parts):
        raise TwinError("codes: converters of different levels in one fit. Fix: fit each by itself.")
    return Codes(
        torch.cat([p.mean for p in parts]),
        torch.cat([p.s0 for p in parts]),
        torch.cat([p.s1 for p in parts]),
        torch.cat([p.s2 for p in parts]),
        torch.cat([p.known for p in parts]),
        torch.cat([p.code for p in parts]),
        torch.cat([p.weight for p in parts]),
        first.levels,
    )


def fit_readout(data: Measurements, noise: ReadBack | None) -> ReadoutFit:
    """Fit the readout to the pairs of role "fit", at first with the input converter of the data sheet; with the one
    that the sweep shows, if it is another."""
    missing: list[str] = []
    found: dict[str, Estimate] = {}
    out = steps.output_bits([p.currents_uA / p.full_scale_uA for p in data.pairs])
    if out is None:
        missing.append("adc.bits: no comb of codes is seen (more than 14 bits, or no steps). Tell: the data sheet.")
    else:
        found["adc.bits"] = exactly("adc.bits", out, "bit", "comb of the output codes")
    # Without a read-back the targets stand for what was written, and their error for that of the reads.
    reference = noise if data.writings[0].reads else None
    said = data.can.input_bits
    fit, terms, rows = _with_rows(data, reference, (said, out))
    bits_in = _input_bits(data, fit.parameters, out, found, missing)
    if bits_in != said:
        fit, terms, rows = _with_rows(data, reference, (bits_in, out))
    p, top = fit.parameters, steps.PSEUDO_LEVELS if out is None else levels(out)
    own = Columns(p.gain.float(), p.offset.float())
    seen = data if rows is None else with_row_gain(data, rows.gain)
    error = standard_errors(seen, p, fit.own, reference)
    if rows is not None:
        gains, var = rows.gain[rows.live].tolist(), float(rows.error[rows.live].square().mean())
        found["dac.gain_d2d"] = spread("dac.gain_d2d", gains, var, "1", "spread over the rows, chi-square")
    found |= terms
    found |= populations(own, error, top, out)
    return ReadoutFit(p, own, error, fit.own, top, rows, (bits_in, out), found, tuple(missing))


def _with_rows(
    data: Measurements, noise: ReadBack | None, bits: tuple[int | None, int | None]
) -> tuple[ColumnFit, dict[str, Estimate], RowFit | None]:
    """The fit, and the gains of the rows where these are not alike."""
    quiet = repeats_are_equal(data)
    fit, terms = _shared_fit(data, noise, bits, quiet)
    if noise is None or quiet:
        return fit, terms, None
    rows = fit_rows(data, fit.parameters, noise, bits)
    if rows.p_value >= SIGNIFICANCE:
        return fit, terms, None
    return *_shared_fit(with_row_gain(data, rows.gain), noise, bits, quiet), rows


def _shared_fit(
    data: Measurements, noise: ReadBack | None, bits: tuple[int | None, int | None], quiet: bool
) -> tuple[ColumnFit, dict[str, Estimate]]:
    """(fit, estimates of what columns share)."""
    together = joined(
        [codes(data, p, reference_of(data, data.writings[p.writing]), noise, bits) for p in data.of("fit")]
    )
    return _without_noise(together, bits[1]) if quiet else _parsimonious(together, bits[1])


def _without_noise(data: Codes, out: int | None) -> tuple[ColumnFit, dict[str, Estimate]]:
    """The fit of a device whose repeats are equal: codes then only bound the signal, and get a width of their own."""
    free = () if out is None else ("inl_lsb",)
    begin = start([data])
    begin.shared[1] = 0.0
    fit = ColumnFit(begin, torch.zeros(0), torch.zeros(0), 0.0, 0)
    # Narrow at once, every code that a first guess misses would weigh beyond all measure.
    for width_lsb in (0.5, 0.2, QUIET_LSB):
        known = data.known + (width_lsb / data.levels) ** 2
        fit = fit_columns([replace(data, known=known)], free, fit.parameters)
    none = {n: Estimate(n, 0.0, 0.0, 0.0, "1", "all repeats are equal") for n in _KEYS.values() if n != "adc.inl_lsb"}
    terms = {
        name: replace(e, low=min(e.low, e.value - QUIET_LSB), high=max(e.high, e.value + QUIET_LSB))
        for name, e in _terms(fit, list(free)).items()
    }
    return fit, {**none, **terms}


def _parsimonious(data: Codes, out: int | None) -> tuple[ColumnFit, dict[str, Estimate]]:
    """The fit with the shared terms that the data ask for; those whose interval holds 0 are set to 0 and listed so."""
    free = [name for name in SHARED if out is not None or name != "inl_lsb"]
    left: dict[str, Estimate] = {}
    # Far from the best point a step would take the small variances below 0, and stay there: they are let free last.
    first = fit_columns([data], tuple(name for name in free if name in ("inl_lsb", "read_const")))
    fit = fit_columns([data], tuple(free), first.parameters)
    for _ in range(len(SHARED)):
        terms = _terms(fit, free)
        # The noise of a read stays in: without any the law of the codes has no width.
        weak = [name for name in free if name != "read_const" and not terms[_KEYS[name]].sure]
        if not weak:
            break
        z = {
            n: abs(float(fit.parameters.shared[k])) / max(float(fit.shared[k, k]) ** 0.5, 1e-300)
            for k, n in enumerate(SHARED)
        }
        name = min(weak, key=lambda n: z[n])
        e = terms[_KEYS[name]]
        left[e.name] = Estimate(e.name, 0.0, min(e.low, 0.0), max(e.high, 0.0), e.unit, e.how)
        free.remove(name)
        shared = fit.parameters.shared.clone()
        shared[SHARED.index(name)] = 0.0
        fit = fit_columns([data], tuple(free), fit.parameters._replace(shared=shared))
    return fit, {**left, **_terms(fit, free)}


_KEYS = {
    "inl_lsb": "adc.inl_lsb",
    "read_const": "cell.read_noise",
    "read_rel": "cell.read_noise_rel",
    "output_var": "output_noise",
}


def _terms(fit: ColumnFit, free: list[str]) -> dict[str, Estimate]:
    found = {}
    units = {"inl_lsb": "LSB", "read_const": "g_max", "read_rel": "g"}
    for k, name in enumerate(SHARED):
        if name not in free:
            continue
        value, se = float(fit.parameters.shared[k]), float(fit.shared[k, k].clamp_min(0).sqrt())
        if name == "output_var":
            e = root(_KEYS[name], value, se, "full scale", HOW)
        else:
            e = normal(_KEYS[name], value, se, units[name], HOW)
            e = e if name == "inl_lsb" else positive(e)
        found[e.name] = e
    return found


def standard_errors(data: Measurements, p: Parameters, covariance: Tensor, noise: ReadBack | None) -> Columns:
    """Of gain and offset. The error of the reference is the same in all products of a writing:

        cov += gain^2 A^-1 [sum_w B_w diag(var of the reference) B_w^T] A^-1,  A = sum x x^T / var,  B = sum x v^T / var

    with x = (m, 1): least squares' answer to an input that is known with an error.
    """
    own = covariance if noise is None else covariance + _reference_error(data, p, noise)
    se = own.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    return Columns(se[:, 0].float(), se[:, 1].float())


def _reference_error(data: Measurements, p: Parameters, noise: ReadBack) -> Tensor:
    cols = len(p.gain)
    a = torch.zeros(cols, 2, 2, dtype=torch.float64)
    middle = torch.zeros(cols, 2, 2, dtype=torch.float64)
    for number, writing in enumerate(data.writings):
        lever = torch.zeros(cols, 2, data.can.rows, dtype=torch.float64)
        g = reference_of(data, writing)
        pairs = [q for q in data.of("fit") if q.writing == number]
        for pair in pairs:
            v = inputs_of(data, pair, None)
            r = pair.full_scale_uA / data.unit_uA
            m = v @ g / r
            var = (v * v).sum(1, keepdim=True).clamp_min(1.0) / r**2
            w = (m * p.gain + p.offset).abs().lt(1.0) / var
            x = torch.stack([m, torch.ones_like(m)])
            wx = w * x
            a += torch.einsum("inc,jnc->cij", wx, x)
            lever += torch.einsum("inc,nr->cir", wx, v / r)
        if pairs:
            error = noise.variance_of_mean(g.abs(), max(writing.reads, 1))
            middle += torch.einsum("cir,rc,cjr->cij", lever, error, lever)
    inverse = torch.linalg.pinv(a, hermitian=True)
    covariance: Tensor = inverse @ middle @ inverse
    return covariance * p.gain[:, None, None].square()


def _input_bits(
    data: Measurements, p: Parameters, out: int | None, found: dict[str, Estimate], missing: list[str]
) -> int | None:
    """Bits of the input converter; the data sheet's where the sweep cannot tell."""
    sweep = sweep_of(data, out)
    if sweep is None:
        missing.append("dac.bits: no sweep of the amplitude. Tell: one pattern with inputs between the levels.")
        return data.can.input_bits
    bits, nats = steps.input_bits(sweep, p)
    if nats < steps.CLEAR_NATS:
        said = "none" if data.can.input_bits is None else str(data.can.input_bits)
        missing.append(
            f"dac.bits: steps too fine for this sweep; the data sheet's ({said}) is taken. Tell: more steps."
        )
        return data.can.input_bits
    if bits is not None:
        found["dac.bits"] = exactly("dac.bits", bits, "bit", f"staircase of a sweep, {nats:.0f} nats ahead of the next")
    return bits


def populations(own: Columns, error: Columns, top: int, out: int | None) -> dict[str, Estimate]:
    """Spreads over columns: of the law that they were drawn from (``adc.*``), and of these very columns
    (``tile.*``)."""
    if len(own.gain) < 2:
        return {}
    how = "spread over the columns, chi-square"
    own_how = "spread of this tile's own columns"
    gains, gain_var = own.gain.double().tolist(), error.gain.double().square()
    found = [
        spread("adc.gain_d2d", gains, float(gain_var.mean()), "1", how),
        realised("tile.gain_spread", gains, gain_var.tolist(), "1", own_how),
    ]
    if out is not None:
        offsets = (own.offset.double() * top).tolist()
        var = (error.offset.double() * top).square()
        found.append(spread("adc.offset_d2d_lsb", offsets, float(var.mean()), "LSB", how))
        found.append(realised("tile.offset_spread_lsb", offsets, var.tolist(), "LSB", own_how))
    return {e.name: e for e in found}
