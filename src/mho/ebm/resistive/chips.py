"""Conductances of a resistive network on a chip: one cell a resistor, whatever the hardware's mapping of weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mho.crossbar.array import is_ideal
from mho.ebm.conductances import programmed
from mho.errors import HardwareError
from mho.hardware.spec import Hardware
from mho.hardware.spec import Mapping as WeightMapping

_ONE_CELL = WeightMapping(scheme="offset")


def single_cells(hw: Hardware) -> Hardware:
    """``hw`` with one analog cell a parameter: the resistor itself.

    A parameter w in [-1, 1] is the conductance g_min + (w + 1)/2 (g_max - g_min). Raises :class:`HardwareError` for
    wires, which would be part of the circuit, and for periphery that a circuit at rest does not have.
    """
    if hw.wires is not None and hw.wires.wire_ohm > 0:
        raise HardwareError(
            f"{hw.name}: wires of {hw.wires.wire_ohm} ohm: they belong to the circuit of a resistive network, and its "
            "solver does not have them. Way out: hw.replace(wires=None)."
        )
    return hw.replace(mapping=_ONE_CELL)


def conductances_uS(w: Mapping[str, Tensor], hw: Hardware) -> dict[str, Tensor]:
    """The wanted conductances of parameters w in [-1, 1]: g_min + (w + 1)/2 (g_max - g_min), uS."""
    low, half = hw.cell.g_min_uS, (hw.cell.g_max_uS - hw.cell.g_min_uS) / 2
    return {name: low + (value + 1.0) * half for name, value in w.items()}


def on_chip(
    w: Mapping[str, Tensor],
    hw: Hardware,
    *,
    chip_seed: int | None,
    age: float | str | None = None,
    counter: bool = False,
) -> dict[str, Tensor]:
    """The conductances (uS) that the chip ``chip_seed`` of ``hw`` holds for parameters ``w`` in [-1, 1].

    Levels, programming error, drift and faults as in :func:`mho.ebm.conductances.programmed`; never below 0 uS, as the
    laws of cells have it. ``counter``: faster draws of other numbers, for training. Ideal hardware gives
    :func:`conductances_uS`.
    """
    if is_ideal(hw):
        return conductances_uS(w, hw)
    held = programmed(w, single_cells(hw), chip_seed=chip_seed, age=age, bounds=dict.fromkeys(w, 1.0), counter=counter)
    # The way back from g to w and to g again rounds: a cell at exactly 0 uS may come out at -1e-6.
    return {name: torch.relu(g) for name, g in conductances_uS(held, hw).items()}


__all__ = ["conductances_uS", "on_chip", "single_cells"]
