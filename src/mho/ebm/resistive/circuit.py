"""Any small circuit of resistors and diodes: its operating point by Newton's method, with limited junctions.

For circuits of tens of nodes, in float64: the comparison with a circuit simulator, and circuits that are no layers.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch
from torch import Tensor

from mho.ebm.relax import RelaxationError
from mho.ebm.resistive.diodes import Shockley
from mho.errors import InputError

GROUND = 0


class Junction(NamedTuple):
    """A diode between two nodes (``Shockley.bias_V`` plays no part here: add a driven node instead)."""

    anode: int
    cathode: int
    law: Shockley


@final
@dataclass(frozen=True, kw_only=True)
class Circuit:
    """Nodes 1 ... ``nodes`` and the ground 0; ``resistors``: (a, b, uS); ``driven``: nodes held by voltage sources.

    Raises :class:`InputError` for a node that does not exist, a conductance that is negative or not finite, a
    node driven twice, and floating nodes: those without a path of resistors or diodes to the ground or a source.
    """

    nodes: int
    resistors: tuple[tuple[int, int, float], ...]
    driven: tuple[int, ...]
    diodes: tuple[Junction, ...] = field(default=())

    def __post_init__(self) -> None:
        pairs = [(a, b) for a, b, _ in self.resistors] + [(d.anode, d.cathode) for d in self.diodes]
        wrong = sorted({n for pair in pairs for n in pair if not GROUND <= n <= self.nodes})
        if wrong or len(set(self.driven)) != len(self.driven) or any(not 1 <= n <= self.nodes for n in self.driven):
            raise InputError(
                f"Circuit: nodes 1 to {self.nodes} and ground 0; unknown {wrong}, driven {list(self.driven)}. Fix: "
                "number nodes from 1, drive each once and not the ground."
            )
        for a, b, g in self.resistors:
            if not 0.0 <= g < math.inf:
                raise InputError(
                    f"Circuit: conductance {g!r} uS between nodes {a} and {b}. Cause: a resistor's is finite and not "
                    "negative. Fix: 0 for an open circuit."
                )
        joined = [(a, b) for a, b, g in self.resistors if g > 0.0] + [(d.anode, d.cathode) for d in self.diodes]
        floating = sorted(set(range(1, self.nodes + 1)) - _reached({GROUND, *self.driven}, joined))
        if floating:
            raise InputError(
                f"Circuit: nodes {floating} float: no resistor or diode leads from them to the ground or to a source, "
                "so that no voltage is theirs. Fix: join them with a conductance above 0 uS."
            )


class OperatingPoint(NamedTuple):
    """``voltages`` [batch, nodes]; ``residual`` [batch, nodes]: current left over as a share of the absolute currents
    at a node (0 at driven nodes); ``steps``: Newton steps taken."""

    voltages: Tensor
    residual: Tensor
    steps: int


def operating_point(
    circuit: Circuit,
    inputs_V: Tensor,
    injected_uA: Tensor | None = None,
    *,
    tolerance: float = 1e-9,
    most_steps: int = 200,
) -> OperatingPoint:
    """Voltages at rest for driven nodes at ``inputs_V`` [batch, len(driven)], float64.

    ``injected_uA`` [batch, nodes]: currents into nodes. Each step replaces every diode by its tangent at a junction
    voltage and solves the linear circuit; a junction that opens moves its tangent by the logarithm of what the
    solution asks for (Nagel 1975), so that no exponential overflows. It ends when Kirchhoff's current law holds to
    ``tolerance`` at every node. Raises :class:`InputError` for bad inputs, :class:`RelaxationError` with the node and
    the numbers after ``most_steps``.
    """
    if inputs_V.dim() != 2 or inputs_V.shape[1] != len(circuit.driven) or not bool(torch.isfinite(inputs_V).all()):
        raise InputError(
            f"operating_point: inputs_V is {list(inputs_V.shape)}, needs finite volts [batch, {len(circuit.driven)}]."
        )
    given = inputs_V.double()
    currents = _injected(circuit, given, injected_uA)
    parts = _Parts.of(circuit)
    driven = torch.tensor(circuit.driven, dtype=torch.long)
    free = torch.tensor([n for n in range(1, circuit.nodes + 1) if n not in circuit.driven], dtype=torch.long)
    v = given.new_zeros(len(given), circuit.nodes + 1)
    v[:, driven] = given
    junction = given.new_zeros(len(given), len(circuit.diodes))
    left = torch.full_like(v[:, 1:], math.inf)
    for step in range(1, most_steps + 1):
        slope, offset = parts.tangents(junction)
        v = _linear(parts, slope, offset, v, currents, free)
        wanted = v[:, parts.anode] - v[:, parts.cathode]
        settled = bool(((wanted - junction).abs() <= 1e-3 * parts.unit).all())
        junction = parts.limited(wanted, junction)
        left = parts.left_over(v, wanted, currents, free)
        if settled and bool((left <= tolerance).all()):
            return OperatingPoint(v[:, 1:], left, step)
    worst = int(left.amax(0).nan_to_num(math.inf).argmax())
    raise RelaxationError(
        f"operating_point: after {most_steps} Newton steps node {worst + 1} has {float(left.amax()):.3g} of its "
        f"currents left over, wanted {tolerance:.3g}; inputs reach {float(given.abs().max()):.3g} V. Fix: more "
        "steps, a larger tolerance, a larger saturation current, or smaller inputs."
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """A circuit's elements as tensors."""

    nodal: Tensor
    across: Tensor
    anode: Tensor
    cathode: Tensor
    saturation: Tensor
    unit: Tensor

    @staticmethod
    def of(circuit: Circuit) -> "_Parts":
        size = circuit.nodes + 1
        nodal, across = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        for a, b, g in circuit.resistors:
            if a != b:
                across[a, b] += g
                across[b, a] += g
        nodal = torch.diag(across.sum(1)) - across
        laws = [d.law for d in circuit.diodes]
        return _Parts(
            nodal=nodal,
            across=across,
            anode=torch.tensor([d.anode for d in circuit.diodes], dtype=torch.long),
            cathode=torch.tensor([d.cathode for d in circuit.diodes], dtype=torch.long),
            saturation=torch.tensor([law.saturation_uA for law in laws], dtype=torch.float64),
            unit=torch.tensor([law.unit_V for law in laws], dtype=torch.float64),
        )

    def tangents(self, junction: Tensor) -> tuple[Tensor, Tensor]:
        """Slope (uS) and the current at 0 V (uA) of each diode's tangent."""
        growth = torch.exp(junction / self.unit)
        slope = self.saturation / self.unit * growth
        return slope, self.saturation * (growth - 1.0) - slope * junction

    def limited(self, wanted: Tensor, old: Tensor) -> Tensor:
        """The next junction voltages: those of the solution, but no more than a logarithmic step upwards."""
        critical = self.unit * torch.log(self.unit / (math.sqrt(2.0) * self.saturation))
        jump = wanted - old
        start = torch.where(old > 0, old, torch.zeros_like(old))
        above = (wanted - start) / self.unit
        slow = torch.where(
            old > 0, old + self.unit * torch.log1p(above.clamp_min(0.0)), self.unit * torch.log1p(above.clamp_min(0.0))
        )
        return torch.where((wanted > critical) & (jump > 2.0 * self.unit), slow, wanted)

    def left_over(self, v: Tensor, across_diodes: Tensor, injected: Tensor, free: Tensor) -> Tensor:
        """Current left over at each node as a share of the absolute currents there, [batch, nodes]."""
        branches = self.across * (v.unsqueeze(1) - v.unsqueeze(2))
        into, total = branches.sum(2) + injected, branches.abs().sum(2) + injected.abs()
        # Beyond 700 units no double holds the exponential; such a point is far from rest and reported as infinite.
        current = self.saturation * torch.expm1((across_diodes / self.unit).clamp_max(700.0))
        into = into.index_add(1, self.cathode, current).index_add(1, self.anode, -current)
        total = total.index_add(1, self.cathode, current.abs()).index_add(1, self.anode, current.abs())
        share = torch.zeros_like(v)
        share[:, free] = into[:, free].abs() / total[:, free].clamp_min(1e-300)
        return share[:, 1:]


def _linear(parts: _Parts, slope: Tensor, offset: Tensor, v: Tensor, injected: Tensor, free: Tensor) -> Tensor:
    """Voltages of the circuit with diodes replaced by their tangents."""
    batch = len(v)
    nodal = parts.nodal.expand(batch, -1, -1).clone()
    right = injected.clone()
    for number, (a, c) in enumerate(zip(parts.anode.tolist(), parts.cathode.tolist(), strict=True)):
        g, i = slope[:, number], offset[:, number]
        nodal[:, a, a] += g
        nodal[:, c, c] += g
        nodal[:, a, c] -= g
        nodal[:, c, a] -= g
        right[:, a] -= i
        right[:, c] += i
    held = torch.ones(v.shape[1], dtype=torch.bool)
    held[free] = False
    moved = right[:, free] - (nodal[:, free][:, :, held] @ v[:, held].unsqueeze(2)).squeeze(2)
    found = v.clone()
    found[:, free] = torch.linalg.solve(nodal[:, free][:, :, free], moved.unsqueeze(2)).squeeze(2)
    return found


def _injected(circuit: Circuit, given: Tensor, injected_uA: Tensor | None) -> Tensor:
    currents = given.new_zeros(len(given), circuit.nodes + 1)
    if injected_uA is None:
        return currents
    if injected_uA.shape != (len(given), circuit.nodes) or not bool(torch.isfinite(injected_uA).all()):
        raise InputError(
            f"operating_point: injected_uA is {list(injected_uA.shape)}, needs finite uA {[len(given), circuit.nodes]}."
        )
    currents[:, 1:] = injected_uA.double()
    return currents


def _reached(held: set[int], links: list[tuple[int, int]]) -> set[int]:
    reached, before = set(held), 0
    while len(reached) > before:
        before = len(reached)
        for a, b in links:
            if a in reached or b in reached:
                reached |= {a, b}
    return reached


__all__ = ["Circuit", "Junction", "OperatingPoint", "operating_point"]
