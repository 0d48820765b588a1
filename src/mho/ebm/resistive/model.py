"""A resistive network as a torch module: its backward pass is equilibrium propagation, so that any trainer serves.

Parameters are w in [-1, 1], one a resistor, with g = g_min + (w + 1)/2 (g_max - g_min): what a cell's optimiser moves.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from mho.ebm.resistive.chips import conductances_uS, on_chip
from mho.ebm.resistive.learning import Variant, ep_gradients
from mho.ebm.resistive.network import Conductances, Layered
from mho.ebm.resistive.reads import read_currents_uA
from mho.ebm.resistive.solve import Rest, Solver, rest
from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.physics.converters import quantize
from mho.rng import derive_seed, stream


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How :class:`ResistiveNetwork` learns.

    ``nudge``: how far a whole error (a slope of 1 / temperature_V) moves an output, in units of ``temperature_V``.
    ``new_chips``: a new virtual chip at each training step (else the wanted conductances). ``read_noise``: fresh noise
    of the cells in every state of rest of training.
    """

    nudge: float = 0.5
    variant: Variant = "centred"
    new_chips: bool = True
    read_noise: bool = True
    solver: Solver = field(default_factory=Solver)


class ResistiveNetwork(nn.Module):
    """``forward(x)``: images [batch, ...] in [0, 1] to logits, read(v_out) / temperature_V, [batch, outputs].

    Where ``hw`` has converters with bits, sources stand at +-x input_V on the DAC's levels, of full scale ``input_V``,
    and the output voltages are read on the ADC's levels, of full scale ``output_V``, in training and on chips
    (:meth:`read`). The nudge follows the voltages that are read.

    In training each forward pass is on a new chip of ``hw`` and backward runs the nudged phases on that chip; the
    gradient, which is that of the chip's conductances, is applied to the wanted ones. In eval mode the wanted
    conductances answer; :meth:`on_chip` gives those of a chip for :meth:`at_rest`. Call :meth:`project` after each
    optimiser step.

    ``output_V``: default 8 ``temperature_V``, logits from -8 to 8; outputs beyond it are read as its ends. ``fill``:
    the start, conductances uniform over the lowest ``fill`` of the range. ``seed``: of the start and of the training
    chips.
    """

    steps: Tensor

    def __init__(
        self,
        net: Layered,
        hw: Hardware,
        *,
        input_V: float = 0.2,
        temperature_V: float = 0.01,
        output_V: float | None = None,
        fill: float = 0.2,
        learning: Learning | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.output_V = 8.0 * temperature_V if output_V is None else output_V
        scales = {"input_V": input_V, "temperature_V": temperature_V, "output_V": self.output_V, "fill": fill}
        for name, value in scales.items():
            if not 0.0 < value < float("inf"):
                raise InputError(f"ResistiveNetwork: {name} = {value!r} must be above 0 and finite.")
        self.net, self.hw, self.learning = net, hw, learning or Learning()
        self.input_V, self.temperature_V, self.seed = input_V, temperature_V, seed
        self.w = nn.ParameterDict(
            {
                name: nn.Parameter(2.0 * fill * torch.rand(shape, generator=stream(seed, "resistive", name)) - 1.0)
                for name, shape in net.shapes.items()
            }
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def volts(self, x: Tensor) -> Tensor:
        """Source voltages [batch, inputs] of images, on the 2**bits - 1 levels of the DAC (0 V among them)."""
        v = x.flatten(1) * self.input_V
        dac = self.hw.dac
        return v if dac is None or dac.bits is None else quantize(v, self.input_V, dac.bits)

    def read(self, outputs: Tensor) -> Tensor:
        """Output voltages [batch, outputs] on the 2**bits - 1 levels of the ADC from -output_V to output_V.

        Straight-through, beyond the ends too: what is nudged is the node, not the code. Without an ADC the very tensor.
        """
        adc = self.hw.adc
        if adc is None or adc.bits is None:
            return outputs
        return outputs + (quantize(outputs, self.output_V, adc.bits) - outputs).detach()

    def wanted(self) -> dict[str, Tensor]:
        """The conductances that training wants, uS."""
        return {name: g.detach() for name, g in conductances_uS(dict(self.w.items()), self.hw).items()}

    def on_chip(self, chip_seed: int, age: float | str | None = None) -> dict[str, Tensor]:
        """The conductances that one chip holds, uS."""
        with torch.no_grad():
            return on_chip(dict(self.w.items()), self.hw, chip_seed=chip_seed, age=age)

    @torch.no_grad()
    def at_rest(
        self, x: Tensor, g_uS: Conductances, *, noise_seed: int | None = None, hw: Hardware | None = None
    ) -> Rest:
        """The state of rest for images ``x`` on conductances ``g_uS``: voltages of the circuit, before :meth:`read`.

        ``noise_seed``: under fresh read noise, of ``hw`` where given (else the network's hardware).
        """
        return _rest(self, self.volts(x), g_uS, noise_seed, hw or self.hw)[0]

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return self.read(self.at_rest(x, self.wanted()).outputs) / self.temperature_V
        weights = [self.w[name] for name in self.net.shapes]
        outputs = cast(Tensor, _Phases.apply(self.volts(x), self, *weights))  # type: ignore[no-untyped-call]
        self.steps += 1
        return self.read(outputs) / self.temperature_V

    @torch.no_grad()
    def project(self) -> None:
        """Back into [-1, 1]: what a cell cannot hold is given up."""
        for weight in self.w.values():
            weight.clamp_(-1.0, 1.0)

    def training_conductances(self) -> tuple[dict[str, Tensor], int | None]:
        """Conductances of the present step, and the seed of its read noise."""
        step = int(self.steps)
        noise = derive_seed(self.seed, "resistive", "read", step) if self.learning.read_noise else None
        if not self.learning.new_chips:
            return self.wanted(), noise
        with torch.no_grad():
            seed = derive_seed(self.seed, "resistive", "chip", step)
            return on_chip(dict(self.w.items()), self.hw, chip_seed=seed, counter=True), noise


def _rest(
    model: ResistiveNetwork, volts: Tensor, g: Conductances, noise_seed: int | None, hw: Hardware
) -> tuple[Rest, tuple[Tensor, ...] | None]:
    """State of rest, and the noise currents that were injected into every layer."""
    solver = model.learning.solver
    found = rest(model.net, g, volts, solver=solver)
    if noise_seed is None:
        return found, None
    noise = read_currents_uA(model.net, g, found, hw, noise_seed)
    if noise is None:
        return found, None
    return rest(model.net, g, volts, injected_uA=noise, start=found, solver=solver, checked=True), noise


class _Phases(torch.autograd.Function):
    """Free phase forwards, nudged phases backwards."""

    @staticmethod
    def forward(ctx: Any, volts: Tensor, model: ResistiveNetwork, *weights: Tensor) -> Tensor:
        g, noise_seed = model.training_conductances()
        free, noise = _rest(model, volts, g, noise_seed, model.hw)
        ctx.model, ctx.g, ctx.free, ctx.noise = model, g, free, noise
        return free.outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        model, g = cast(ResistiveNetwork, ctx.model), ctx.g
        batch = len(grads[0])
        net, learning = model.net, model.learning
        total = float(g[f"layer{len(net.sizes)}"].sum(1).mean())
        nudge = learning.nudge * model.temperature_V**2 * net.share(len(net.sizes)) * total
        found = ep_gradients(
            net,
            g,
            ctx.free,
            grads[0] * batch,  # the loss is a mean; every image is nudged as if alone
            nudge_uW=nudge,
            variant=learning.variant,
            solver=learning.solver,
            noise_uA=ctx.noise,
        )
        half = (model.hw.cell.g_max_uS - model.hw.cell.g_min_uS) / 2
        return (None, None, *(found.gradients[name] * (half / batch) for name in net.shapes))


__all__ = ["Learning", "ResistiveNetwork"]
