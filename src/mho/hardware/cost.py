"""What the parts of a chip cost, as data: energy, time and area a unit of work. The sums are in ``mho.costs``.

How the chip is driven (bit planes, signs one by one) stands here too, because it decides how often each part works.
Nothing of it enters the noise: the bits of the converters, the tiles and the cells are those of the same ``Hardware``.
"""

from dataclasses import dataclass, field
from typing import Literal

from mho.hardware.fields import Bits, CellBits, Count, NonNegative, Positive, check_fields, contradiction


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One constant: what it may be at least, is usually, and may be at most; the unit is in the name of its field.

    ``status``: ``measured`` on silicon, ``model`` (derived, simulated or scaled), ``bound`` (the best of a survey, or a
    limit). ``source`` may not be empty: a number that nobody stands for has no place in a sum. ``node_nm``,
    ``voltage_V``: of the process; ``None`` where they are not stated.
    """

    low: NonNegative
    typical: NonNegative
    high: NonNegative
    source: str
    status: Literal["measured", "model", "bound"]
    node_nm: Positive | None = None
    voltage_V: Positive | None = None
    note: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.source.strip():
            raise contradiction(self, "source", self.source, "a constant without a source", "say where it comes from")
        if not self.low <= self.typical <= self.high:
            raise contradiction(
                self,
                "typical",
                self.typical,
                f"not between low = {self.low} and high = {self.high}",
                "order the three numbers",
            )


@dataclass(frozen=True, kw_only=True)
class DriveCost:
    """How inputs reach the rows, and what one drive costs.

    ``bits_per_phase``: bits of an input that are applied at once, most significant first (``None``: all of them, one
    phase). ``polar``: a sign is a polarity of the drive, else it is a bit plane of its own (two's complement).
    ``shape`` of one phase: a voltage (``amplitude``) or a duration (``pulse-width``) in proportion to the input.
    ``sign_reads``: 4 where signs of inputs and of weights are read one by one (each read has its own conversions, the
    cells conduct once in all), 2 for one of the two, 1 for neither.

    ``energy_pJ``: one driver or DAC of one row, one phase; ``bits``: of how many bits (for others it goes with 2^bits,
    the elements of a DAC that sums units; left out: the same for all). ``line_fF``, ``line_swing_V``,
    ``line_supply_V``: a line a column that is charged at each phase, C dV V. ``area_um2``: one driver.
    """

    bits_per_phase: CellBits | None = None
    polar: bool = True
    shape: Literal["amplitude", "pulse-width"] = "amplitude"
    sign_reads: Literal[1, 2, 4] = 1
    energy_pJ: Quantity | None = None
    bits: CellBits | None = None
    line_fF: Quantity | None = None
    line_swing_V: NonNegative = 0.0
    line_supply_V: NonNegative = 0.0
    area_um2: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.line_fF is not None and not self.line_swing_V * self.line_supply_V:
            raise contradiction(
                self,
                "line_fF",
                self.line_fF.typical,
                "a capacitance without voltages",
                "set line_swing_V, line_supply_V",
            )
        if self.bits is not None and self.energy_pJ is None:
            raise contradiction(self, "bits", self.bits, "bits of a price that is not given", "set energy_pJ")
        if self.shape == "pulse-width" and self.bits_per_phase is not None:
            raise contradiction(
                self, "shape", self.shape, "a duration holds all bits at once", "leave out bits_per_phase"
            )


@dataclass(frozen=True, kw_only=True)
class AdcCost:
    """Converters of the columns.

    ``energy_pJ``: one conversion of ``bits`` (needed with it); for other bits it is scaled along the survey's envelope.
    Left out: the energy is the survey's. ``step_pJ``: added for each bit that is decided. ``sample_pJ``: one column's
    sample and hold, one phase; ``integrate_pJ``: one column, one addition of charge (a plane of weight 2^k is added 2^k
    times). ``planes_per_conversion``: bit planes that are added in charge before one conversion.

    ``columns``: columns that share one converter; ``conversion_s``: time of one conversion; ``overlapped``: the
    columns of one phase are converted while the next phase is read. ``area_um2``: one converter.
    """

    energy_pJ: Quantity | None = None
    bits: Bits | None = None
    step_pJ: Quantity | None = None
    sample_pJ: Quantity | None = None
    integrate_pJ: Quantity | None = None
    planes_per_conversion: Count = 1
    columns: Count = 1
    conversion_s: Quantity | None = None
    overlapped: bool = False
    area_um2: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.energy_pJ is not None and self.bits is None:
            raise contradiction(
                self, "bits", None, "energy_pJ is the energy of how many bits?", "set cost.adc.bits beside energy_pJ"
            )


@dataclass(frozen=True, kw_only=True)
class ArrayCost:
    """The cells. ``read_fJ``: one cell, one phase, whatever it holds; left out: from conductances and inputs.

    ``area_um2``: one cell.
    """

    read_fJ: Quantity | None = None
    area_um2: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class LogicCost:
    """Digital work behind the converters. Left out: scaled from 45 nm (``mho.costs.constants``).

    ``add_pJ``: one addition of a partial sum; ``scale_pJ``: scale and shift of one output; ``activation_pJ``: its
    activation.
    """

    add_pJ: Quantity | None = None
    scale_pJ: Quantity | None = None
    activation_pJ: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class MoveCost:
    """Data on their way. ``buffer_pJ``: one bit read from or written to a buffer; left out: scaled from 45 nm.

    ``link_pJ``: one bit between a buffer and a tile.
    """

    buffer_pJ: Quantity | None = None
    link_pJ: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class TileCost:
    """What is known of a whole tile only. ``read_pJ``: one read of it, used or not.

    ``static_mW``: while the network runs; ``area_um2``: what no other part counts.
    """

    read_pJ: Quantity | None = None
    static_mW: Quantity | None = None
    area_um2: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class ProgrammingCost:
    """Writing: ``pulses`` a cell of ``pulse_pJ`` each."""

    pulse_pJ: Quantity
    pulses: Quantity

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Prices of a chip in a process of ``node_nm`` at ``supply_V``; every part may be absent, and is then not counted.

    ``chip_static_mW``: of the whole chip, whatever the network uses of it.
    """

    node_nm: Positive
    supply_V: Positive
    drive: DriveCost = field(default_factory=DriveCost)
    adc: AdcCost = field(default_factory=AdcCost)
    array: ArrayCost = field(default_factory=ArrayCost)
    logic: LogicCost = field(default_factory=LogicCost)
    move: MoveCost = field(default_factory=MoveCost)
    tile: TileCost = field(default_factory=TileCost)
    programming: ProgrammingCost | None = None
    chip_static_mW: Quantity | None = None

    def __post_init__(self) -> None:
        check_fields(self)


__all__ = [
    "AdcCost",
    "ArrayCost",
    "Cost",
    "DriveCost",
    "LogicCost",
    "MoveCost",
    "ProgrammingCost",
    "Quantity",
    "TileCost",
]
