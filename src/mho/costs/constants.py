"""Every number of the model that is no chip's own, with its source; and the constants of a chip, listed alike.

Digital energies: Horowitz, ISSCC 2014 (45 nm, 0.9 V). They are brought to another process by ``mho.costs.nodes``.
Converters: Murmann's survey of ADCs (2025 sheet, 725 converters), ``bmurmann/ADC-survey``. What is ours says so.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from mho.costs.spread import Spread
from mho.errors import HardwareError
from mho.hardware.cost import Cost, Quantity

HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014"
SURVEY = "Murmann, ADC performance survey 1997-2025"
CIMLOOP = "Andrulis et al., CiMLoop, arXiv:2404.06553"
STILLMAKER = "Stillmaker and Baas, Integration 58, 74 (2017)"
OURS = "an assumption of mho"
UNITS = ("pJ", "fJ", "fF", "um2", "mW", "s", "V", "nm")


@final
@dataclass(frozen=True)
class Constant:
    """One number that a sum rests on, in ``unit``, with low and high.

    ``status``: as for ``Quantity``; of a setting of the description (:mod:`mho.costs.settings`) as for ``Source``.
    """

    name: str
    value: Spread
    unit: str
    source: str
    status: Literal["measured", "model", "bound", "fitted", "assumed"]
    node_nm: float | None = None
    voltage_V: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.source.strip() or not self.unit.strip():
            raise HardwareError(f"constant {self.name!r}: has no source or no unit. Fix: say both.")


def _digital(name: str, low: float, typical: float, high: float, unit: str, note: str = "") -> Constant:
    return Constant(name, Spread(low, typical, high), unit, HOROWITZ, "model", 45.0, 0.9, note)


_WIDE = "low and high: 0.5 and 2 times, circuits differ"
ADD_INT32 = _digital("add int32", 0.05, 0.1, 0.2, "pJ", _WIDE)
ADD_INT8 = _digital("add int8", 0.015, 0.03, 0.06, "pJ", _WIDE)
MULTIPLY_INT8 = _digital("multiply int8", 0.1, 0.2, 0.4, "pJ", _WIDE)
MULTIPLY_INT4 = _digital("multiply int4", 0.025, 0.05, 0.1, "pJ", "a quarter of int8: goes with the square of bits")
ADD_FP32 = _digital("add fp32", 0.45, 0.9, 1.8, "pJ", _WIDE)
MULTIPLY_FP32 = _digital("multiply fp32", 1.85, 3.7, 7.4, "pJ", _WIDE)
SRAM_BIT = _digital("on-chip memory, one bit", 10 / 64, 20 / 64, 100 / 64, "pJ", "64-bit access to 8 KB, 32 KB, 1 MB")
DRAM_BIT = _digital("DRAM, one bit", 1300 / 64, 1950 / 64, 2600 / 64, "pJ", "not scaled with the process of the logic")

ADC_FLOOR_PJ = Constant(
    "ADC envelope, constant part", Spread(0.267, 0.267, 0.267), "pJ", SURVEY, "bound", note="mean of the three best"
)
ADC_NOISE_AJ = Constant(
    "ADC envelope, a factor of 4^ENOB", Spread(0.1446, 0.1446, 0.1446), "aJ", SURVEY, "bound", note="as above"
)


def _median(bits: str, pJ: float, status: Literal["measured", "model"] = "measured", note: str = "") -> Constant:
    return Constant(f"ADC median since 2018, {bits} bits", Spread(pJ, pJ, pJ), "pJ", SURVEY, status, note=note)


ADC_MEDIANS: dict[float, Constant] = {
    5.0: _median("4 to 6", 2.29),
    7.0: _median("6 to 8", 4.8),
    9.0: _median(
        "8 to 10",
        21.4,
        "model",
        "ours: geometric mean of the survey's 25.8 and, of 10 to 12 bits, 17.8; more bits cost no less",
    ),
    11.0: _median("10 to 12", 21.4, "model", "ours: as of 8 to 10 bits"),
}
"""By the middle of the bin of effective bits."""
ADC_WALDEN_FJ = Constant(
    "ADC median figure of merit, a factor of 2^ENOB", Spread(203.0, 203.0, 203.0), "fJ", SURVEY, "measured",
    note="Walden, of all years: for high",
)  # fmt: skip
ADC_SCHREIER_DB = Constant(
    "ADC median figure of merit, FOM_S", Spread(156.1, 156.1, 156.1), "dB", SURVEY, "measured",
    note="Schreier, of all years: for high",
)  # fmt: skip


def _exact(name: str, value: float, unit: str, source: str, note: str = "", node_nm: float | None = None) -> Constant:
    return Constant(name, Spread(value, value, value), unit, source, "model", node_nm, note=note)


ADC_RATE_DB = _exact("ADC figure of merit against rate, at 1 Hz", 213.78, "dB", CIMLOOP)
ADC_RATE_SLOPE_DB = _exact("ADC figure of merit against rate, less for each e-fold of the rate", 2.8719, "dB", CIMLOOP)
ADC_CAP_DB = _exact(
    "ADC figure of merit, cap at low rates, at 0 bits", 128.4, "dB", CIMLOOP, "ours, read off its results"
)
ADC_CAP_BIT_DB = _exact(
    "ADC figure of merit, cap at low rates, each effective bit", 3.2, "dB", CIMLOOP, "ours, read off its results"
)

ON_CHIP_MIB = _exact(
    "digital network, memory on the chip", 8.0, "MiB", OURS, "ours: weights that do not fit come from DRAM"
)


def _fit(node_nm: float, *factors: float) -> tuple[Constant, Constant, Constant]:
    """The three factors of a node's fit a V^2 + b V + c, in units of the fit."""
    square, linear, rest = (
        _exact(f"energy of logic, {node_nm:g} nm, factor of {power}", value, unit, STILLMAKER, "a fit over V", node_nm)
        for power, unit, value in zip(("V^2", "V", "1"), ("1/V^2", "1/V", "1"), factors, strict=True)
    )
    return square, linear, rest


NODE_FITS: dict[float, tuple[Constant, Constant, Constant]] = {
    7.0: _fit(7.0, 0.1776, -0.09097, 0.02447),
    10.0: _fit(10.0, 0.2068, -0.09311, 0.02375),
    14.0: _fit(14.0, 0.2363, -0.09675, 0.02239),
    16.0: _fit(16.0, 0.2958, -0.1241, 0.03024),
    20.0: _fit(20.0, 0.373, -0.1582, 0.04104),
    32.0: _fit(32.0, 0.9559, -0.7823, 0.471),
    45.0: _fit(45.0, 1.103, -0.362, 0.2767),
    65.0: _fit(65.0, 3.755, -4.398, 1.975),
    90.0: _fit(90.0, 4.762, -4.781, 2.092),
    130.0: _fit(130.0, 7.171, -6.709, 2.904),
}
"""By node, nm."""
FIT_SUPPLY_V = Constant(
    "energy of logic, supplies at which the fits are used", Spread(0.5, 0.9, 1.8), "V", OURS, "model",
    note="ours: others are refused",
)  # fmt: skip

MOST_PACKAGE_W = 1000.0
"""No CPU package draws more (assumed; those of 2025 are rated to 500 W): how soon RAPL's counter may start again. In no
sum."""

HOUSE: tuple[Constant, ...] = (
    ADD_INT32, ADD_INT8, MULTIPLY_INT8, MULTIPLY_INT4, ADD_FP32, MULTIPLY_FP32, SRAM_BIT, DRAM_BIT, ADC_FLOOR_PJ,
    ADC_NOISE_AJ, *ADC_MEDIANS.values(), ADC_WALDEN_FJ, ADC_SCHREIER_DB, ADC_RATE_DB, ADC_RATE_SLOPE_DB, ADC_CAP_DB,
    ADC_CAP_BIT_DB, ON_CHIP_MIB, FIT_SUPPLY_V, *(factor for fit in NODE_FITS.values() for factor in fit),
)  # fmt: skip
"""All of them: a test holds that each has a source, and that no other number of the room stands without one."""


def spread(q: Quantity) -> Spread:
    """The three numbers of a quantity, in its own unit."""
    return Spread(q.low, q.typical, q.high)


def unit_of(field_name: str) -> str:
    """The unit that a field's name ends with; "" for a plain number (``pulses``)."""
    last = field_name.rpartition("_")[2]
    return last if last in UNITS else ""


def constants_of(cost: Cost) -> tuple[Constant, ...]:
    """Every quantity of a chip's prices as a constant, named by its dotted key (``adc.energy_pJ``)."""
    return tuple(
        Constant(key, spread(q), unit_of(key) or "1", q.source, q.status, q.node_nm, q.voltage_V, q.note)
        for key, q in _quantities(cost, "")
    )


def _quantities(part: object, prefix: str) -> Iterator[tuple[str, Quantity]]:
    for spec in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, spec.name)
        if isinstance(value, Quantity):
            yield f"{prefix}{spec.name}", value
        elif dataclasses.is_dataclass(value):
            yield from _quantities(value, f"{prefix}{spec.name}.")
