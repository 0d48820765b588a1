"""What a deep resistive network is: layers of nodes, resistors between them, diodes on the hidden ones.

Inputs are voltage sources, each doubled (+x and -x), because a conductance has no sign. Every node of a layer is
joined by a resistor to every node of the layer before and to two rails, its bias: +-rail_V in the first layer,
+-inner_rail_V after it. Hidden nodes of even number carry a diode that keeps them above zero, odd ones below, so that
both signs reach the next layer. Between layers stands a bidirectional amplifier a node (Kendall et al. 2020,
arXiv:2006.01981).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from mho.ebm.resistive.diodes import Shockley
from mho.errors import InputError

Conductances = Mapping[str, Tensor]
"""``"layer1"`` ... : uS, [nodes of the layer, nodes before + 2]; the last two columns are the rails."""
States = tuple[Tensor, ...]
"""Voltages of the hidden layers and of the outputs, [batch, nodes] each, V."""


@final
@dataclass(frozen=True, kw_only=True)
class Layered:
    """A deep resistive network's plan, without its conductances.

    ``voltage_gain`` A: an amplifier gives the layer after it A times the voltage of its node; ``current_gain`` b: its
    node carries b times the current that the layer after draws (``None``: 1/A, as in Kendall et al.). With b = A
    it is an ideal transformer; any b > 0 leaves the network the minimiser of a convex function, with layer l
    counted (b/A)^(l-1) times. ``diode=None``: ideal diodes, v >= 0 or v <= 0. Voltages in V, conductances in uS,
    currents in uA, power in uW.

    Raises :class:`InputError` for sizes, gains or a rail that make no network.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    voltage_gain: float = 4.0
    current_gain: float | None = None
    rail_V: float = 0.2
    inner_rail_V: float = 0.005
    diode: Shockley | None = None

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, *self.hidden, 1) < 1:
            raise InputError(
                f"Layered: inputs={self.inputs}, hidden={self.hidden}, outputs={self.outputs}: each needs a node."
            )
        back = 1.0 if self.current_gain is None else self.current_gain
        for name, value in (("voltage_gain", self.voltage_gain), ("current_gain", back)):
            if not 0.0 < value < math.inf:
                raise InputError(
                    f"Layered: {name} = {value!r} must be above 0 and finite. Cause: the power is a minimum only if "
                    "amplifiers act both ways with one sign. Fix: voltage_gain=4, current_gain=None (1/4)."
                )
        for name, value in (("rail_V", self.rail_V), ("inner_rail_V", self.inner_rail_V)):
            if not 0.0 <= value < math.inf:
                raise InputError(f"Layered: {name} = {value!r} must be finite and at least 0. Fix: volts, e.g. 0.005.")

    @property
    def back_gain(self) -> float:
        """``current_gain``, or what stands for it."""
        return 1.0 / self.voltage_gain if self.current_gain is None else self.current_gain

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of the layers that are solved for: hidden ones, outputs."""
        return (*self.hidden, self.outputs)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of every conductance matrix by name."""
        before = (2 * self.inputs, *self.hidden)
        return {f"layer{k}": (n, m + 2) for k, (n, m) in enumerate(zip(self.sizes, before, strict=True), start=1)}

    def rail_before(self, layer: int) -> float:
        """Voltage of the rails of layer ``layer``: as large as what the other resistors of the layer see."""
        return self.rail_V if layer == 1 else self.inner_rail_V

    def share(self, layer: int) -> float:
        """How much layer ``layer`` (from 1) counts in the energy: (b/A)^(layer-1)."""
        return (self.back_gain / self.voltage_gain) ** (layer - 1)

    def signs(self, layer: int) -> Tensor | None:
        """[nodes] +1 where the diode keeps the node above zero, -1 below; ``None`` for outputs, which have none."""
        if layer == len(self.sizes):
            return None
        return 1.0 - 2.0 * (torch.arange(self.sizes[layer - 1]) % 2)


class Drive(NamedTuple):
    """What layer 1 gets from the sources, which never changes while the network relaxes.

    ``sources`` [batch, 2 inputs]: +x, -x. ``current`` [batch, nodes]: sum of g times voltage; ``scale``: the same of
    absolute voltages.
    """

    sources: Tensor
    current: Tensor
    scale: Tensor


def check_conductances(net: Layered, g_uS: Conductances) -> None:
    """Refuse conductances that are no network of ``net``: :class:`InputError` with names and numbers.

    Refused: missing or unknown names, other shapes, NaN, negative values, and floating nodes (all of their resistors
    open): no law gives those a voltage.
    """
    wanted = net.shapes
    if set(g_uS) != set(wanted):
        raise InputError(f"resistive network: conductances {sorted(g_uS)} given, {sorted(wanted)} needed.")
    total_after: Tensor | None = None
    for layer in range(len(wanted), 0, -1):
        name = f"layer{layer}"
        g = g_uS[name].detach()
        if tuple(g.shape) != wanted[name]:
            raise InputError(f"{name}: conductances of shape {tuple(g.shape)}, the network has {wanted[name]}.")
        lowest = float(g.min())
        if not math.isfinite(float(g.sum())):
            raise InputError(f"{name}: a conductance is NaN or infinite. Fix: load the last good checkpoint.")
        if lowest < 0.0:
            node, source = divmod(int(g.argmin()), g.shape[1])
            raise InputError(
                f"{name}: conductance {lowest:.4g} uS between node {node} and node {source} of the layer before is "
                f"negative ({int((g < 0).sum())} of {g.numel()} are). Cause: a resistor dissipates; with a negative "
                "one the power has no minimum. Fix: project onto [g_min_uS, g_max_uS] after each update."
            )
        total = g.sum(1) if total_after is None else g.sum(1) + total_after
        open_nodes = torch.nonzero(total == 0).flatten().tolist()
        if open_nodes:
            raise InputError(
                f"{name}: {len(open_nodes)} of {len(total)} nodes float, the first is {open_nodes[0]}: all of its "
                "conductances are 0 uS, so that no voltage is its own. Fix: g_min_uS above 0, or leave the node out."
            )
        total_after = g[:, :-2].sum(0)


def check_inputs(net: Layered, x: Tensor) -> None:
    """Refuse inputs that are not finite [batch, inputs]: :class:`InputError`."""
    if x.dim() != 2 or x.shape[1] != net.inputs or not x.is_floating_point() or len(x) == 0:
        raise InputError(f"resistive network: inputs are {x.dtype} {list(x.shape)}. Fix: floats [n, {net.inputs}], V.")
    if not bool(torch.isfinite(x).all()):
        raise InputError("resistive network: an input voltage is NaN or infinite. Fix: mend the data.")


def drive(net: Layered, g_uS: Conductances, x: Tensor) -> Drive:
    """The part of layer 1 that the inputs ``x`` [batch, inputs] (V) fix."""
    g = g_uS["layer1"]
    half = g[:, : net.inputs], g[:, net.inputs : -2]
    rails = g[:, -2:]
    current = x @ (half[0] - half[1]).t() + (rails[:, 0] - rails[:, 1]) * net.rail_V
    scale = x.abs() @ (half[0] + half[1]).t() + rails.sum(1) * net.rail_V
    return Drive(torch.cat([x, -x], 1), current, scale)


def driving(net: Layered, layer: int, states: States, given: Drive) -> Tensor:
    """Voltages on the far ends of the resistors of ``layer``, [batch, nodes before + 2], rails last."""
    before = given.sources if layer == 1 else net.voltage_gain * states[layer - 2]
    rail = net.rail_before(layer)
    rails = before.new_tensor([rail, -rail]).expand(len(before), 2)
    return torch.cat([before, rails], 1)


__all__ = ["Conductances", "Drive", "Layered", "States", "check_conductances", "check_inputs", "drive", "driving"]
