"""What the cells of a weight draw: the sum over cells of conductance times drive.

    resistive   E = V_read^2 t_read  sum_cells u g r           u of each input (mho.costs.phases), g as targeted
    charge      E = C V_supply^2     sum_cells u g r / g_max   a unit capacitor is charged where bit and input are 1
    photonic    none: light and its modulators are static power

r: reads of the cell's column (a resistive one: times the share of the read time that it is integrated for; afterwards
it is disconnected). Both numbers of a product are the network's own, so that ranges that are filled, clipped weights
and silent inputs are seen in joules.
"""

import torch
from torch import Tensor

from mho.costs.phases import drive_share
from mho.crossbar.array import SIEMENS_PER_US, bit_slices, full_scale, to_conductances
from mho.crossbar.ops import ConvOp, Op
from mho.hardware.cells import PhotonicCell, SramCell
from mho.hardware.spec import Hardware
from mho.physics import cells
from mho.physics.averaging import column_effort

FEMTO = 1e-15


def total_conductance(w: Tensor, hw: Hardware, bound: Tensor | None, references: int) -> Tensor:
    """Conductance of all cells of each weight, uS, float64, of the shape of ``w``: polarities and slices together.

    Targets without programming error. The ``references`` columns of an offset mapping (at mid range) are shared out
    over the outputs.
    """
    w = w.detach().double()
    w_max = full_scale(w, hw, None if bound is None else bound.double())
    signed = hw.mapping.scheme == "signed"
    total = torch.zeros_like(w)
    for part in bit_slices((w / w_max).clamp(-1, 1), hw):
        total += cells.quantize_levels(hw.cell, to_conductances(part, hw), signed=signed).abs().sum(0)
    return total + references * (hw.cell.g_min_uS + hw.cell.g_max_uS) / 2 / max(1, w.shape[0])


def effort(hw: Hardware, like: Tensor) -> Tensor:
    """r of each output channel of ``like`` [out, ...], shaped to broadcast over it."""
    timed = not isinstance(hw.cell, SramCell)
    values = like.new_tensor(column_effort(hw.readout, len(like), timed=timed))
    return values.reshape(-1, *([1] * (like.dim() - 1)))


def driven_conductance_uS(x: Tensor, full_range: Tensor, g: Tensor, op: Op, hw: Hardware) -> float:
    """sum over vectors, rows and columns of u g, in uS; ``g``: :func:`total_conductance` times :func:`effort`."""
    groups = op.groups if isinstance(op, ConvOp) else 1
    # All columns of a group see the same drive: add them first.
    rows = g.reshape(groups, -1, *g.shape[1:]).sum(1)
    return float(op.apply(drive_share(x, full_range, hw), rows, None).sum())


def array_energy_J(driven_uS: float, hw: Hardware) -> float:
    """Energy of cells for a ``driven_uS`` of :func:`driven_conductance_uS`."""
    cell = hw.cell
    if isinstance(cell, PhotonicCell):
        return 0.0
    if isinstance(cell, SramCell):
        return cell.unit_fF * FEMTO * cell.supply_V**2 * driven_uS / cell.g_max_uS
    return hw.readout.v_read_V**2 * hw.readout.t_read_s * driven_uS * SIEMENS_PER_US
