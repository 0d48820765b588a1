"""A network with its input clamped, on one chip: the system that relaxes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from mho.ebm.conductances import Cells, quantized_states
from mho.ebm.hopfield.activations import Clip
from mho.ebm.hopfield.costs import Cost, CrossEntropy, MeanSquares
from mho.ebm.hopfield.couplings import Unit
from mho.ebm.hopfield.layers import Layer
from mho.ebm.hopfield.network import HopfieldNet, Link, over_units
from mho.ebm.relax import Relaxation, Relaxed, States, averaged, relax
from mho.errors import InputError


@final
@dataclass(frozen=True)
class Dynamics:
    """How states move on hardware.

    ``read_noise``: every drive and pull is read with the chip's read noise, afresh each sweep. ``bits``: states are
    converted with so many bits on the range of their activation, and the input on ``input_range`` (it must lie inside).
    ``temperature``: kT in units of the energy, of all layers or one each (:func:`mho.ebm.thermal_temperatures`); a unit
    then moves to (1 - step) s + step c + sqrt(T / h (1 - (1 - step)^2)) n, with c where its block rests and h the
    curvature of the energy there (1, and 1 + nudge at an output nudged by squared errors): inside the bounds its law of
    rest is exactly exp(-E / T) of that block. ``settle`` sweeps, then the mean of ``reads`` sweeps.
    """

    read_noise: bool = True
    bits: int | None = None
    temperature: float | tuple[float, ...] = 0.0
    step: float = 1.0
    settle: int = 12
    reads: int = 4
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not all(0 <= t < float("inf") for t in self.temperatures):
            raise InputError(f"Dynamics: temperature = {self.temperature}: finite and not negative (0: none).")
        if not self.input_range[0] < self.input_range[1]:
            raise InputError(f"Dynamics: input_range = {self.input_range}. Fix: low below high.")
        if not 0 < self.step <= 1:
            raise InputError(f"Dynamics: step = {self.step}: above 0, at most 1 (a whole block solve).")
        if self.bits is not None and self.bits < 1:
            raise InputError(f"Dynamics: bits = {self.bits}. Fix: at least 1, or None.")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """One number, or one a layer."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def hot(self) -> bool:
        """Whether any layer has a temperature."""
        return any(t > 0 for t in self.temperatures)

    def temperature_of(self, k: int) -> float:
        """kT of layer ``k`` (from 0)."""
        return self.temperatures[k if len(self.temperatures) > 1 else 0]


@final
@dataclass(frozen=True, eq=False)
class Clamped:
    """A :class:`~mho.ebm.relax.System`. Made by :func:`clamp`; ``nudged`` gives its copy under a nudge.

    ``constants``: drive of the input and bias of each layer, computed once; ``variances``: what one read of the
    input's drive adds.
    """

    layers: tuple[Layer, ...]
    links: tuple[Link, ...]
    incoming: tuple[tuple[Link, ...], ...]
    outgoing: tuple[tuple[Link, ...], ...]
    cells: Mapping[str, Cells]
    values: Mapping[str, Tensor]
    x: Tensor
    start: States
    constants: tuple[Tensor, ...]
    variances: tuple[Tensor | None, ...]
    cost: Cost
    dynamics: Dynamics | None = None
    generator: torch.Generator | None = None
    target: Tensor | None = None
    nudge: complex = 0.0

    def nudged(self, target: Tensor, nudge: complex) -> "Clamped":
        """The same with ``nudge`` times the cost of ``target`` added to the energy."""
        self.cost.check(self.layers[-1].activation, nudge, tuple(self.start[-1].shape[1:]))
        if nudge.imag:
            self._refuse_complex()
        return replace(self, target=target, nudge=nudge if nudge.imag else nudge.real)

    @property
    def noisy(self) -> bool:
        """Whether a sweep draws random numbers."""
        how = self.dynamics
        return how is not None and (how.hot or (how.read_noise and self._reads_noisily()))

    def sweep(self, states: States) -> None:
        """Every layer once: from the input on in the free phase, from the output back under a nudge."""
        count = len(self.layers)
        for k in range(count) if self.nudge == 0 else range(count - 1, -1, -1):
            states[k] = self._solve(k, states, self.dynamics)

    def residual(self, states: States) -> Tensor:
        """Largest |s_k - solve of layer k| of the noiseless dynamics."""
        worst = [(self._solve(k, states, None) - states[k]).abs().amax() for k in range(len(self.layers))]
        return torch.stack(worst).amax()

    def run(self, states: States, how: Relaxation, what: str) -> Relaxed:
        """Relax; with noise or converters in the dynamics, the mean of reads instead of a certified state."""
        if self.dynamics is None:
            return relax(self, states, how, what=what)
        settle, reads = self.dynamics.settle, self.dynamics.reads
        return averaged(self, states, settle=settle, reads=reads, what=what, limit=how.limit)

    def preactivation(self, k: int, states: States) -> Tensor:
        """Drives, pulls and bias of layer ``k`` (from 0): -dE/ds without the layer's own potential."""
        pre = self.constants[k]
        for coupling, source, _ in self.incoming[k]:
            if isinstance(coupling, Unit):
                pre = pre + states[source - 1]
            else:
                pre = coupling.add_drive(pre, states[source - 1], self.values[coupling.name])
        for coupling, _, target in self.outgoing[k]:
            if isinstance(coupling, Unit):
                pre = pre + states[target - 1]
            else:
                pre = coupling.add_pull(pre, states[target - 1], states[k], self.values[coupling.name])
        # Activations write in place, and the constants must stay.
        return pre.clone() if pre is self.constants[k] else pre

    def _solve(self, k: int, states: States, how: Dynamics | None) -> Tensor:
        centre, stiffness = self.preactivation(k, states), 1.0
        if self.nudge != 0 and k == len(self.layers) - 1:
            assert self.target is not None
            centre, stiffness = self.cost.nudged(states[k], centre, self.target, self.nudge, self.values)
        if how is not None:
            centre = self._disturbed(centre, stiffness.real, k, states, how)
        activation = self.layers[k].activation
        s = activation.apply(centre)
        if how is None or how.bits is None:
            return s
        assert isinstance(activation, Clip)
        return quantized_states(s, how.bits, activation.low, activation.high)

    def _disturbed(self, centre: Tensor, stiffness: float, k: int, states: States, how: Dynamics) -> Tensor:
        """One step of the dynamics towards ``centre``, before the bounds: read noise of what drives it, and heat."""
        variance: Tensor | float | None = self._variance(k, states) if how.read_noise else None
        if variance is not None and stiffness != 1:
            variance = variance / stiffness**2
        temperature = how.temperature_of(k)
        if temperature > 0 or how.step < 1:
            heat = temperature / stiffness * (1 - (1 - how.step) ** 2)
            variance = heat if variance is None else variance * how.step**2 + heat
            centre = torch.lerp(states[k], centre, how.step)
        if variance is None or (isinstance(variance, float) and variance == 0):
            return centre
        normals = torch.empty_like(centre).normal_(generator=self.generator)
        sigma = variance.sqrt() if isinstance(variance, Tensor) else variance**0.5
        return normals.mul_(sigma).add_(centre)

    def _variance(self, k: int, states: States) -> Tensor | None:
        found = [] if self.variances[k] is None else [self.variances[k]]
        for coupling, source, _ in self.incoming[k]:
            if not isinstance(coupling, Unit) and self.cells[coupling.name].read_var is not None:
                found.append(coupling.drive_variance(states[source - 1], self.cells[coupling.name]))
        for coupling, _, target in self.outgoing[k]:
            if not isinstance(coupling, Unit) and self.cells[coupling.name].read_var is not None:
                found.append(coupling.pull_variance(states[target - 1], states[k], self.cells[coupling.name]))
        total: Tensor | None = None
        for variance in found:
            total = variance if total is None else total + variance  # type: ignore[operator]
        return total

    def _reads_noisily(self) -> bool:
        return any(cell.read_var is not None for cell in self.cells.values())

    def _refuse_complex(self) -> None:
        for number, layer in enumerate(self.layers):
            if not layer.activation.analytic:
                raise InputError(
                    f"layers.{number}: {type(layer.activation).__name__} is not analytic, so it has no complex states. "
                    "Way out: Sigmoid or Identity, or nudges on the real axis (centred; holomorphic with 2 points)."
                )
        for coupling, _, _ in self.links:
            if not coupling.analytic:
                raise InputError(f"{coupling.name}: max pooling is not analytic. Way out: average or soft pooling.")
        if self.dynamics is not None:
            raise InputError("holomorphic nudging: noise and converters act on real states. Way out: dynamics=None.")


def clamp(
    net: HopfieldNet,
    x: Tensor,
    *,
    cells: Mapping[str, Cells] | None = None,
    cost: Cost | None = None,
    dynamics: Dynamics | None = None,
    generator: torch.Generator | None = None,
) -> Clamped:
    """``net`` with ``x`` [batch, *input] held fixed, on the chip of ``cells`` (None: ideal hardware).

    ``cost``: by default the one that fits the network's readout. ``dynamics``: noise and converters (None: none).
    Raises :class:`InputError` for a wrong input, one beyond the range of its converter, a cost without its readout,
    bits on a layer without bounds, or temperatures for another number of layers.
    """
    net.check_input(x)
    chosen = cost if cost is not None else (MeanSquares() if net.readout is None else CrossEntropy())
    if chosen.needs_readout != (net.readout is not None):
        raise InputError(
            f"{type(chosen).__name__}: the network has {'no' if net.readout is None else 'a'} readout. Way out: "
            "HopfieldNet(readout=classes) with CrossEntropy, or neither."
        )
    if dynamics is not None:
        _check_dynamics(net, dynamics)
        if dynamics.bits is not None:
            x = quantized_states(_inside(x, dynamics.input_range), dynamics.bits, *dynamics.input_range)
    x = _fast(x)
    found = dict(cells) if cells is not None else {name: Cells(value) for name, value in net.values().items()}
    values = {name: _fast(cell.value) for name, cell in found.items()}
    start = [_fast(s) for s in net.initial(x)]
    numbers = range(1, len(net.described) + 1)
    from_input = [[link for link in net.links if link.target == k and link.source == 0] for k in numbers]
    noisy = dynamics is not None and dynamics.read_noise
    constants, variances = [], []
    for k, links in zip(numbers, from_input, strict=True):
        pre = over_units(values[f"layers.{k - 1}.bias"], start[k - 1]).expand_as(start[k - 1])
        variance: Tensor | None = None
        for coupling, _, _ in links:
            if isinstance(coupling, Unit):
                pre = pre + x
                continue
            pre = coupling.add_drive(pre, x, values[coupling.name])
            if noisy and found[coupling.name].read_var is not None:
                seen = coupling.drive_variance(x, found[coupling.name])
                variance = seen if variance is None else variance + seen
        constants.append(_fast(pre))
        variances.append(variance)
    return Clamped(
        layers=net.described,
        links=net.links,
        incoming=tuple(tuple(k for k in net.links if k.target == n and k.source > 0) for n in numbers),
        outgoing=tuple(tuple(k for k in net.links if k.source == n) for n in numbers),
        cells=found,
        values=values,
        x=x,
        start=start,
        constants=tuple(constants),
        variances=tuple(variances),
        cost=chosen,
        dynamics=dynamics,
        generator=generator,
    )


def _fast(value: Tensor) -> Tensor:
    """Maps and kernels in the layout in which convolutions are fast on CPUs; the numbers are the same."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def scores(system: Clamped, how: Relaxation) -> Tensor:
    """The answer of the free state of rest, [batch, classes]."""
    rest = system.run(system.start, how, "free phase")
    return system.cost.scores(rest.states[-1], system.values)


def _inside(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """``x``, if it lies inside the range of the input's converter but for rounding."""
    low, high = (float(v) for v in torch.aminmax(x))
    slack = 1e-5 * (bounds[1] - bounds[0])
    if low < bounds[0] - slack or high > bounds[1] + slack:
        raise InputError(
            f"clamp: inputs from {low:.4g} to {high:.4g} reach beyond {bounds}, the range of their converter. Way out: "
            "Dynamics(input_range=(low, high)) of all data, or bits=None."
        )
    return x


def _check_dynamics(net: HopfieldNet, dynamics: Dynamics) -> None:
    if len(dynamics.temperatures) not in (1, len(net.described)):
        raise InputError(
            f"Dynamics: {len(dynamics.temperatures)} temperatures for {len(net.described)} layers. Fix: one number, or "
            "one a layer."
        )
    for number, layer in enumerate(net.described):
        if dynamics.bits is not None and not isinstance(layer.activation, Clip):
            raise InputError(
                f"layers.{number}: {type(layer.activation).__name__} has no bounds to convert with {dynamics.bits} "
                "bits. Way out: Clip, or bits=None."
            )
        if (dynamics.hot or dynamics.step < 1) and not layer.activation.quadratic:
            raise InputError(
                f"layers.{number}: temperature and step need a quadratic potential, not "
                f"{type(layer.activation).__name__}. Way out: Clip or Identity."
            )
