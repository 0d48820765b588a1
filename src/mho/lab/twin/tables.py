"""Measurements that others made: CSV, Parquet or HDF5 of pairs or of pulse responses. See README.md for the columns."""

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from mho.errors import TwinError

INPUT, OUTPUT = re.compile(r"input_(\d+)"), re.compile(r"output_(\d+)")
PULSES = ("cell", "direction", "g_uS")
SCALE = "full_scale_uA"


@final
@dataclass(frozen=True, eq=False)
class PairTable:
    """``inputs_V`` [n, rows], ``outputs_uA`` [n, cols] float64; ``full_scale_uA``: of the output converter, if
    known."""

    inputs_V: Tensor
    outputs_uA: Tensor
    full_scale_uA: float | None = None


@final
@dataclass(frozen=True, eq=False)
class PulseTable:
    """One row a pulse, in the order in which they came: ``cell`` [n] (long), ``up`` bool [n], ``g_uS`` [n] after it.

    A row with ``start`` set is the conductance before the first pulse of a train.
    """

    cell: Tensor
    up: Tensor
    start: Tensor
    g_uS: Tensor


def read_measurements(path: str | os.PathLike[str]) -> PairTable | PulseTable:
    """Read a table; what it holds is told by its columns.

    Raises :class:`TwinError` with file, row and column for what is missing, no number, NaN or infinite, and for columns
    that are neither those of pairs nor those of pulses. Rows are counted as an editor does: the header of a CSV is row
    1.
    """
    file = Path(path)
    if not file.is_file():
        raise TwinError(f"{file}: no such file. Fix: give a file of pairs or of pulses (.csv, .parquet, .h5).")
    readers = {".csv": _csv, ".parquet": _parquet, ".h5": _hdf5, ".hdf5": _hdf5}
    if file.suffix.lower() not in readers:
        raise TwinError(f"{file}: format {file.suffix!r}. Fix: one of {', '.join(readers)}.")
    columns, first = readers[file.suffix.lower()](file)
    if not columns or not len(next(iter(columns.values()))):
        raise TwinError(f"{file}: the table is empty. Fix: one row a product, or one a pulse.")
    if all(name in columns for name in PULSES):
        return _pulses(file, columns, first)
    return _pairs(file, columns, first)


def _csv(file: Path) -> tuple[dict[str, Sequence[Any]], int]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        lines = list(csv.reader(stream))
    if not lines:
        return {}, 2
    header = [name.strip() for name in lines[0]]
    for k, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise TwinError(
                f"{file}: row {k}: {len(line)} fields, the header has {len(header)}. Fix: complete the row."
            )
    return {name: [line[k] for line in lines[1:]] for k, name in enumerate(header)}, 2


def _parquet(file: Path) -> tuple[dict[str, Sequence[Any]], int]:
    try:
        from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise TwinError(f"{file}: Parquet needs pyarrow. Fix: pip install 'mho[lab]'.") from error
    try:
        table = parquet.read_table(file)
    except (ArrowInvalid, OSError) as error:
        raise TwinError(f"{file}: not a Parquet file ({error}). Fix: write it anew.") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}, 1


def _hdf5(file: Path) -> tuple[dict[str, Sequence[Any]], int]:
    """Datasets of one dimension are columns; ``inputs_V`` and ``outputs_uA`` [n, ...] are many at once."""
    try:
        import h5py  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise TwinError(f"{file}: HDF5 needs h5py. Fix: pip install 'mho[lab]'.") from error
    columns: dict[str, Sequence[Any]] = {}
    try:
        with h5py.File(file, "r") as h5:
            for name, data in h5.items():
                values = data[()]
                if values.ndim == 1:
                    columns[name] = values.tolist()
                elif values.ndim == 2 and name in ("inputs_V", "outputs_uA"):
                    short = "input" if name == "inputs_V" else "output"
                    columns |= {f"{short}_{k}": values[:, k].tolist() for k in range(values.shape[1])}
                else:
                    raise TwinError(
                        f"{file}: dataset {name!r} has shape {values.shape}. Fix: see README.md for the names."
                    )
    except OSError as error:
        raise TwinError(f"{file}: not an HDF5 file ({error}). Fix: write it anew.") from error
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TwinError(f"{file}: columns of different length: {lengths}. Fix: one entry a row in each.")
    return columns, 0


def _numbers(file: Path, name: str, values: Sequence[Any], first: int) -> Tensor:
    found = []
    for k, value in enumerate(values, first):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TwinError(
                f"{file}: row {k}, column {name!r}: {value!r} is no number. Fix: mend or delete the row."
            ) from None
        if not math.isfinite(number):
            raise TwinError(f"{file}: row {k}, column {name!r}: {value!r} is not finite. Fix: mend or delete the row.")
        found.append(number)
    return torch.tensor(found, dtype=torch.float64)


def _numbered(file: Path, columns: Mapping[str, Sequence[Any]], pattern: re.Pattern[str], what: str) -> list[str]:
    """Names of the numbered columns in order; they have to be 0 ... n - 1."""
    found = {int(m.group(1)): name for name in columns if (m := pattern.fullmatch(name))}
    wanted = set(range(max(found, default=0) + 1))
    if set(found) != wanted:
        gone = ", ".join(f"{what}_{k}" for k in sorted(wanted - set(found))[:4])
        raise TwinError(
            f"{file}: column {gone!r} is missing (there are: {', '.join(list(columns)[:6])} ...). Fix: {what}_0, "
            f"{what}_1, ... without a gap; or {', '.join(PULSES)} for pulses."
        )
    return [found[k] for k in sorted(found)]


def _pairs(file: Path, columns: Mapping[str, Sequence[Any]], first: int) -> PairTable:
    ins, outs = _numbered(file, columns, INPUT, "input"), _numbered(file, columns, OUTPUT, "output")
    unknown = sorted(set(columns) - set(ins) - set(outs) - {SCALE})
    if unknown:
        raise TwinError(
            f"{file}: column {unknown[0]!r} is unknown. Fix: input_0 ..., output_0 ..., {SCALE}; delete the rest."
        )
    scale = None
    if SCALE in columns:
        values = _numbers(file, SCALE, columns[SCALE], first)
        odd = torch.nonzero(values != values[0]).flatten().tolist()
        if odd or float(values[0]) <= 0:
            row = first + (odd[0] if odd else 0)
            raise TwinError(f"{file}: row {row}, column {SCALE!r}: one range above 0 a file. Fix: split the file.")
        scale = float(values[0])
    x, y = (torch.stack([_numbers(file, name, columns[name], first) for name in names], 1) for names in (ins, outs))
    return PairTable(x, y, scale)


def _pulses(file: Path, columns: Mapping[str, Sequence[Any]], first: int) -> PulseTable:
    cell, direction, g = (_numbers(file, name, columns[name], first) for name in PULSES)
    odd = torch.nonzero(~((direction == 1) | (direction == -1) | (direction == 0))).flatten().tolist()
    if odd:
        raise TwinError(
            f"{file}: row {first + odd[0]}, column 'direction': {float(direction[odd[0]]):g}. Fix: 1 (up), -1 (down), "
            "or 0 for the conductance before a train."
        )
    odd = torch.nonzero(cell != cell.round()).flatten().tolist()
    if odd:
        raise TwinError(f"{file}: row {first + odd[0]}, column 'cell': not a whole number. Fix: number the cells.")
    return PulseTable(cell.long(), direction > 0, direction == 0, g)
