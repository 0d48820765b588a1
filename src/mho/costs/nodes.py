"""Digital energies of one process at another: E(node, V) ~ a V^2 + b V + c.

Stillmaker and Baas, Integration 58, 74 (2017), fits of 130 to 7 nm; between two nodes the energy is interpolated
linearly in the node. Nodes and voltages outside of the fits are refused, not extended.
"""

from bisect import bisect_left

from mho.errors import HardwareError

_FITS: dict[float, tuple[float, float, float]] = {
    7.0: (0.1776, -0.09097, 0.02447),
    10.0: (0.2068, -0.09311, 0.02375),
    14.0: (0.2363, -0.09675, 0.02239),
    16.0: (0.2958, -0.1241, 0.03024),
    20.0: (0.373, -0.1582, 0.04104),
    32.0: (0.9559, -0.7823, 0.471),
    45.0: (1.103, -0.362, 0.2767),
    65.0: (3.755, -4.398, 1.975),
    90.0: (4.762, -4.781, 2.092),
    130.0: (7.171, -6.709, 2.904),
}
_NODES = tuple(_FITS)


def relative_energy(node_nm: float, supply_V: float) -> float:
    """Energy of one digital operation in the units of the fit. 7 <= node <= 130 nm, 0.5 <= supply <= 1.8 V.

    Raises :class:`HardwareError` outside.
    """
    if not _NODES[0] <= node_nm <= _NODES[-1] or not 0.5 <= supply_V <= 1.8:
        raise HardwareError(
            f"cost.node_nm = {node_nm:g}, cost.supply_V = {supply_V:g}: digital energies are known for 7 to 130 nm and "
            "0.5 to 1.8 V. Fix: give cost.logic and cost.move of this process, or a node and supply inside."
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
    a, b, c = _FITS[node_nm]
    return a * supply_V**2 + b * supply_V + c
