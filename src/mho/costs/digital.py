"""The digital network that a user would ship instead: the same operations, counted alike, in the same process.

    E = MACs (multiply + add) + bits of weights, inputs and outputs x energy a bit of memory

Weights are fetched once a product and inputs and outputs once a layer: perfect reuse inside a layer, which favours the
digital side. Memory on the chip: low, typical, high as of 8 KB, 32 KB and 1 MB; weights that do not fit
``ON_CHIP_BITS`` come from DRAM. Not counted: control, clocks, leakage. A measured chip judges better
(``mho.costs.meter``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from mho.costs.constants import (
    ADD_FP32,
    ADD_INT32,
    DRAM_BIT,
    MULTIPLY_FP32,
    MULTIPLY_INT4,
    MULTIPLY_INT8,
    ON_CHIP_MIB,
    SRAM_BIT,
    Constant,
)
from mho.costs.nodes import energy_factor
from mho.costs.spread import NOTHING, Spread
from mho.errors import InputError

FORMATS: dict[str, tuple[int, tuple[Constant, ...]]] = {
    "fp32": (32, (MULTIPLY_FP32, ADD_FP32)),
    "int8": (8, (MULTIPLY_INT8, ADD_INT32)),
    "int4": (4, (MULTIPLY_INT4, ADD_INT32)),
}
ON_CHIP_BITS = int(ON_CHIP_MIB.value.typical * 8 * 2**20)
PICO = 1e-12


@final
@dataclass(frozen=True)
class Work:
    """One layer for one inference: multiply-adds, weights, products that fetch them (a batch of one), numbers moved."""

    macs: float
    weights: int
    calls: int
    numbers_in: float
    numbers_out: float


@final
@dataclass(frozen=True)
class DigitalCost:
    """J an inference of one number format: arithmetic and memory."""

    format: str
    arithmetic_J: Spread
    memory_J: Spread
    weights_in_dram: bool

    @property
    def total_J(self) -> Spread:
        return self.arithmetic_J + self.memory_J


def baseline(layers: Iterable[Work], other_macs: float, format: str, node_nm: float, supply_V: float) -> DigitalCost:
    """The digital cost of ``layers`` and of ``other_macs`` that no layer holds. ``format``: fp32, int8 or int4."""
    if format not in FORMATS:
        raise InputError(f"digital baseline: format {format!r}: must be one of {', '.join(FORMATS)}.")
    bits, parts = FORMATS[format]
    work = list(layers)
    mac = NOTHING
    for part in parts:
        assert part.node_nm is not None and part.voltage_V is not None
        mac = mac + part.value * (energy_factor(part.node_nm, part.voltage_V, node_nm, supply_V) * PICO)
    assert SRAM_BIT.node_nm is not None and SRAM_BIT.voltage_V is not None
    on_chip = SRAM_BIT.value * (energy_factor(SRAM_BIT.node_nm, SRAM_BIT.voltage_V, node_nm, supply_V) * PICO)
    outside = sum(layer.weights for layer in work) * bits > ON_CHIP_BITS
    fetched = sum(layer.weights * layer.calls for layer in work) * bits
    moved = sum(layer.numbers_in + layer.numbers_out for layer in work) * bits
    memory = on_chip * moved + (DRAM_BIT.value * PICO if outside else on_chip) * fetched
    return DigitalCost(format, mac * (sum(layer.macs for layer in work) + other_macs), memory, outside)
