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
        self.chip_seed: int | None = None
        self._drawn_at: dict[str, tuple[int | None, int]] = {}
        self._ranges_of_step: dict[str, tuple[tuple[int | None, int], Tensor]] = {}

    def new_chip(self) -> None:
        """Forget the chip of the last step; called before each forward pass of the whole network."""
        self.chip_seed = draw_seed()

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
        step = 0 if traced else self._step(site, weight)
        if site.name not in programmed:
            draws = self._static(site, weight, step, traced) if noisy else None
            array = program(weight, site.op, hw, draws, t_s=hw.environment.t_s, bound=bound, exact_wires=False)
            quiet = array if noisy else array._replace(read_var=None, thermal_var=None, shot_weight=None)
            programmed[site.name] = quiet
        array = programmed[site.name]
        used = self._frozen_ranges(site, ranges, step) if training and not traced else ranges
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
        if observing and (traced or torch._C._current_graph_task_id() == -1):
            # On a GPU the question would wait for the device at every product: there the loss says it, once a step.
            if not traced and not x.is_cuda:
                refuse_nonfinite(site, observed, y, weight)
            self._observe(site, ranges, observed, traced)
        return y

    def _step(self, site: Site, weight: Tensor) -> int:
        """How often the weight has changed since the chip was drawn: 0 within one training step.

        An optimiser's step means a new chip even where the network's own forward, which draws one, is
        not what is called.
        """
        if self.chip_seed is None:
            # Without advancing torch's generator: activation checkpointing, which rewinds it, would not
            # draw this seed a second time.
            self.chip_seed = derive_seed(torch.initial_seed(), "chip")
        version = 0 if weight.is_inference() else weight._version
        kept = self._drawn_at.get(site.name)
        if kept is None or kept[0] != self.chip_seed:
            kept = (self.chip_seed, version)
            self._drawn_at[site.name] = kept
        return version - kept[1]

    def _frozen_ranges(self, site: Site, ranges: Tensor, step: int) -> Tensor:
        """The ranges at the first use in this step: all uses, repeated ones too, quantise alike."""
        if site.learned_ranges:
            return ranges
        key = (self.chip_seed, step)
        kept = self._ranges_of_step.get(site.name)
        if kept is None or kept[0] != key:
            kept = (key, ranges.clone())
            self._ranges_of_step[site.name] = kept
        return kept[1]

    def _reverse(self, x: Tensor, traced: bool) -> Draw:
        return self.noise_scale * torch.randn_like(x) if traced else Counter(draw_seed(), self.noise_scale)

    def _static(self, site: Site, weight: Tensor, step: int, traced: bool) -> StaticDraws | None:
        chip = self.chip_seed

        def source(shape: tuple[int, ...], label: str) -> Draw:
            if traced:  # a compiled graph holds no generator and no seed: torch's own functional noise
                draw: Draw = torch.randn(shape, device=weight.device)
            else:
                assert chip is not None
                draw = Counter(derive_seed(chip, site.name, step, label))
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
