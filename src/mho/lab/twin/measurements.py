"""What was measured, as plain data: writings, pairs of inputs and outputs, reads at ages. Saved without pickles."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mho.errors import TwinError
from mho.lab.protocol import Capabilities

SCHEMA = 1
Role = Literal["fit", "sweep", "held-out"]


@final
@dataclass(frozen=True, eq=False)
class Writing:
    """One writing of the tile.

    ``targets_uS`` [rows, cols]; ``mean_uS``, ``var_uS2`` [rows, cols]: mean and variance (n - 1) of ``reads`` reads of
    each cell, ``None`` without read-back; ``stuck`` bool [rows, cols]: cells that the device says did not answer.
    """

    targets_uS: Tensor
    stuck: Tensor
    mean_uS: Tensor | None = None
    var_uS2: Tensor | None = None
    reads: int = 0


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """Inputs [n, rows] (V) and the currents [repeats, n, cols] (uA) that came, NaN where none did.

    ``writing``: which one the tile held; ``full_scale_uA``: the range of the converter; ``role``: what they are for.
    """

    writing: int
    inputs_V: Tensor
    full_scale_uA: float
    currents_uA: Tensor
    role: Role = "fit"


@final
@dataclass(frozen=True, eq=False)
class AgedRead:
    """Mean of ``reads`` reads [rows, cols] of a writing, ``age_s`` after it."""

    writing: int
    age_s: float
    mean_uS: Tensor
    reads: int


@final
@dataclass(frozen=True, eq=False)
class Measurements:
    """All that was measured on one tile. ``calls``, ``vectors``: what it cost; ``time_s``: the device's clock."""

    can: Capabilities
    tile: int
    writings: tuple[Writing, ...]
    pairs: tuple[Pairs, ...]
    ages: tuple[AgedRead, ...] = ()
    calls: int = 0
    vectors: int = 0
    time_s: float = 0.0
    temperature_K: float | None = None

    def of(self, role: Role) -> tuple[Pairs, ...]:
        """The pairs of one role."""
        return tuple(p for p in self.pairs if p.role == role)

    @property
    def unit_uA(self) -> float:
        """Current of one cell at full scale under full drive: v_max g_max."""
        return self.can.v_max_V * self.can.g_max_uS


def save_measurements(data: Measurements, path: str | os.PathLike[str]) -> None:
    """Write ``data`` as safetensors with its description as JSON in the header."""
    tensors: dict[str, Tensor] = {}
    about: dict[str, object] = {
        "schema": SCHEMA,
        "can": asdict(data.can),
        "tile": data.tile,
        "calls": data.calls,
        "vectors": data.vectors,
        "time_s": data.time_s,
        "temperature_K": data.temperature_K,
    }
    for k, w in enumerate(data.writings):
        tensors |= {f"writing.{k}.targets_uS": w.targets_uS, f"writing.{k}.stuck": w.stuck.to(torch.uint8)}
        if w.mean_uS is not None and w.var_uS2 is not None:
            tensors |= {f"writing.{k}.mean_uS": w.mean_uS, f"writing.{k}.var_uS2": w.var_uS2}
    about["writings"] = [w.reads for w in data.writings]
    for k, p in enumerate(data.pairs):
        tensors |= {f"pairs.{k}.inputs_V": p.inputs_V, f"pairs.{k}.currents_uA": p.currents_uA}
    about["pairs"] = [[p.writing, p.full_scale_uA, p.role] for p in data.pairs]
    for k, a in enumerate(data.ages):
        tensors[f"ages.{k}.mean_uS"] = a.mean_uS
    about["ages"] = [[a.writing, a.age_s, a.reads] for a in data.ages]
    whole = {name: t.contiguous().clone() for name, t in tensors.items()}
    save_file(whole, os.fspath(path), metadata={"mho.measurements": json.dumps(about)})


def load_measurements(path: str | os.PathLike[str]) -> Measurements:
    """What :func:`save_measurements` wrote. :class:`TwinError` for any other file."""
    if not Path(path).is_file():
        raise TwinError(f"{os.fspath(path)}: no such file. Fix: give a file that save_measurements wrote.")
    try:
        with safe_open(os.fspath(path), "pt") as file:
            text = (file.metadata() or {}).get("mho.measurements")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise TwinError(
            f"{os.fspath(path)}: not a safetensors file ({error}). Fix: read_measurements reads tables."
        ) from error
    if text is None:
        raise TwinError(f"{os.fspath(path)}: holds no measurements. Fix: give a file that save_measurements wrote.")
    about = json.loads(text)
    if about.get("schema") != SCHEMA:
        raise TwinError(
            f"{os.fspath(path)}: schema {about.get('schema')!r}, this version reads {SCHEMA}. Fix: measure anew."
        )
    return Measurements(
        can=Capabilities(**about["can"]),
        tile=about["tile"],
        writings=tuple(
            Writing(
                tensors[f"writing.{k}.targets_uS"],
                tensors[f"writing.{k}.stuck"].bool(),
                tensors.get(f"writing.{k}.mean_uS"),
                tensors.get(f"writing.{k}.var_uS2"),
                reads,
            )
            for k, reads in enumerate(about["writings"])
        ),
        pairs=tuple(
            Pairs(writing, tensors[f"pairs.{k}.inputs_V"], scale, tensors[f"pairs.{k}.currents_uA"], role)
            for k, (writing, scale, role) in enumerate(about["pairs"])
        ),
        ages=tuple(
            AgedRead(writing, age_s, tensors[f"ages.{k}.mean_uS"], reads)
            for k, (writing, age_s, reads) in enumerate(about["ages"])
        ),
        calls=about["calls"],
        vectors=about["vectors"],
        time_s=about["time_s"],
        temperature_K=about["temperature_K"],
    )
