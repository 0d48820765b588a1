"""The substrate of training: a differentiable model of the hardware, a new chip at every step.

Static noise is one draw a training step and parameter: every use of a weight within one step sees the
same chip (recurrence, tied weights, activation checkpointing), the next step another. Fresh noise
is drawn at each read. In eval mode nothing is random: converters, levels, wires and bounds act.
"""

import math
from typing import final

import torch
from torch import Tensor, nn

from mho.crossbar import fused
from mho.crossbar.array import Array, program
from mho.crossbar.mvm import Observed, has_fresh_noise, needs_adc_range, needs_input_range
from mho.crossbar.noise import (
    SHARES,
    Counter,
    Draw,
    Noise,
    StaticDraws,
    as_tensor,
    draw_noise,
    draw_static,
    read_parts,
)
from mho.crossbar.ops import output_shape
from mho.errors import InputError, NonFiniteError
from mho.hardware.spec import Hardware
from mho.nn.passes import Pass, Passes, is_repeated
from mho.nn.site import Programmed, Site, is_traced
from mho.rng import derive_seed

RANGE_MOMENTUM = 0.05


def draw_seed() -> int:
    """A seed from torch's default generator, so that torch.manual_seed fixes all noise."""
    return int(torch.randint(0x7FFF_FFFF_FFFF_FFFF, ()).item())


@final
class Surrogate:
    """Differentiable model of the hardware; shared by all layers of one converted network.

    ``noise_scale`` multiplies every random term (over-regularisation > 1, ramps from 0); ``censor``: static
    normals above it are cut to it (censored noise; None: none are);
    ``calibrating``: observe ranges although not training; ``noise_in_eval``: random also in eval.
    """

    simulated = True

    def __init__(self, *, noise_in_eval: bool = False) -> None:
        self.noise_scale = 1.0
        self.censor: float | None = None
        self.noise_in_eval = noise_in_eval
        self.calibrating = 0
        self._passes = Passes()

    @property
    def chip_seed(self) -> int | None:
        """The chip of the last forward pass; ``None`` before the first."""
        return None if self._passes.last is None else self._passes.last.chip_seed

    def new_chip(self) -> None:
        """Draw another chip; called before each forward pass of the whole network."""
        self._passes.begin(draw_seed())

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        """One product on a chip drawn from the description of ``site``."""
        hw, traced = site.hw, is_traced()
        noisy = (training or self.noise_in_eval) and self.noise_scale > 0
        observing = training or self.calibrating > 0
        if not traced and not observing:
            refuse_unknown_ranges(site, ranges)
        of = None if traced else self._passes.of_product(training)
        step = 0 if of is None else of.step(site.name, 0 if weight.is_inference() else weight._version)
        if site.name not in programmed:
            draws = self._static(site, weight, of, step) if noisy else None
            array = program(weight, site.op, hw, draws, t_s=hw.environment.t_s, bound=bound, exact_wires=False)
            quiet = array if noisy else array._replace(read_var=None, thermal_var=None, shot_weight=None)
            programmed[site.name] = quiet
        array = programmed[site.name]
        freezes = training and of is not None and not site.learned_ranges
        used = of.frozen_ranges(site.name, ranges, step) if freezes else ranges
        y, observed = fused.product(
            x,
            array,
            site.op,
            hw,
            self._fresh(site, array, x, traced) if noisy else Noise(),
            used,
            bias,
            learned=site.learned_ranges,
            reverse=self._reverse(x, traced) if noisy and site.backward == "noisy" else None,
        )
        # A second forward pass inside the backward pass (activation checkpointing) has been seen.
        if observing and (traced or not is_repeated()):
            # On a GPU the question would wait for the device at every product: there the loss says it, once a step.
            if not traced and not x.is_cuda:
                refuse_nonfinite(site, observed, y, weight)
            self._observe(site, ranges, observed, traced)
        return y

    def _reverse(self, x: Tensor, traced: bool) -> Draw:
        return self.noise_scale * torch.randn_like(x) if traced else Counter(draw_seed(), self.noise_scale)

    def _static(self, site: Site, weight: Tensor, of: Pass | None, step: int) -> StaticDraws | None:
        """The chip of a pass after ``step`` changes of the weight: an optimizer's step means a new chip even where
        the network's own forward, which draws one, is not what is called."""

        def source(shape: tuple[int, ...], label: str) -> Draw:
            if of is None:  # a compiled graph holds no generator and no seed: torch's own functional noise
                draw: Draw = torch.randn(shape, device=weight.device)
            else:
                draw = Counter(derive_seed(of.chip_seed, site.name, step, label))
            # Faults are drawn from the same normals and stay as frequent as they are.
            if self.censor is None or label in SHARES:
                return draw
            return as_tensor(draw, shape, weight.detach()).clamp_max(self.censor)

        return draw_static(site.op, site.hw, weight.shape, source, self.noise_scale)

    def _fresh(self, site: Site, array: Array, x: Tensor, traced: bool) -> Noise:
        def source(shape: tuple[int, ...], _: str) -> Draw:
            return torch.randn(shape, device=x.device, dtype=x.dtype) if traced else Counter(draw_seed())

        shape = (read_parts(site.op, site.hw), *output_shape(site.op, x))
        return draw_noise(has_fresh_noise(site.hw, array), shape, source, self.noise_scale)

    def _observe(self, site: Site, ranges: Tensor, observed: Observed, traced: bool) -> None:
        """Move the ranges towards what the converters saw."""
        hw = site.hw
        if not (needs_input_range(hw) or needs_adc_range(hw)):
            return
        if not traced and site.learned_ranges and not self.calibrating and bool((ranges > 0).all()):
            return
        with torch.no_grad():
            seen = torch.stack([torch.as_tensor(v, dtype=ranges.dtype, device=ranges.device) for v in observed])
            if site.learned_ranges and not self.calibrating:
                new = torch.where(ranges > 0, ranges, seen)
            else:
                momentum = 1.0 / self.calibrating if self.calibrating else RANGE_MOMENTUM
                moved = ranges + momentum * (seen - ranges)
                # A batch of nothing but zeros says nothing about the range, nor does one that holds NaN.
                told = (seen > 0) & (seen < math.inf)
                new = torch.where(told, torch.where(ranges > 0, moved, seen), ranges)
            # Not a change that the backward pass of this step must see: it keeps the range it used.
            (ranges if traced else ranges.data).copy_(new)


def refuse_unknown_ranges(site: Site, ranges: Tensor) -> None:
    """Raise where a converter has no range yet and nothing may set it."""
    needed = (needs_input_range(site.hw), needs_adc_range(site.hw))
    if not any(needed):
        return
    for need, value, what in zip(needed, ranges.tolist(), ("input", "ADC"), strict=True):
        if need and value <= 0:
            raise InputError(
                f"{site.name}: the {what} range of its converters is not known yet. Way out: "
                f"mho.calibrate(model, loader), or train (the first batches set it)."
            )


def refuse_nonfinite(site: Site, observed: Observed, y: Tensor, weight: Tensor) -> None:
    """Raise where a training batch or the weights hold NaN or infinity."""
    seen = [float(observed.input_range), float(observed.adc_range)]
    if not needs_adc_range(site.hw):  # nobody has looked at the output yet
        seen.append(float(y.detach().sum(dtype=torch.float32)))
    if all(math.isfinite(value) for value in seen):
        return
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{site.name}: the weight holds NaN or infinity. Way out: load the last good checkpoint.")
    raise NonFiniteError(
        f"{site.name}: its input holds NaN or infinity, or numbers too large for {y.dtype}. The step is refused and no "
        f"weight was changed. Way out: look at this batch and the layers before; mho.fit skips such steps."
    )


@final
class NewChip:
    """Forward pre-hook of a converted network's root: each forward pass is a new chip."""

    def __init__(self, surrogate: Surrogate) -> None:
        self.surrogate = surrogate

    def __call__(self, module: nn.Module, args: tuple) -> None:
        if module.training and not is_traced():
            self.surrogate.new_chip()


def hardware_text(hw: Hardware) -> str:
    """Short text for ``extra_repr`` of a layer."""
    dac = "-" if hw.dac is None or hw.dac.bits is None else f"{hw.dac.bits} bit"
    adc = "-" if hw.adc is None or hw.adc.bits is None else f"{hw.adc.bits} bit"
    return f"hardware={hw.name}, dac={dac}, adc={adc}"
