"""The temperature that a hardware's own thermal noise gives a Hopfield network."""

from dataclasses import replace

import torch
from torch import Tensor

from mho.crossbar.array import program
from mho.crossbar.noise import draw_static
from mho.crossbar.ops import LinearOp
from mho.ebm.hopfield.couplings import Kernel
from mho.ebm.hopfield.network import HopfieldNet, Link
from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.rng import normals


@torch.no_grad()
def thermal_temperatures(net: HopfieldNet, hw: Hardware, *, chip_seed: int = 0) -> tuple[float, ...]:
    """kT of each layer in units of the energy, from the Johnson noise of the lines that its units read.

    A unit's drive of 1 is the current of a cell at full scale under the read voltage. Its line adds a current of
    variance 4 k T sum(G) / (2 t_read), so that the preactivation has the variance kT = sum over its lines, drives and
    pulls alike, mean over the units of the layer: what ``Dynamics(temperature=thermal_temperatures(...))`` adds at
    ``step=1``. An average over a window divides it by the window's size, as it averages so many lines; max and soft
    pooling let that of about one line through. Programming errors of the cells are those of some chip ``chip_seed``,
    another one for each direction: a sum of conductances hardly sees which. ``hw.readout`` gives voltage and time of a
    read, ``hw.environment`` the kelvins. States are in units of the largest, which the read voltage stands for.

    Raises :class:`InputError` for a network without full scales (``bound_sigma``), whose weights are no conductances.
    """
    scales = net.full_scales
    if not scales:
        raise InputError(
            "thermal_temperatures: the network has no full scales, so its weights are no conductances. Fix: "
            "bound_sigma=3.0."
        )
    loud = hw.replace(readout=replace(hw.readout, thermal=True))
    values, found = net.values(), [0.0] * len(net.described)
    for link in net.links:
        if link.coupling.name is None:
            continue
        weight, bound = values[link.coupling.name].flatten(1), scales[link.coupling.name]
        found[link.target - 1] += _variance(link, weight, bound, loud, chip_seed) / _lines_averaged(link)
        if link.source > 0:
            found[link.source - 1] += _variance(link, _backwards(values[link.coupling.name]), bound, loud, chip_seed)
    return tuple(found)


def _lines_averaged(link: Link) -> int:
    coupling = link.coupling
    return coupling.window**2 if isinstance(coupling, Kernel) and coupling.pool == "average" else 1


def _backwards(weight: Tensor) -> Tensor:
    """The matrix as it is read the other way round: a line for each input, or for each channel of a kernel."""
    return weight.transpose(0, 1).flatten(1)


def _variance(link: Link, matrix: Tensor, bound: Tensor, hw: Hardware, chip_seed: int) -> float:
    op = LinearOp(matrix.shape[1], matrix.shape[0])
    name = f"{link.coupling.name}.thermal"
    draws = draw_static(op, hw, matrix.shape, lambda shape, label: normals(shape, chip_seed, name, label))
    variance = program(matrix, op, hw, draws, t_s=hw.environment.t_s, bound=bound).thermal_var
    assert variance is not None
    return float(variance.sum(0).mean())


__all__ = ["thermal_temperatures"]
