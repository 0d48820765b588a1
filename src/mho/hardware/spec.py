"""What a piece of analog hardware is: frozen data, units in the names, no arithmetic.

A :class:`Hardware` is composed of parts, each of which may be absent. ``None`` means that the
part is ideal. Every number of a part is checked when the part is made, so that an impossible
description cannot exist, whether it came from TOML or from Python.

A field's admissible range is written once, in its annotation (``Fraction``, ``NonNegative``, ...),
and read by both the constructor (``check_fields``) and the TOML loader (pydantic).
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from mho.hardware.cells import SIGNED_TECHNOLOGIES, Cell, GenericCell
from mho.hardware.cost import Cost
from mho.hardware.fields import (
    Bits,
    CellBits,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Share,
    check_fields,
    contradiction,
)
from mho.hardware.update import PulsedDevice


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Size of one crossbar tile. ``None``: as large as the layer needs.

    A layer with more inputs than ``rows`` is split into several tiles; each tile has its own
    converters and its partial sums are added digitally.
    """

    rows: Count | None = None
    cols: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """How a weight becomes conductances.

    ``signed``: one idealised cell a weight, able to hold both signs (the usual abstraction of
    "Gaussian weight noise"). ``differential``: w ~ g_plus - g_minus on two cells, the unused one at
    ``g_min_uS``. ``offset``: one cell at mid range plus a reference column that is subtracted.

    ``slices`` cells of ``bits_per_slice`` bits each hold one weight, most significant first
    (weight = sum_k slice_k * 2**(-k * bits_per_slice)); ``slices=1`` is an analog weight.
    ``per_column``: each output column has its own digital scale (max|w| of the column is at
    full-scale conductance), else one scale a layer.
    """

    scheme: Literal["signed", "differential", "offset"] = "differential"
    slices: Count = 1
    bits_per_slice: CellBits | None = None
    per_column: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.slices > 1 and self.bits_per_slice is None:
            raise contradiction(
                self, "slices", self.slices, "more than one slice needs bits_per_slice", "set bits_per_slice"
            )


@dataclass(frozen=True, kw_only=True)
class Dac:
    """Input converter: 2**bits - 1 levels, symmetric about zero (codes -(2**(bits-1)-1) ...).

    ``range_sigma``: the range is that many times the root mean square of the layer's input;
    ``None``: the running maximum of |x|. ``gain_d2d``/``inl_lsb``: static errors of each row's
    converter (one standard deviation of the gain; peak of the integral non-linearity in LSB).
    """

    bits: Bits | None = None
    range_sigma: Positive | None = None
    gain_d2d: NonNegative = 0.0
    inl_lsb: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Adc:
    """Output converter of a column.

    ``enob``: effective bits; what they lack from ``bits`` is fresh Gaussian noise before rounding,
    sigma^2 = FS^2/12 (4^-enob - 4^-bits). ``gain_d2d`` (relative), ``offset_d2d_lsb`` and
    ``inl_lsb`` are static: one draw a column and chip.
    """

    bits: Bits | None = None
    enob: Positive | None = None
    range_sigma: Positive | None = None
    gain_d2d: NonNegative = 0.0
    offset_d2d_lsb: NonNegative = 0.0
    inl_lsb: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bits is None and (self.enob is not None or self.offset_d2d_lsb or self.inl_lsb):
            raise contradiction(
                self, "bits", None, "enob, offset_d2d_lsb and inl_lsb are measured in LSB of bits", "set adc.bits"
            )
        if self.enob is not None and self.bits is not None and self.enob > self.bits:
            raise contradiction(self, "enob", self.enob, f"more effective bits than bits = {self.bits}", "lower enob")


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """Analog neuron in front of the ADC: asymmetric, saturating, mismatched.

    In units of the ADC range: f(a) = clip(gain_pos * max(a, 0) + gain_neg * min(a, 0) + offset,
    low, high), smoothed towards its bounds when ``soft`` (a tanh-shaped approach instead of a hard
    corner). ``*_d2d``: relative (gains) or absolute (offset) standard deviation over neurons.
    """

    gain_pos: Positive = 1.0
    gain_neg: NonNegative = 1.0
    offset: float = 0.0
    low: float = -1.0
    high: Positive = 1.0
    soft: bool = False
    gain_d2d: NonNegative = 0.0
    offset_d2d: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.low >= self.high:
            raise contradiction(self, "low", self.low, f"not below high = {self.high}", "exchange low and high")


@dataclass(frozen=True, kw_only=True)
class Wires:
    """Resistance of one wire segment between neighbouring cells, and how to account for it.

    ``exact``: the nodal equations are solved once a tile (the array with resistive wires is a
    different weight matrix). ``first_order``: G_eff ~ T G with
    T_ij = 1 - R sum_k min(i, k) G_kj - R sum_l min(j, l) G_il.
    """

    wire_ohm: NonNegative
    model: Literal["exact", "first_order"] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Electrical conditions of one read; they set thermal and shot noise in SI units.

    ``fano``: shot-noise (Fano) factor, 0 for ohmic cells, at most 1.

    ``repeats``: whole reads of each product, every one converted, averaged digitally. ``columns``: what the readout can
    do for one output channel (a column, in all of its tiles) alone. ``together``: nothing, all are read alike;
    ``masked``: leave it out of a read, disconnected (its cells draw nothing) and not converted; ``timed``: that, and
    integrate it for a time of its own, which takes an integrator a column with its own stop. ``column_repeats``: reads
    of each output channel, at most ``repeats`` (needs ``masked``); ``column_windows``: share of ``t_read_s``, above 0
    to 1, for which each is integrated (needs ``timed``). Empty: as the others.
    """

    v_read_V: Positive = 0.2
    t_read_s: Positive = 1e-7
    thermal: bool = False
    fano: Fraction = 0.0
    repeats: Count = 1
    columns: Literal["together", "masked", "timed"] = "together"
    column_repeats: tuple[Count, ...] = ()
    column_windows: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if any(type(count) is not int for count in self.column_repeats):
            raise contradiction(self, "column_repeats", self.column_repeats, "reads are counted", "whole numbers")
        if self.column_repeats and self.columns == "together":
            raise contradiction(
                self,
                "column_repeats",
                f"{len(self.column_repeats)} numbers",
                "columns are read together, none can be left out of a read",
                "readout.columns = 'masked' (or 'timed') for a readout that disconnects single columns, else one "
                "readout.repeats for all",
            )
        if self.column_windows and self.columns != "timed":
            raise contradiction(
                self,
                "column_windows",
                f"{len(self.column_windows)} numbers",
                "columns have no time of their own",
                "readout.columns = 'timed' for a readout with an integrator a column, else one t_read_s for all",
            )
        if self.column_repeats and max(self.column_repeats) > self.repeats:
            raise contradiction(
                self,
                "column_repeats",
                max(self.column_repeats),
                f"more than repeats = {self.repeats}",
                "raise readout.repeats",
            )


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares of broken cells and lines: stuck at g_max, stuck at g_min, dead rows, dead columns."""

    stuck_on: Fraction = 0.0
    stuck_off: Fraction = 0.0
    dead_rows: Fraction = 0.0
    dead_cols: Fraction = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stuck_on + self.stuck_off > 1.0:
            raise contradiction(self, "stuck_on", self.stuck_on, "stuck_on + stuck_off exceeds 1", "lower one of them")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the chip works: ``temperature_K``, and the age at which it is used by default."""

    temperature_K: Positive = 300.0
    t_s: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a constant comes from. ``key`` is dotted: ``cell.programming``."""

    key: str
    cite: str
    status: Literal["measured", "fitted", "assumed"]
    note: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One frozen description that surrogate, virtual chips, devices and energy model all read.

    ``output_noise``: fresh Gaussian noise in front of the ADC, one standard deviation as a fraction
    of the ADC's range (half of its full scale). ``update``: how its cells answer to pulses, for training that
    writes them; a chip that is only programmed and read has none. ``cost``: what its parts cost, if that is known.
    """

    name: str
    summary: str = ""
    schema: Literal[1] = 1
    cell: Cell = field(default_factory=GenericCell)
    mapping: Mapping = field(default_factory=Mapping)
    tile: Tile = field(default_factory=Tile)
    dac: Dac | None = None
    adc: Adc | None = None
    output_noise: NonNegative = 0.0
    neuron: Neuron | None = None
    wires: Wires | None = None
    readout: Readout = field(default_factory=Readout)
    faults: Faults = field(default_factory=Faults)
    environment: Environment = field(default_factory=Environment)
    update: PulsedDevice | None = None
    cost: Cost | None = None
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.output_noise > 0 and self.adc is None:
            raise contradiction(
                self,
                "output_noise",
                self.output_noise,
                "it is a fraction of the ADC's range, and there is no adc",
                "add an [adc] section (without bits for an ideal one)",
            )
        if self.mapping.scheme == "signed" and self.cell.technology not in SIGNED_TECHNOLOGIES:
            raise contradiction(
                self.mapping,
                "scheme",
                "signed",
                f"a cell of technology {self.cell.technology!r} has no negative conductance",
                "set mapping.scheme to 'differential' or 'offset'",
            )

    def replace(self, **changes: object) -> "Hardware":
        """A copy with top-level parts exchanged: ``hw.replace(adc=Adc(bits=6))``."""
        return replace(self, **changes)  # type: ignore[arg-type]


__all__ = [
    "Adc",
    "Cost",
    "Dac",
    "Environment",
    "Faults",
    "Hardware",
    "Mapping",
    "Neuron",
    "PulsedDevice",
    "Readout",
    "Source",
    "Tile",
    "Wires",
]
