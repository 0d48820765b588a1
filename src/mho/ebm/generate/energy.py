"""Joules an image, estimated: counts of what happens times constants with their sources. A system model, not a chip.

Left out: programming the couplings (they stay where they are, one lattice a step), clock distribution, supplies, and
everything digital around the chip. The voltage and the pitch are assumptions; no complete chip of this kind has
published measured joules an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from mho.costs.constants import ADD_INT8, ADD_INT32, MULTIPLY_INT8, SRAM_BIT, Constant
from mho.costs.spread import NOTHING, Spread, exactly
from mho.ebm.generate.chain import Schedule
from mho.ebm.generate.diffusion import Denoiser
from mho.ebm.generate.model import DenoisingModel

_DTM = "Jelincic et al., arXiv:2510.23972"
_Z1 = "arXiv:2608.01615, Table IV (circuit simulation before silicon), as quoted by crate ferrotherm 0.22.0"

RANDOM_BIT = Constant(
    "p-bit, one random bit", Spread(0.35, 0.35, 3.5), "fJ", _DTM, "model",
    note="their transistor generator, about 350 aJ a bit; high: ten times, ours",
)  # fmt: skip
FIELD = Constant(
    "p-bit, adding up its field", Spread(0.3, 1.0, 5.0), "fJ", _DTM, "model",
    note="what is left of a cell of about 2 fJ after the random bit and the wires; high: a whole update is near "
    "the 7.09 fJ of " + _Z1,
)  # fmt: skip
WIRE_fF_UM = Constant(
    "wire, a micrometre", Spread(0.15, 0.2, 0.3), "fF", "Ho, Mai, Horowitz, The future of wires, Proc. IEEE 89 (2001)",
    "model", note="about the same in all processes",
)  # fmt: skip
PITCH_UM = Constant("pitch of the lattice", Spread(3.0, 6.0, 10.0), "um", "assumed, after " + _DTM, "model")
SIGNAL_V = Constant("signal to a neighbour", Spread(0.2, 0.4, 0.8), "V", "assumed", "model")
LATCH_BIT = Constant(
    "pixel clamped or read, one bit", Spread(0.001, SRAM_BIT.value.typical, 1.692), "pJ",
    f"low: a latch beside the cell, assumed; typical: {SRAM_BIT.source}, 32 KB memory; high: {_Z1}", "model",
    note="the same source has 153.6 pJ for writing a whole node with its couplings",
)  # fmt: skip
CONSTANTS = (RANDOM_BIT, FIELD, WIRE_fF_UM, PITCH_UM, SIGNAL_V, LATCH_BIT)
"""All constants that are not those of :mod:`mho.costs`."""

_fJ, _pJ = 1e-15, 1e-12


@final
@dataclass(frozen=True)
class Energy:
    """``parts``: J an image, low, typical and high, by name. ``updates``: spin updates or operations an image."""

    parts: Mapping[str, Spread]
    updates: int

    @property
    def total_J(self) -> Spread:
        """The sum of the parts."""
        total = NOTHING
        for part in self.parts.values():
            total = total + part
        return total

    def numbers(self) -> dict[str, object]:
        """For JSON: [low, typical, high] of each part and of the sum."""
        found: dict[str, object] = {
            name: [part.low, part.typical, part.high] for name, part in {**self.parts, "total": self.total_J}.items()
        }
        return {"J": found, "updates": self.updates}


def updates_an_image(model: DenoisingModel, schedule: Schedule) -> int:
    """T x sweeps x nodes."""
    return model.steps * schedule.sweeps * model.placement.graph.nodes


def sampler_energy(model: DenoisingModel, schedule: Schedule, *, activity: float = 0.5) -> Energy:
    """The p-bit sampler. E = updates (E_bit + E_field + activity sum_neighbours C V^2 / 2) + bits moved E_latch.

    The wire to a neighbour is as long as their distance along rows and columns. ``activity``: share of updates in which
    a spin changes; 1/2 is that of a free one, so an upper bound. Moved: each step's noisy image is clamped, and its
    pixels are read once; the last step's as often as the readout asks for (:attr:`Schedule.last_reads`).
    """
    updates = updates_an_image(model, schedule)
    charge = WIRE_fF_UM.value * PITCH_UM.value * (SIGNAL_V.value * SIGNAL_V.value) * 0.5
    neighbours = mean_wire(model)
    moves = model.steps + (model.steps - 1) + schedule.last_reads
    bits = moves * len(model.placement.visible)
    return Energy(
        {
            "random bits": RANDOM_BIT.value * (updates * _fJ),
            "fields": FIELD.value * (updates * _fJ),
            "charging neighbours": charge * (updates * activity * neighbours * _fJ),
            "clamping and reading": LATCH_BIT.value * (bits * _pJ),
        },
        updates,
    )


def mean_wire(model: DenoisingModel) -> float:
    """Length of all wires that leave a node, in pitches, averaged over the nodes."""
    graph = model.placement.graph
    width = graph.shape[1] if graph.shape is not None else graph.nodes
    ends = torch.stack([graph.edges // width, graph.edges % width])
    length = (ends[:, :, 0] - ends[:, :, 1]).abs().sum()
    return 2.0 * float(length) / graph.nodes


def digital_sampler_energy(model: DenoisingModel, schedule: Schedule) -> Energy:
    """The same chain on digital hardware of 45 nm: for each update the couplings are read and added.

    An update: as many 8-bit additions and 4-bit couplings from memory as neighbours, one 32-bit addition and 8 bits of
    a table for the random number and the sigmoid. Spins, pixels and the readout are not counted, in its favour.
    """
    updates = updates_an_image(model, schedule)
    degree = 2.0 * model.placement.graph.n_edges / model.placement.graph.nodes
    return Energy(
        {
            "additions": (ADD_INT8.value * degree + ADD_INT32.value) * (updates * _pJ),
            "couplings from memory": SRAM_BIT.value * (updates * 4.0 * degree * _pJ),
            "random numbers and table": SRAM_BIT.value * (updates * 8.0 * _pJ),
        },
        updates,
    )


def diffusion_energy(network: Denoiser, steps: int) -> Energy:
    """The digital network at int8, ``steps`` passes: an operation multiplies, adds and reads 8 bits of weight."""
    count = steps * multiplications(network)
    each = MULTIPLY_INT8.value + ADD_INT32.value
    return Energy(
        {"operations": each * (count * _pJ), "weights from memory": SRAM_BIT.value * exactly(8.0) * (count * _pJ)},
        count,
    )


def multiplications(network: Denoiser) -> int:
    """Multiply-accumulates of one pass over one image, counted by a pass."""
    count = 0

    def conv(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal count
        if isinstance(module, nn.Conv2d):
            count += module.weight.numel() * out.shape[2] * out.shape[3]
        elif isinstance(module, nn.Linear):
            count += module.weight.numel()

    hooks = [m.register_forward_hook(conv) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network(torch.ones(1, 784), torch.ones(1, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    return count
