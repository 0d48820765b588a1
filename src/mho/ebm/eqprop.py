"""Equilibrium propagation: gradients of a cost at rest from states at rest, by products of neighbours alone.

With F(theta, s, nudge) = E(theta, s) + nudge l(s) and s(nudge) its state of rest, dl(s(0))/dtheta is the derivative
of dF/dtheta(s(nudge)) with respect to the nudge at 0 (Scellier and Bengio 2017). Every variant here is a sum over
phases, gradient = sum_j weight_j dF/dtheta(s(nudge_j)), that is exact to some order in the nudge:

==============  ==========================================  ==========================
variant         phases (nudge: weight)                      error
==============  ==========================================  ==========================
positive        b: 1/b, 0: -1/b                             first order in b
negative        0: 1/b, -b: -1/b                            first order
centred         b: 1/(2b), -b: -1/(2b)                      second order (Laborieux 2021)
holomorphic     b e^(i phi_j): e^(-i phi_j) / (N b)         order N (Laborieux, Zenke 2022)
==============  ==========================================  ==========================
"""

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mho.ebm.conductances import Cells
from mho.ebm.hopfield.clamped import Clamped, Dynamics, clamp
from mho.ebm.hopfield.costs import Cost, CrossEntropy
from mho.ebm.hopfield.couplings import Unit
from mho.ebm.hopfield.network import HopfieldNet
from mho.ebm.relax import Relaxation, Relaxed, States
from mho.errors import InputError, nearest

Variant = Literal["centred", "positive", "negative", "holomorphic"]


class Phase(NamedTuple):
    """One relaxation at ``nudge``, and with which ``weight`` its local products count."""

    nudge: complex
    weight: complex


@dataclass(frozen=True)
class Nudging:
    """Which phases. ``strength``: the nudge b > 0; ``points``: of the holomorphic circle, an even number.

    Raises :class:`InputError` for other values.
    """

    variant: Variant = "centred"
    strength: float = 0.5
    points: int = 4

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InputError(f"Nudging: variant = {self.variant!r}. {nearest(self.variant, get_args(Variant))}")
        if not 0 < self.strength < math.inf:
            raise InputError(f"Nudging: strength = {self.strength}: positive and finite.")
        if self.points < 2 or self.points % 2:
            raise InputError(f"Nudging: points = {self.points}: an even number of at least 2.")

    def phases(self) -> tuple[Phase, ...]:
        """The phases of the table above. Of conjugate pairs only one is relaxed, with twice the weight."""
        b = self.strength
        if self.variant == "positive":
            return (Phase(b, 1 / b), Phase(0.0, -1 / b))
        if self.variant == "negative":
            return (Phase(0.0, 1 / b), Phase(-b, -1 / b))
        if self.variant == "centred" or self.points == 2:
            return (Phase(b, 0.5 / b), Phase(-b, -0.5 / b))
        half = self.points // 2
        found = [Phase(b, 1 / (self.points * b)), Phase(-b, -1 / (self.points * b))]
        for j in range(1, half):
            turn = cmath.exp(1j * math.pi * j / half)
            found.append(Phase(b * turn, 2 / (self.points * b * turn)))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class EqPropResult:
    """``gradients`` by parameter name, of the mean cost over the batch; ``loss``: that mean in the free state;
    ``correct``: how many examples the free state has right; ``steps``: sweeps of all phases together."""

    gradients: dict[str, Tensor]
    loss: Tensor
    correct: int
    free: Relaxed
    steps: int


@torch.no_grad()
def eqprop_gradient(
    net: HopfieldNet,
    x: Tensor,
    y: Tensor,
    *,
    nudging: Nudging | None = None,
    cost: Cost | None = None,
    free: Relaxation | None = None,
    nudged: Relaxation | None = None,
    cells: Mapping[str, Cells] | None = None,
    dynamics: Dynamics | None = None,
    generator: torch.Generator | None = None,
) -> EqPropResult:
    """Gradient of the mean cost at rest, from the states of two or more phases; autograd is not used.

    ``x`` [batch, *input], ``y`` [batch] class numbers. ``free`` and ``nudged``: how the phases relax (default:
    ``net.relaxation``); nudged phases start from the free state. ``cells``: what a chip holds, from
    :func:`mho.ebm.program_cells`; the gradient then is that of the chip, to be applied to the wanted parameters.
    ``dynamics``: noise and converters; each phase is then the mean of its reads, drawn from ``generator``.

    Raises :class:`~mho.ebm.relax.RelaxationError` where a phase finds no rest, :class:`InputError` where the network
    does not allow the variant (complex states on clipped units or max pooling).
    """
    plan = (nudging or Nudging()).phases()
    first, second = free or net.relaxation, nudged or free or net.relaxation
    system = clamp(net, x, cells=cells, cost=cost, dynamics=dynamics, generator=generator)
    kept = system.run(system.start, first, "free phase")
    found: list[tuple[Phase, States]] = []
    steps = kept.steps
    for phase in plan:
        if phase.nudge == 0:
            found.append((phase, kept.states))
            continue
        part = system.nudged(y, phase.nudge)
        start = [s + 0j for s in kept.states] if phase.nudge.imag else kept.states
        rest = part.run(start, second, f"nudged phase ({phase.nudge:.3g})")
        steps += rest.steps
        found.append((phase, rest.states))
    last = kept.states[-1]
    return EqPropResult(
        gradients=local_gradients(system, found, y),
        loss=system.cost.loss(last, y, system.values).mean(),
        correct=int((system.cost.scores(last, system.values).argmax(1) == y).sum()),
        free=kept,
        steps=steps,
    )


def local_gradients(system: Clamped, phases: list[tuple[Phase, States]], y: Tensor) -> dict[str, Tensor]:
    """sum_j weight_j dF/dtheta of the phases' states, mean over the batch: products of the two ends of each cell."""
    batch = len(system.x)
    summed = [_sum(phase.weight * states[k] for phase, states in phases) for k in range(len(system.layers))]
    found: dict[str, Tensor] = {}
    for k, total in enumerate(summed):
        axes = [d for d in range(total.dim()) if d != 1]
        found[f"layers.{k}.bias"] = total.sum(axes).div_(-batch)
    for coupling, source, target in system.links:
        if isinstance(coupling, Unit):
            continue
        w = system.values[coupling.name]
        if source == 0:  # the same input in all phases: one product
            grad = coupling.gradient(summed[target - 1], system.x, w)
        else:
            grad = _sum(
                coupling.gradient(phase.weight * states[target - 1], states[source - 1], w) for phase, states in phases
            )
        found[coupling.name] = grad.div_(-batch)
    if isinstance(system.cost, CrossEntropy):
        _readout(system, phases, y, found)
    return found


def _readout(system: Clamped, phases: list[tuple[Phase, States]], y: Tensor, found: dict[str, Tensor]) -> None:
    """dF/dR = nudge dl/dR; weight_j nudge_j of the free phase is 0, so a one-sided rule uses its nudged state."""
    weight = bias = 0.0
    cost = system.cost
    assert isinstance(cost, CrossEntropy)
    for phase, states in phases:
        factor = phase.weight * phase.nudge
        if factor == 0:
            continue
        s = states[-1].flatten(1)
        error = cost.error(states[-1], y, system.values)
        weight = weight + (factor * (error.t() @ s)).real
        bias = bias + (factor * error.sum(0)).real
    found["readout.weight"] = weight / -len(y)
    found["readout.bias"] = bias / -len(y)


def _sum(parts) -> Tensor:  # type: ignore[no-untyped-def]
    """Real part of a sum (conjugate phases cancel the imaginary one)."""
    total: Tensor | None = None
    for part in parts:
        real = part.real if part.is_complex() else part
        total = real if total is None else total + real
    assert total is not None
    return total


__all__ = ["EqPropResult", "Nudging", "Phase", "Variant", "eqprop_gradient", "local_gradients"]
