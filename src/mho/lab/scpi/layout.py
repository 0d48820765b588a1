"""How a bench is wired and which words it understands: frozen data, one for each kind of bench."""

import string
from dataclasses import dataclass, field, fields

from mho.hardware.fields import Count, NonNegative, Positive, check_fields, contradiction
from mho.lab.scpi.blocks import ByteOrder

_FIELDS = {
    "set_voltage": {"channel", "value"},
    "set_range": {"channels", "value"},
    "measure": {"channels"},
    "output": {"channels", "state"},
    "data_format": set(),
    "write_cells": set(),
}


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The SCPI words of a bench. ``{channel}``, ``{channels}`` (joined by commas), ``{value}`` (V or A), ``{state}``.

    Commands are joined by semicolons, so each begins at the root, with a colon. ``set_voltage``: one source.
    ``set_range``: full scale of all ammeters. ``measure``: a query that answers all ammeters, in the order asked for,
    in A, as one block of 32-bit floats. ``data_format``: what makes the instrument send such blocks. ``output``:
    sources on and off. ``write_cells``: the header of a command that takes all conductances as one block, in S, row
    after row (a matrix of programmable resistors); ``None``: they are fixed. ``calibrate``: a query that answers 0
    when all is well (``*CAL?`` of IEEE 488.2), ``None``: there is none.
    """

    set_voltage: str = ":SOUR:VOLT {value:.7g},(@{channel})"
    set_range: str = ":SENS:CURR:RANG {value:.7g},(@{channels})"
    measure: str = ":READ? (@{channels})"
    output: str = ":OUTP {state:d},(@{channels})"
    data_format: str = ":FORM REAL,32"
    write_cells: str | None = None
    calibrate: str | None = "*CAL?"
    error: str = ":SYST:ERR?"

    def __post_init__(self) -> None:
        check_fields(self)
        for spec in fields(self):
            text, known = getattr(self, spec.name), _FIELDS.get(spec.name, set())
            if text is None:
                continue
            named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            if named != known:
                wanted = ", ".join(f"{{{k}}}" for k in sorted(known)) or "no field"
                raise contradiction(self, spec.name, text, f"it must name {wanted}", "mend the template")


@dataclass(frozen=True, kw_only=True)
class BenchLayout:
    """A bench: one voltage source a row, one ammeter a column, resistors where they cross.

    ``row_channels``, ``col_channels``: names of the channels. ``v_max_V``, ``i_min_uA``, ``i_max_uA``: what sources
    and ammeters can; ``v_read_V``: voltage of a read-back. ``g_min_uS``, ``g_max_uS``: range of the resistors.
    ``settle_s``: after the sources were set. ``timeout_s``: of one message;
    ``call_timeout_s``: of a whole call of up to ``max_batch`` vectors. ``byte_order`` of the blocks: big-endian
    is FORMat:BORDer NORMal.

    Raises :class:`~mho.errors.HardwareError` for an impossible layout.
    """

    row_channels: tuple[str, ...]
    col_channels: tuple[str, ...]
    v_max_V: Positive
    v_read_V: Positive
    i_min_uA: Positive
    i_max_uA: Positive
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive
    settle_s: NonNegative = 0.0
    timeout_s: Positive = 5.0
    call_timeout_s: Positive = 600.0
    max_batch: Count = 64
    byte_order: ByteOrder = "big"
    commands: Commands = field(default_factory=Commands)

    def __post_init__(self) -> None:
        check_fields(self)
        for key in ("row_channels", "col_channels"):
            names = getattr(self, key)
            if not names or len(set(names)) != len(names):
                raise contradiction(self, key, names, "no channel, or one twice", "name each channel once")
        both = set(self.row_channels) & set(self.col_channels)
        if both:
            raise contradiction(self, "col_channels", sorted(both), "these are rows too", "use other channels")
        if self.v_read_V > self.v_max_V:
            raise contradiction(self, "v_read_V", self.v_read_V, f"above v_max_V = {self.v_max_V}", "lower it")
        if self.i_min_uA > self.i_max_uA:
            raise contradiction(self, "i_min_uA", self.i_min_uA, f"above i_max_uA = {self.i_max_uA}", "lower it")
