"""ngspice as referee: what a tile does according to a circuit simulator that knows nothing of this package."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mho.errors import DeviceFault, RangeError
from mho.lab.spice.access import Access, AccessMosfet
from mho.lab.spice.netlist import check_tile, crossbar_deck, noise_deck, transient_deck
from mho.lab.spice.run import COMMAND, TIMEOUT_S, simulate

SAMPLES_A_READ = 4
"""Steps of a transient within one read. Any number gives the law of a read; more than one makes its mean a mean."""


def solve_columns(
    g_uS: Tensor,
    inputs_V: Tensor,
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
    timeout_s: float = TIMEOUT_S,
    command: str = COMMAND,
) -> Tensor:
    """Column currents [n, cols] (uA, float64) of the tile ``g_uS`` [rows, cols] for ``inputs_V`` [n, rows].

    One operating point a vector. The first takes most of the time (64 x 64 with wires: some 4 s), each one after
    it about a twentieth. :class:`~mho.errors.RangeError` for values that are no tile, else as :func:`simulate`.
    """
    deck = crossbar_deck(g_uS, inputs_V, wire_ohm=wire_ohm, access=access, temperature_K=temperature_K)
    plots = simulate(deck, timeout_s=timeout_s, command=command)
    points = len(plots[0].values)
    if len(plots) != 1 or points != len(inputs_V):
        raise DeviceFault(
            f"spice: {points} of {len(inputs_V)} vectors were solved, the next did not converge. Fix: look at that "
            "vector; smaller inputs, or a higher gate voltage of the access transistors."
        )
    currents_A = np.stack([plots[0][f"i(vm{j})"].real for j in range(g_uS.shape[1])], axis=1)
    return torch.from_numpy(currents_A * 1e6)


def solve_superposition(
    g_uS: Tensor,
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    timeout_s: float = TIMEOUT_S,
    command: str = COMMAND,
) -> Tensor:
    """G_eff [rows, cols] (uS, float64) with i = v @ G_eff: 1 V on one row after the other, all else at 0 V.

    The shortcut for a tile that is read often: valid because every element is linear, and only then. What it gives
    was not solved for the inputs in question; :func:`solve_columns` does that.
    """
    check_tile(g_uS, wire_ohm)
    if isinstance(access, AccessMosfet):
        raise RangeError("spice: superposition with AccessMosfet, which is not linear. Fix: solve_columns.")
    one_by_one_V = torch.eye(g_uS.shape[0], dtype=torch.float64)
    return solve_columns(g_uS, one_by_one_V, wire_ohm=wire_ohm, access=access, timeout_s=timeout_s, command=command)


def noise_density(
    g_uS: Tensor,
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
    columns: Sequence[int] | None = None,
    timeout_s: float = TIMEOUT_S,
    command: str = COMMAND,
) -> Tensor:
    """Thermal noise of the column currents [cols] (A^2/Hz, one-sided, float64) by ``.noise``; sigma^2 = S B.

    ``columns``: only these, in this order; each is an analysis of its own.
    """
    check_tile(g_uS, wire_ohm)
    wanted = range(g_uS.shape[1]) if columns is None else list(columns)
    deck = noise_deck(g_uS, wanted, wire_ohm=wire_ohm, access=access, temperature_K=temperature_K)
    plots = simulate(deck, timeout_s=timeout_s, command=command)
    if len(plots) != len(wanted):
        raise DeviceFault(f"spice: .noise of {len(plots)} of {len(wanted)} columns came. Fix: check the tile's values.")
    return torch.tensor([float(plot["onoise_spectrum"][0].real) for plot in plots], dtype=torch.float64)


def noise_reads(
    g_uS: Tensor,
    reads: int,
    *,
    t_read_s: float,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
    timeout_s: float = TIMEOUT_S,
    command: str = COMMAND,
) -> Tensor:
    """Thermal noise of the column currents in ``reads`` reads [reads, cols] (uA, float64), by a transient.

    Every resistor has a ``trnoise`` source beside it; a read is the mean over ``t_read_s``, which is the boxcar of B =
    1 / (2 t_read_s). What columns share (drivers, wires) is in it. ngspice 39 takes its seed from the number of its
    process, whatever ``setseed`` says: no two calls give the same numbers. Time grows with reads times resistors.
    """
    if not 0.0 < t_read_s < math.inf or reads < 1:
        raise RangeError(f"spice: {reads} reads of t_read_s = {t_read_s!r}. Fix: 1 or more, of a time above 0.")
    samples = reads * SAMPLES_A_READ
    deck = transient_deck(
        g_uS, samples, t_read_s / SAMPLES_A_READ, wire_ohm=wire_ohm, access=access, temperature_K=temperature_K
    )
    plots = simulate(deck, timeout_s=timeout_s, command=command)
    points = len(plots[0].values)
    if len(plots) != 1 or points != samples + 1:
        raise DeviceFault(f"spice: {points} of {samples + 1} points of a transient came. Fix: fewer reads a call.")
    currents_A = np.stack([plots[0][f"i(vm{j})"].real[1:] for j in range(g_uS.shape[1])], axis=1)
    return torch.from_numpy(currents_A.reshape(reads, SAMPLES_A_READ, -1).mean(1) * 1e6)
