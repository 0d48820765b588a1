"""From a trained model to what a sampler of p-bits holds: coarse couplings, wrong ones, a wrong temperature."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from mho.ebm.conductances import programmed
from mho.ebm.generate.model import DenoisingModel
from mho.ebm.spins import BlockGibbs, PBit
from mho.errors import HardwareError
from mho.hardware import GenericCell, Hardware, Mapping


@final
@dataclass(frozen=True)
class VirtualSampler:
    """A chip of p-bits by its errors.

    ``coupling_bits``, ``bias_bits``: with the sign, 2**bits - 1 levels over the full scale; None: not rounded.
    ``coupling_error``: standard deviation of each coupling, bias and input field, fixed on a chip, as a share of its
    full scale. ``temperature_error``: relative; T (1 + error) instead of T, so every energy is divided by 1 + error.
    ``pbit``: what else its p-bits do wrong: ``temperature_std`` and ``offset_std`` of each one's own, fixed on a chip
    and the same at every step, since all steps run on the same p-bits. For generation; training has its own errors.
    Noise that remembers is refused: the readout looks at each sweep, and there the noise would start anew.

    The default is the chip as it is meant: 4-bit couplings, no errors.
    """

    coupling_bits: int | None = 4
    bias_bits: int | None = 8
    coupling_error: float = 0.0
    temperature_error: float = 0.0
    pbit: PBit = field(default_factory=PBit, repr=False)  # a training, which has none, is known by the repr

    def __post_init__(self) -> None:
        for name in ("coupling_bits", "bias_bits"):
            bits = getattr(self, name)
            if bits is not None and bits < 2:
                raise HardwareError(
                    f"VirtualSampler: {name} = {bits}: a sign and a magnitude need 2 or more. Fix: 4, or None."
                )
        self.p_bits()  # refuses a temperature of zero or below
        for name, fix in (
            ("temperature_error", "the sampler has its own. Fix: VirtualSampler(temperature_error=...)"),
            ("correlation", "this sampler has no noise that remembers. Fix: 0, or mho.ebm.spins.BlockGibbs"),
        ):
            if getattr(self.pbit, name) != 0:
                raise HardwareError(f"VirtualSampler: pbit.{name} = {getattr(self.pbit, name)}: {fix}.")

    def p_bits(self) -> PBit:
        """The p-bits with all their imperfections."""
        return replace(self.pbit, temperature_error=self.temperature_error)

    def hardware(self, bits: int | None) -> Hardware:
        """One signed cell a parameter with ``bits`` (one of them the sign) and the programming error."""
        return _cells(bits, self.coupling_error)


@lru_cache(maxsize=64)
def _cells(bits: int | None, error: float) -> Hardware:
    # Kept, because a description checks itself when it is made, and training asks at every update.
    cell = GenericCell(bits=None if bits is None else bits - 1, programming_noise=error)
    return Hardware(name="p-bits", cell=cell, mapping=Mapping(scheme="signed"))


DIGITAL = VirtualSampler(coupling_bits=None, bias_bits=None)
"""The noise-free digital sampler: the trained numbers themselves, exact temperature, ideal random numbers."""


@final
@dataclass(frozen=True, eq=False)
class Step:
    """One step as a chip holds it: ``couplings`` [E], ``biases`` [N], ``inputs`` [P] (the fields g_t, one a pixel)."""

    couplings: Tensor
    biases: Tensor
    inputs: Tensor

    def fields(self, x_t: Tensor, visible: Tensor) -> Tensor:
        """Biases and the field of the noisy image ``x_t`` [B, P] on its own pixels: [B, N]."""
        fields = self.biases.repeat(len(x_t), 1)
        fields[:, visible] += self.inputs * x_t
        return fields


def gibbs(model: DenoisingModel, sampler: VirtualSampler, chip_seed: int = 0) -> BlockGibbs:
    """The block Gibbs sampler of the model's lattice on the p-bits of the chip ``chip_seed`` of ``sampler``."""
    return BlockGibbs(model.placement.graph, pbit=sampler.p_bits(), chip_seed=chip_seed)


@torch.no_grad()
def on_chip(model: DenoisingModel, t: int, sampler: VirtualSampler, chip_seed: int, *, fast: bool = False) -> Step:
    """Step ``t`` (1 ... T) of ``model`` as the chip ``chip_seed`` of ``sampler`` holds it.

    ``fast``: errors from counter-based streams (the same law, other numbers), for training where every step is a new
    chip. The input fields g_t are no trained parameters, but they are conductances too, with the errors of the biases.
    """
    found: dict[str, Tensor] = {}
    couplings, biases = model.couplings[t - 1].detach(), model.biases[t - 1].detach()
    inputs = torch.full((len(model.placement.visible),), model.flips.field(t))
    for name, wanted, bound, bits in (
        ("couplings", couplings, model.coupling_limit, sampler.coupling_bits),
        ("biases", biases, model.bias_limit, sampler.bias_bits),
        ("inputs", inputs, max(model.flips.field(t), 1e-6), sampler.bias_bits),
    ):
        path, hw = f"step{t}.{name}", sampler.hardware(bits)
        held = programmed({path: wanted}, hw, chip_seed=chip_seed, bounds={path: bound}, counter=fast)
        found[name] = held[path]
    return Step(**found)
