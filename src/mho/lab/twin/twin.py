"""A twin: what is known of one device, with intervals; its files; what training needs of it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mho.errors import TwinError
from mho.evaluation.atomic import write_atomically
from mho.hardware import dump_hardware, load_hardware
from mho.hardware.spec import Hardware
from mho.lab.columns import Columns
from mho.lab.twin.estimates import Estimate

SCHEMA = 1
STATICS = ".statics.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Twin:
    """A device as its measurements show it.

    ``hardware``: the population that it was drawn from, for training and virtual chips. ``columns``: this chip's own
    gain and offset of each column, a tile; ``column_errors``: their standard errors, in the same form. ``matrix_uS``:
    effective conductances [rows, cols] of the last pattern, a tile; ``row_gain`` [rows]: where rows are not alike, and
    part of ``matrix_uS``. ``inl_lsb``: signed (a description
    knows bows >= 0 only). ``unidentified``: what the data do not tell, and which measurement would.
    ``error_over_noise``: root mean square of (a read - the twin's mean) over that of (a read - the device's own mean),
    on a pattern that was not used for the fit; 1 is perfect; ``None``: nothing was held out.
    """

    hardware: Hardware
    columns: Mapping[int, Columns]
    column_errors: Mapping[int, Columns]
    estimates: tuple[Estimate, ...]
    unidentified: tuple[str, ...] = ()
    error_over_noise: float | None = None
    inl_lsb: float = 0.0
    matrix_uS: Mapping[int, Tensor] = field(default_factory=dict)
    row_gain: Mapping[int, Tensor] = field(default_factory=dict)

    def estimate(self, name: str) -> Estimate:
        """The estimate of that name; :class:`TwinError` with the names there are."""
        for e in self.estimates:
            if e.name == name:
                return e
        raise TwinError(f"twin: no estimate {name!r}. Fix: one of {', '.join(e.name for e in self.estimates)}.")

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``path`` (the hardware, TOML) and beside it the statics of this chip; returns both paths."""
        target = Path(path)
        if target.suffix != ".toml":
            raise TwinError(f"{target}: a hardware file ends in .toml. Fix: give such a name.")
        tensors = {f"matrix.{t}": g.contiguous() for t, g in self.matrix_uS.items()}
        tensors |= {f"rows.{t}": g.contiguous() for t, g in self.row_gain.items()}
        for kind, known in (("columns", self.columns), ("errors", self.column_errors)):
            for t, c in known.items():
                tensors |= {f"{kind}.{t}.gain": c.gain.contiguous(), f"{kind}.{t}.offset": c.offset.contiguous()}
        about = {
            "schema": SCHEMA,
            "estimates": [vars(e) for e in self.estimates],
            "unidentified": self.unidentified,
            "error_over_noise": self.error_over_noise,
            "inl_lsb": self.inl_lsb,
        }
        beside = statics_path(target)
        write_atomically(beside, save(tensors, metadata={"mho.twin": json.dumps(about)}))
        return write_atomically(target, dump_hardware(self.hardware).encode()), beside


def statics_path(path: str | os.PathLike[str]) -> Path:
    """The file of a chip's own statics beside the hardware file ``path``."""
    target = Path(path)
    return target.with_name(target.name.removesuffix(".toml") + STATICS)


def load_twin(path: str | os.PathLike[str]) -> Twin:
    """The twin that was saved as ``path``; :class:`TwinError` where the file of statics is missing or another's."""
    hardware, beside = load_hardware(Path(path)), statics_path(path)
    if not beside.is_file():
        raise TwinError(
            f"{beside}: no such file. Cause: {os.fspath(path)} was moved alone. Fix: keep the two together."
        )
    try:
        with safe_open(os.fspath(beside), "pt") as file:
            text = (file.metadata() or {}).get("mho.twin")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise TwinError(f"{beside}: not a safetensors file ({error}). Fix: calibrate again.") from error
    about = {} if text is None else json.loads(text)
    if about.get("schema") != SCHEMA:
        raise TwinError(
            f"{beside}: statics of schema {about.get('schema')!r}, expected {SCHEMA}. Fix: calibrate again."
        )

    def columns(kind: str) -> dict[int, Columns]:
        tiles = sorted({int(name.split(".")[1]) for name in tensors if name.startswith(kind + ".")})
        return {t: Columns(tensors[f"{kind}.{t}.gain"], tensors[f"{kind}.{t}.offset"]) for t in tiles}

    def by_tile(kind: str) -> dict[int, Tensor]:
        return {int(name.split(".")[1]): g for name, g in tensors.items() if name.startswith(kind + ".")}

    return Twin(
        hardware=hardware,
        columns=columns("columns"),
        column_errors=columns("errors"),
        estimates=tuple(Estimate(**e) for e in about["estimates"]),
        unidentified=tuple(about["unidentified"]),
        error_over_noise=about["error_over_noise"],
        inl_lsb=about["inl_lsb"],
        matrix_uS=by_tile("matrix"),
        row_gain=by_tile("rows"),
    )


def column_response(twin: Twin, tile: int) -> tuple[Tensor, Tensor, float]:
    """(gain [cols], offset [cols] in uA per uA of full scale, inl_lsb): a current i of a column comes out as

        converters.transfer(gain i + offset full_scale, full_scale, adc.bits, inl_lsb=inl_lsb)

    :class:`TwinError` for a tile that was not measured: columns of another tile are other columns.
    """
    if tile not in twin.columns:
        known = ", ".join(map(str, sorted(twin.columns))) or "none"
        raise TwinError(f"tile {tile}: not measured (measured: {known}). Fix: fit_twin(device, tile={tile}).")
    own = twin.columns[tile]
    return own.gain, own.offset, twin.inl_lsb


def merged(twins: Sequence[Twin]) -> Twin:
    """One twin of several tiles of a device: the first one's description, everybody's columns.

    :class:`TwinError` for none, and where two are of the same tile.
    """
    if not twins:
        raise TwinError("merged: no twins. Fix: give one a tile.")
    tiles = [t for twin in twins for t in twin.columns]
    if len(set(tiles)) < len(tiles):
        raise TwinError(f"merged: tiles {sorted(tiles)}, one of them twice. Fix: give one twin a tile.")
    return replace(
        twins[0],
        columns={t: c for twin in twins for t, c in twin.columns.items()},
        column_errors={t: c for twin in twins for t, c in twin.column_errors.items()},
        matrix_uS={t: g for twin in twins for t, g in twin.matrix_uS.items()},
        row_gain={t: g for twin in twins for t, g in twin.row_gain.items()},
        unidentified=tuple(dict.fromkeys(u for twin in twins for u in twin.unidentified)),
    )


def as_float(t: Tensor) -> Tensor:
    """float32 on the CPU, as the protocol has it."""
    return t.detach().to("cpu", torch.float32)
