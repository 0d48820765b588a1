"""What one inference of a resistive network costs: its heat while it settles. An estimate, with its assumptions.

    E = P t,   P = sum g (A v_far - v)^2 at rest,   t = ln(2^(bits + 1)) tau

The sources are on until the slowest mode of the network has come within half a step of ``bits`` bits. With C a node's
capacitance and J the Jacobian of its currents, tau = 1 / (smallest eigenvalue of C^-1 J), all diodes open (slowest).
"""

import math
from dataclasses import dataclass

import torch

from mho.costs.constants import Constant
from mho.costs.spread import Spread
from mho.ebm.resistive.energy import resistor_power_uW
from mho.ebm.resistive.hessian import hessian, layer_slices
from mho.ebm.resistive.network import Conductances, Layered
from mho.ebm.resistive.solve import Rest
from mho.errors import InputError

LINE_FF = Constant(
    "capacitance of a line, one resistor's share",
    Spread(480 / 256, 585.6 / 256, 700 / 256),
    "fF",
    "Andrulis et al., CiMLoop, arXiv:2404.06553, component library of Wan et al. 2022",
    "model",
    130.0,
    note="a line of 256 cells with its access transistors and driver, divided by 256",
)
SETTLED_BITS = 6
MOST_NODES = 4096


@dataclass(frozen=True)
class InferenceCost:
    """``power_uW``: mean heat in the resistors at rest; times and ``energy_J`` are low, typical, high."""

    power_uW: float
    tau_s: Spread
    settling_s: Spread
    energy_J: Spread
    bits: int

    def numbers(self) -> dict[str, object]:
        """For ``summary.json``."""
        spreads = {"tau_s": self.tau_s, "settling_s": self.settling_s, "energy_J": self.energy_J}
        return {
            "power_uW": self.power_uW,
            **{name: {"low": s.low, "typical": s.typical, "high": s.high} for name, s in spreads.items()},
            "settled_to_bits": self.bits,
            "capacitance_fF_per_resistor": LINE_FF.value.typical,
            "capacitance_source": LINE_FF.source,
            "left_out": "amplifiers, converters, diodes, programming, nudged phases",
        }


def slowest_rate(net: Layered, g_uS: Conductances) -> float:
    """Smallest eigenvalue of C^-1 J for a capacitance of 1 a resistor end, uS: tau = C_resistor / it.

    J is the energy's second derivative over each layer's share in it, so the eigenvalues are those of a symmetric
    matrix. Raises :class:`InputError` above 4,096 nodes.
    """
    nodes = sum(net.sizes)
    if nodes > MOST_NODES:
        raise InputError(f"slowest_rate: {nodes} nodes, more than {MOST_NODES}. Cause: a dense eigenvalue.")
    weight = torch.zeros(nodes, dtype=torch.float64)
    last = len(net.sizes)
    for layer, (place, (_, far)) in enumerate(zip(layer_slices(net), net.shapes.values(), strict=True), start=1):
        # An amplifier's input is one end more; the resistors behind it hang on its output, which is driven.
        weight[place] = net.share(layer) * (far + (layer < last))
    second = hessian(net, {name: g.double() for name, g in g_uS.items()})
    root = weight.rsqrt()
    return float(torch.linalg.eigvalsh(root.unsqueeze(1) * second * root)[0])


def inference_cost(net: Layered, g_uS: Conductances, found: Rest, bits: int = SETTLED_BITS) -> InferenceCost:
    """The estimate for the images of ``found``, averaged. Amplifiers, converters and diodes are not in it."""
    power = float(resistor_power_uW(net, g_uS, found.states, found.given).sum(1).double().mean())
    tau = LINE_FF.value * (1e-15 / (slowest_rate(net, g_uS) * 1e-6))
    settling = tau * math.log(2.0 ** (bits + 1))
    return InferenceCost(power, tau, settling, settling * (power * 1e-6), bits)


__all__ = ["LINE_FF", "InferenceCost", "inference_cost", "slowest_rate"]
