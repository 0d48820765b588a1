"""Counts times prices: the energy of one weight, part by part."""

from dataclasses import replace

from mho.costs.adc import conversion_J
from mho.costs.cells import array_energy_J
from mho.costs.constants import ADD_INT32, MULTIPLY_INT8, SRAM_BIT, Constant, spread
from mho.costs.counts import Counts, Layout, count
from mho.costs.nodes import energy_factor, relative_energy
from mho.costs.phases import input_bits, planes
from mho.costs.spread import Spread, exactly
from mho.costs.timing import without_area
from mho.costs.trace import Traced
from mho.hardware.cost import Cost, Quantity
from mho.hardware.spec import Hardware
from mho.physics.averaging import column_effort

PICO = 1e-12


def at_node(constant: Constant, node_nm: float, supply_V: float) -> Spread:
    """A digital constant at another process, pJ."""
    assert constant.node_nm is not None and constant.voltage_V is not None
    return constant.value * energy_factor(constant.node_nm, constant.voltage_V, node_nm, supply_V)


def check_prices(cost: Cost) -> None:
    """Raise :class:`HardwareError` where a price that is left out would be scaled to a process that has no fit."""
    logic = cost.logic
    if None in (logic.add_pJ, logic.scale_pJ, logic.activation_pJ, cost.move.buffer_pJ):
        relative_energy(cost.node_nm, cost.supply_V)


def dynamic_J(counts: Counts, place: Layout, driven_uS: float, hw: Hardware, cost: Cost) -> dict[str, Spread]:
    """Joules of each part for ``counts``; a part that has no price is absent (:func:`unpriced` names it)."""
    drive, adc, logic, move = cost.drive, cost.adc, cost.logic, cost.move
    found: dict[str, Spread] = {}
    if drive.energy_pJ is not None:
        found["drive"] = _times(counts.drives, drive.energy_pJ) * _elements(hw, cost)
    found["array"] = _array_J(counts, place, driven_uS, hw, cost)
    if drive.line_fF is not None:
        charge = spread(drive.line_fF) * (1e-15 * drive.line_swing_V * drive.line_supply_V)
        found["lines"] = charge * counts.line_charges
    if hw.adc is not None and hw.adc.bits is not None:
        total = conversion_J(hw.adc, adc) * counts.conversions
        for times, price in ((counts.samples, adc.sample_pJ), (counts.integrations, adc.integrate_pJ)):
            total = total if price is None else total + _times(times, price)
        found["adc"] = total
    add = _or_scaled(logic.add_pJ, ADD_INT32, cost)
    scale = _or_scaled(logic.scale_pJ, MULTIPLY_INT8, cost)
    act = _or_scaled(logic.activation_pJ, ADD_INT32, cost)
    found["logic"] = (add * counts.additions + (scale + act) * counts.outputs) * PICO
    found["buffers"] = _or_scaled(move.buffer_pJ, SRAM_BIT, cost) * ((counts.bits_in + counts.bits_out) * PICO)
    if move.link_pJ is not None:
        found["links"] = _times(counts.bits_link, move.link_pJ)
    if cost.tile.read_pJ is not None:
        found["tile"] = _times(counts.tile_reads, cost.tile.read_pJ)
    return found


def recounted(traced: Traced, hw: Hardware) -> Counts:
    """What ``traced`` (on its own hardware) would have done on ``hw``, without running the example again."""
    op, done = traced.site.op, traced.counts
    bare = count(op, traced.site.hw, done.vectors, numbers_in=done.numbers_in, bias=False)
    found = count(op, hw, done.vectors, numbers_in=done.numbers_in, bias=False)
    return replace(found, calls=done.calls, additions=found.additions + done.additions - bare.additions)


def _elements(hw: Hardware, cost: Cost) -> float:
    """Elements of a row's DAC over those of the priced one: 2^(bits of a phase - bits of the price)."""
    bits = cost.drive.bits_per_phase or input_bits(hw)
    return 1.0 if cost.drive.bits is None or bits is None else 2.0 ** (bits - cost.drive.bits)


def _or_scaled(price: Quantity | None, constant: Constant, cost: Cost) -> Spread:
    """``price``, else ``constant`` at the process of ``cost``, pJ."""
    return at_node(constant, cost.node_nm, cost.supply_V) if price is None else spread(price)


def _times(amount: int, price_pJ: Quantity) -> Spread:
    return spread(price_pJ) * (amount * PICO)


def _array_J(counts: Counts, place: Layout, driven_uS: float, hw: Hardware, cost: Cost) -> Spread:
    if cost.array.read_fJ is None:
        return exactly(array_energy_J(driven_uS, hw))
    # Cells of references are read in full, those of weights as their columns are.
    shares = column_effort(hw.readout, place.outputs)
    references = place.rows * place.references
    read = (place.cells - references) * sum(shares) / max(1, len(shares)) + references * hw.readout.repeats
    return spread(cost.array.read_fJ) * (counts.vectors * read * planes(hw) * 1e-15)


def unpriced(hw: Hardware, cost: Cost) -> tuple[str, ...]:
    """What energy, time and area leave out, each with the key that would price it."""
    checks = (
        ("row drivers", "cost.drive.energy_pJ", cost.drive.energy_pJ is None and cost.tile.read_pJ is None),
        ("converters", "adc.bits", hw.adc is None or hw.adc.bits is None),
        ("links between buffers and tiles", "cost.move.link_pJ", cost.move.link_pJ is None),
        (
            "static power",
            "cost.tile.static_mW or cost.chip_static_mW",
            cost.tile.static_mW is None and cost.chip_static_mW is None,
        ),
        ("programming", "cost.programming", cost.programming is None),
        ("time of a conversion", "cost.adc.conversion_s", cost.adc.conversion_s is None),
    )
    areas = tuple(f"area of {what} ({key})" for what, key in without_area(cost))
    return (*(f"{what} ({key})" for what, key, absent in checks if absent), *areas, "time of logic, buffers and links")


def programming_J(cells: int, cost: Cost) -> Spread | None:
    """Writing every cell once: cells x pulses x energy of a pulse."""
    if cost.programming is None:
        return None
    return spread(cost.programming.pulses) * spread(cost.programming.pulse_pJ) * (cells * PICO)
