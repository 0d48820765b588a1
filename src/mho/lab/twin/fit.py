"""From measurements to a twin: pure, from data alone."""

import math
import uuid
from dataclasses import dataclass, replace

import torch

from mho.errors import TwinError
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Adc, Dac, Environment, Hardware, Mapping, Readout, Source, Tile, Wires
from mho.lab.protocol import Device
from mho.lab.twin import blind, cells
from mho.lab.twin.cells import ReadBack
from mho.lab.twin.dead import dead_rows, marked, restored, silent_columns, without
from mho.lab.twin.design import Plan
from mho.lab.twin.drift import drift
from mho.lab.twin.estimates import Estimate
from mho.lab.twin.judge import error_over_noise
from mho.lab.twin.measure import Say, measure, quiet
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.readout import ReadoutFit, fit_readout
from mho.lab.twin.rows import with_row_gain
from mho.lab.twin.sigma import SigmaFit, fit_sigma, table
from mho.lab.twin.signals import reference_of
from mho.lab.twin.twin import Twin, as_float

CURVED = 1e-4
"""A straight line of sigma against conductance that is less probable than this gives way to a table."""


def fit_twin(
    device: Device, *, tile: int = 0, budget: int | None = None, plan: Plan | None = None, say: Say = quiet
) -> Twin:
    """Measure a tile and fit its twin; what the tile held before is lost.

    ``budget``: most input vectors that may be sent (a plan is cut to it; calls and seconds are bounded by a session);
    ``plan``: the measurements in detail. ``say`` is told what is being done.
    """
    plan = plan or Plan(name=f"calibrate-{uuid.uuid4().hex}")
    data = measure(device, plan if budget is None else plan.within(budget), tile=tile, say=say)
    say("fitting")
    return fit(data)


def fit(data: Measurements) -> Twin:
    """The twin of what was measured. :class:`TwinError` where there is nothing to fit.

    Columns that do not answer are left out, have NaN for gain and offset, and are named in ``unidentified``.
    """
    if not data.of("fit"):
        raise TwinError(
            "measurements: no pairs of role 'fit'. Fix: measure(device, plan), or read_measurements of a file."
        )
    rows = dead_rows(data)
    if bool(rows.any()):
        data = marked(data, rows)
    dead = silent_columns(data)
    if bool(dead.any()):
        return restored(_fit(without(data, dead)), dead, data)
    return _fit(data)


def _fit(data: Measurements) -> Twin:
    cells_known = _from_read_backs(data) if all(w.mean_uS is not None for w in data.writings) else None
    noise = None if cells_known is None else cells_known.noise
    readout = fit_readout(data, noise)
    if cells_known is None:
        readout = blind.split(data, readout)
    estimates = ({} if cells_known is None else cells_known.estimates) | readout.estimates
    seen = data if readout.rows is None else with_row_gain(data, readout.rows.gain)
    scaled = {name: _of_range(e, data) for name, e in estimates.items()}
    points = () if cells_known is None else cells_known.points
    missing = blind.UNIDENTIFIED if cells_known is None else cells_known.unidentified
    return Twin(
        hardware=_hardware(data, scaled, readout, points),
        columns={data.tile: readout.own},
        column_errors={data.tile: readout.error},
        estimates=tuple(scaled.values()),
        unidentified=(*readout.unidentified, *missing, *_doubts(data, readout, cells_known)),
        error_over_noise=error_over_noise(seen, readout.parameters, noise, readout.bits),
        inl_lsb=float(readout.parameters.shared[0]),
        matrix_uS={data.tile: as_float(reference_of(seen, data.writings[-1]) * data.can.g_max_uS)},
        row_gain={} if readout.rows is None else {data.tile: as_float(readout.rows.gain)},
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """What read-backs tell: noise of a read-back, estimates, the table of sigma where it is no straight line."""

    noise: ReadBack
    back: SigmaFit
    estimates: dict[str, Estimate]
    points: tuple[tuple[float, float], ...]
    unidentified: tuple[str, ...]


def _from_read_backs(data: Measurements) -> _Cells:
    writings = list(data.writings)
    back = cells.read_back_noise(data.can, writings)
    noise = ReadBack(back.const.value, back.rel.value)
    # The pattern that judges has no levels: its targets are all different, and it only tells the drift.
    patterns = writings[:-1] or writings
    wire = cells.wire_resistance(data.can, patterns)
    ohm = wire.value if wire.sure else 0.0
    groups = cells.programming_groups(data.can, patterns, noise, ohm)
    how = f"read-backs of {len(patterns)} writings"
    programming = fit_sigma(groups, ("cell.programming_noise", "cell.programming_noise_rel"), how)
    found = [wire, programming.const, programming.rel]
    missing = []
    missed = cells.bias(data.can, patterns, ohm)
    if missed is not None:
        missing.append(
            f"{missed}: a mean error, which cells of technology generic do not have. Tell: another technology."
        )
    aged = drift(data.can, writings[-1], data.ages, noise)
    if aged is None:
        missing.append(
            "cell.drift_nu: no aged read-backs. Tell: a device that can wait, or the same tile read again later."
        )
    else:
        found += [aged.nu, aged.d2d, aged.t0]
        if len(data.ages) < 2:
            missing.append("cell.t0_s: one age cannot tell t0 from nu; 1 s is taken. Tell: two or more ages.")
    points = table(groups) if programming.p_value < CURVED else ()
    return _Cells(noise, back, {e.name: e for e in found}, points, tuple(missing))


def _of_range(e: Estimate, data: Measurements) -> Estimate:
    """Units of g_max become shares of the range g_max - g_min, as cells count."""
    if e.unit != "g_max":
        return e
    f = data.can.g_max_uS / (data.can.g_max_uS - data.can.g_min_uS)
    return replace(e, value=e.value * f, low=e.low * f, high=e.high * f, unit="range")


def _doubts(data: Measurements, readout: ReadoutFit, known: _Cells | None) -> list[str]:
    """What a description cannot hold, what does not fit together, and what did not come."""
    found = []
    silent = torch.nonzero(dead_rows(data)).flatten().tolist()
    if silent:
        found.append(f"rows {silent[:8]} ({len(silent)} of {data.can.rows}) hold nothing of what is written; left out.")
    if readout.bits[1] is None:
        found.append(
            "adc.inl_lsb, adc.offset_d2d_lsb: counted in LSB, and no steps are seen; offsets are in the columns."
        )
    if readout.parameters.shared[0] < 0:
        found.append("adc.inl_lsb: the bow is negative, which a description cannot hold; the twin keeps its sign.")
    seen = readout.estimates["cell.read_noise"]
    back = None if known is None else known.back
    if back is not None and not back.rel.sure and not (seen.low <= back.const.high and back.const.low <= seen.high):
        found.append(
            f"cell.read_noise: products show {seen.value:.4g} g_max, the read-back {back.const.value:.4g}; that of the "
            "products is taken. Tell: products with one row driven."
        )
    lost = sum(float(p.currents_uA.isnan().sum()) for p in data.pairs) / sum(p.currents_uA.numel() for p in data.pairs)
    if lost:
        found.append(f"{100 * lost:.3g} % of the currents did not come and carry no weight.")
    return found


def _hardware(
    data: Measurements,
    found: dict[str, Estimate],
    readout: ReadoutFit,
    points: tuple[tuple[float, float], ...],
) -> Hardware:
    can = data.can
    bits_in, bits_out = readout.bits

    def value(key: str) -> float:
        return max(found[key].value, 0.0) if key in found else 0.0

    drifts = "cell.drift_nu" in found and found["cell.drift_nu"].low > 0
    cell = GenericCell(
        g_min_uS=can.g_min_uS,
        g_max_uS=can.g_max_uS,
        programming_noise=0.0 if points else value("cell.programming_noise"),
        programming_noise_rel=0.0 if points else value("cell.programming_noise_rel"),
        sigma_table=_table_uS(data, points),
        read_noise=value("cell.read_noise"),
        read_noise_rel=value("cell.read_noise_rel"),
        drift_nu=value("cell.drift_nu") if drifts else 0.0,
        drift_nu_d2d=value("cell.drift_nu_d2d") if drifts and found["cell.drift_nu_d2d"].sure else 0.0,
        t0_s=value("cell.t0_s") if drifts else 1.0,
    )
    adc = Adc(
        bits=bits_out,
        gain_d2d=value("adc.gain_d2d"),
        offset_d2d_lsb=value("adc.offset_d2d_lsb") if bits_out else 0.0,
        inl_lsb=value("adc.inl_lsb") if bits_out else 0.0,
    )
    dac = Dac(bits=bits_in, gain_d2d=value("dac.gain_d2d"))
    wired = "wires.wire_ohm" in found and found["wires.wire_ohm"].sure
    hardware = Hardware(
        name=f"twin of {can.model} {can.serial}".strip(),
        summary=f"Fitted to tile {data.tile} of {can.vendor} {can.model} {can.serial}, {data.vectors} vectors.",
        cell=cell,
        mapping=Mapping(scheme="signed" if can.signed else "differential"),
        tile=Tile(rows=can.rows, cols=can.cols),
        dac=dac if dac != Dac() else None,
        adc=adc,
        output_noise=value("output_noise"),
        wires=Wires(wire_ohm=value("wires.wire_ohm")) if wired else None,
        readout=Readout(v_read_V=can.v_max_V),
        environment=Environment() if data.temperature_K is None else Environment(temperature_K=data.temperature_K),
    )
    return hardware.replace(sources=_sources(hardware, found, points))


def _table_uS(data: Measurements, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """(g, sigma) in uS from end to end of the range; beyond the measured levels sigma is that of the next."""
    if not points:
        return ()
    can = data.can
    table_uS = [(min(x * can.g_max_uS, can.g_max_uS), s * can.g_max_uS) for x, s in points]
    if table_uS[0][0] > can.g_min_uS:
        table_uS.insert(0, (can.g_min_uS, table_uS[0][1]))
    if table_uS[-1][0] < can.g_max_uS:
        table_uS.append((can.g_max_uS, table_uS[-1][1]))
    return tuple(table_uS)


def _sources(
    hardware: Hardware, found: dict[str, Estimate], points: tuple[tuple[float, float], ...]
) -> tuple[Source, ...]:
    """A source for every number that was fitted and is in the description."""
    sources = []
    for e in found.values():
        part, _, key = e.name.rpartition(".")
        if part == "tile":  # of this chip, not of the description
            continue
        holder = hardware if not part else getattr(hardware, part)
        if holder is None or (points and key.startswith("programming")):
            continue
        if not math.isclose(float(getattr(holder, key) or 0.0), e.value, rel_tol=1e-9, abs_tol=1e-12):
            continue
        note = f"95 %: {e.low:.4g} to {e.high:.4g} {e.unit}"
        sources.append(Source(key=e.name, cite=f"mho.lab.twin: {e.how}", status="fitted", note=note))
    if points:
        note = "the deviation is no straight line of the conductance"
        sources.append(Source(key="cell.sigma_table", cite="mho.lab.twin: read-backs", status="fitted", note=note))
    return tuple(sources)


__all__ = ["fit", "fit_twin"]
