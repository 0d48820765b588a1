"""Digital energies of one process at another: E(node, V) ~ a V^2 + b V + c.

Stillmaker and Baas, Integration 58, 74 (2017), fits of 130 to 7 nm; between two nodes the energy is interpolated
linearly in the node. Nodes and voltages outside of the fits are refused, not extended.
"""

from bisect import bisect_left

from mho.costs.constants import FIT_SUPPLY_V, NODE_FITS
from mho.errors import HardwareError

_NODES = tuple(NODE_FITS)


def is_fitted(node_nm: float, supply_V: float) -> bool:
    """Whether digital energies are known at ``node_nm`` and ``supply_V``."""
    volts = FIT_SUPPLY_V.value
    return _NODES[0] <= node_nm <= _NODES[-1] and volts.low <= supply_V <= volts.high


def relative_energy(node_nm: float, supply_V: float) -> float:
    """Energy of one digital operation in the units of the fit. 7 <= node <= 130 nm, 0.5 <= supply <= 1.8 V.

    Raises :class:`HardwareError` outside.
    """
    if not is_fitted(node_nm, supply_V):
        volts = FIT_SUPPLY_V.value
        raise HardwareError(
            f"cost.node_nm = {node_nm:g}, cost.supply_V = {supply_V:g}: digital energies are known for "
            f"{_NODES[0]:g} to {_NODES[-1]:g} nm and {volts.low:g} to {volts.high:g} V. Fix: "
            "give cost.logic (add_pJ, scale_pJ, activation_pJ) and cost.move.buffer_pJ of this process, or a node and "
            "supply inside."
        )
    i = bisect_left(_NODES, node_nm)
    if _NODES[i] == node_nm:
        return _at(node_nm, supply_V)
    below, above = _NODES[i - 1], _NODES[i]
    share = (node_nm - below) / (above - below)
    return (1 - share) * _at(below, supply_V) + share * _at(above, supply_V)


def energy_factor(from_nm: float, from_V: float, to_nm: float, to_V: float) -> float:
    """By what an energy of one process is multiplied in another."""
    return relative_energy(to_nm, to_V) / relative_energy(from_nm, from_V)


def _at(node_nm: float, supply_V: float) -> float:
    a, b, c = (factor.value.typical for factor in NODE_FITS[node_nm])
    return a * supply_V**2 + b * supply_V + c
