"""The state of rest of a layered network, a layer at a time, and the certificate that it is one.

With the other layers held, the energy of a layer is a sum over its nodes of a parabola (and a diode's content), so a
layer is solved exactly and at once: v = clip(I / G) for ideal diodes (Scellier 2024, arXiv:2402.11674), one scalar
equation a node for Shockley's. The energy is convex and falls with every layer, until Kirchhoff's current law holds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.ebm.relax import RelaxationError
from mho.ebm.resistive.diodes import into_node_uA, node_voltage
from mho.ebm.resistive.network import (
    Conductances,
    Drive,
    Layered,
    States,
    check_conductances,
    check_inputs,
    drive,
    driving,
)
from mho.errors import InputError


@dataclass(frozen=True, eq=False)
class Rest:
    """A state of rest: ``states``, the drive they belong to, how many ``sweeps`` it took, and the largest relative
    Kirchhoff residual that the last sweep found and mended; ``residuals``: that of each sweep."""

    states: States
    given: Drive
    residual: float
    sweeps: int
    residuals: tuple[float, ...]

    @property
    def outputs(self) -> Tensor:
        """Voltages of the output nodes, [batch, outputs]."""
        return self.states[-1]


@dataclass(frozen=True)
class Solver:
    """When to stop: the largest current that is left over at a node, as a share of the currents that meet there (the
    sum of g (|v_far| + |v|)), is at most ``tolerance``; an error after ``most_sweeps``.

    A tolerance below the rounding of the dtype is refused.
    """

    tolerance: float = 1e-6
    most_sweeps: int = 500

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0 or self.most_sweeps < 1:
            raise InputError(
                f"Solver: tolerance = {self.tolerance!r}, most_sweeps = {self.most_sweeps!r}. Fix: a tolerance between "
                "0 and 1, one sweep or more."
            )


def rest(
    net: Layered,
    g_uS: Conductances,
    x: Tensor,
    *,
    injected_uA: States | Tensor | None = None,
    start: Rest | None = None,
    solver: Solver | None = None,
    checked: bool = False,
) -> Rest:
    """The state of rest at inputs ``x`` [batch, inputs] (V).

    ``injected_uA``: currents into the outputs [batch, outputs], or into every layer (a tuple as ``States``). ``start``:
    a state of rest of the same inputs and conductances to begin with (its drive is used again). ``checked``: leave out
    the checks of ``g_uS`` and ``x``.

    Raises :class:`InputError` for what is no network (see :func:`~mho.ebm.resistive.network.check_conductances`), and
    :class:`RelaxationError` with the residual where the sweeps do not suffice.
    """
    found: Rest | None = None
    for step in sweeps(net, g_uS, x, injected_uA=injected_uA, start=start, solver=solver or Solver(), checked=checked):
        found = step
    assert found is not None
    return found


def sweeps(
    net: Layered,
    g_uS: Conductances,
    x: Tensor,
    *,
    solver: Solver,
    injected_uA: States | Tensor | None = None,
    start: Rest | None = None,
    checked: bool = False,
) -> Iterator[Rest]:
    """The way to rest: the state after each sweep, the last one at rest; arguments and errors of :func:`rest`."""
    if not checked:
        check_conductances(net, g_uS)
        check_inputs(net, x)
    rounding = 2.0 * torch.finfo(x.dtype).eps
    if solver.tolerance < rounding:
        raise InputError(
            f"Solver: tolerance = {solver.tolerance:.3g} is below what {x.dtype} can resolve ({rounding:.1g}). Fix: "
            "float64, or a larger tolerance."
        )
    given = drive(net, g_uS, x) if start is None else start.given
    layers = _layers(net, g_uS, injected_uA)
    states = list(start.states) if start is not None else [x.new_zeros(len(x), size) for size in net.sizes]
    history: list[float] = []
    for sweep in range(1, solver.most_sweeps + 1):
        largest = 0.0
        for layer in layers:
            largest = max(largest, layer.relax(states, given))
            if math.isnan(largest):
                break
        history.append(largest)
        yield Rest(tuple(states), given, largest, sweep, tuple(history))
        if largest <= solver.tolerance:
            return
        if not math.isfinite(largest):
            break
    raise RelaxationError(
        f"resistive network: Kirchhoff's current law is met to {history[-1]:.3g} of a node's currents after "
        f"{len(history)} sweeps, wanted {solver.tolerance:.3g} (first sweep: {history[0]:.3g}). Fix: more sweeps, a "
        f"larger tolerance, or a smaller current_gain * voltage_gain (now {net.back_gain * net.voltage_gain:.3g}), "
        "which couples the layers."
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer with all that meets its nodes."""

    net: Layered
    index: int
    g: Tensor | None
    rails: Tensor
    rails_scale: Tensor
    g_after: Tensor | None
    total: Tensor
    signs: Tensor | None
    injected: Tensor | None

    def current(self, states: list[Tensor], given: Drive) -> Tensor:
        """Sum of g times the far voltage, and what is injected, [batch, nodes]."""
        if self.g is None:
            found = given.current
        else:
            found = torch.addmm(self.rails, states[self.index - 1], self.g.t(), alpha=self.net.voltage_gain)
        if self.g_after is not None:
            found = torch.addmm(found, states[self.index + 1], self.g_after, alpha=self.net.back_gain)
        return found if self.injected is None else found + self.injected

    def scale(self, states: list[Tensor], given: Drive) -> Tensor:
        """An upper bound of the absolute currents at each node."""
        found = self.total * states[self.index].abs()
        if self.g is None:
            found = found + given.scale
        else:
            found = found + self.net.voltage_gain * (states[self.index - 1].abs() @ self.g.t()) + self.rails_scale
        return found if self.injected is None else found + self.injected.abs()

    def relax(self, states: list[Tensor], given: Drive) -> float:
        """Set this layer to its minimum; returns the largest relative current that was left over before."""
        old = states[self.index]
        linear = self.current(states, given) / self.total
        if self.signs is None:
            new = linear
            left = self.total * (new - old)
        elif self.net.diode is None:
            new = self.signs * (self.signs * linear).clamp_min(0.0)
            left = self.total * (new - old)  # at the bound the diode carries the rest
        else:
            new = node_voltage(linear, self.total, self.signs, self.net.diode)
            left = self.total * (linear - old) + into_node_uA(self.net.diode, old, self.signs)
        size = self.scale(states, given)
        states[self.index] = new
        worst = (left.abs() / size.clamp_min(torch.finfo(size.dtype).tiny)).amax()
        return float(worst)


def _layers(net: Layered, g_uS: Conductances, injected: States | Tensor | None) -> list[_Layer]:
    count = len(net.sizes)
    currents: list[Tensor | None] = [None] * count
    if isinstance(injected, Tensor):
        currents[-1] = injected
    elif injected is not None:
        currents = list(injected)
    found = []
    for index in range(count):
        g = g_uS[f"layer{index + 1}"]
        after = g_uS[f"layer{index + 2}"][:, :-2] if index + 1 < count else None
        total = g.sum(1)
        if after is not None:
            total = total + (net.back_gain * net.voltage_gain) * after.sum(0)
        signs = net.signs(index + 1)
        found.append(
            _Layer(
                net=net,
                index=index,
                g=None if index == 0 else g[:, :-2],
                rails=(g[:, -2] - g[:, -1]) * net.rail_before(index + 1),
                rails_scale=(g[:, -2] + g[:, -1]) * net.rail_before(index + 1),
                g_after=after,
                total=total,
                signs=None if signs is None else signs.to(total),
                injected=currents[index],
            )
        )
    return found


def kirchhoff(net: Layered, g_uS: Conductances, found: Rest, injected_uA: Tensor | None = None) -> Tensor:
    """Certificate: current left over at each node as a share of the sum of absolute currents there, [batch, all nodes].

    From the branches themselves, one by one, not from the sums that the solver uses. An ideal diode takes what pushes
    its node against it. Memory: batch times conductances of one layer.
    """
    shares = []
    states = found.states
    for layer in range(1, len(states) + 1):
        v = states[layer - 1]
        branches = g_uS[f"layer{layer}"] * (driving(net, layer, states, found.given).unsqueeze(1) - v.unsqueeze(2))
        left, total = branches.sum(2), branches.abs().sum(2)
        if layer < len(states):
            g_after = g_uS[f"layer{layer + 1}"][:, :-2].t()
            drawn = net.back_gain * g_after * (states[layer].unsqueeze(1) - net.voltage_gain * v.unsqueeze(2))
            left, total = left + drawn.sum(2), total + drawn.abs().sum(2)
        elif injected_uA is not None:
            left, total = left + injected_uA, total + injected_uA.abs()
        signs = net.signs(layer)
        if signs is not None:
            s = signs.to(v)
            if net.diode is None:
                held = (v == 0) & (s * left <= 0)
                left = torch.where(held, 0.0, left)
            else:
                current = into_node_uA(net.diode, v, s)
                left, total = left + current, total + current.abs()
        shares.append(left.abs() / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.cat(shares, 1)


__all__ = ["Rest", "Solver", "kirchhoff", "rest", "sweeps"]
