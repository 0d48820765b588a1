"""Products of a network by a device: the third substrate, beside the surrogate and the virtual chips.

    y = r_in w_max / (v_max span) (I+ - I-) + bias        for each block of rows, added digitally

The value is what the device answered. The gradient is a matter of its own (``gradient=``): through a differentiable
twin of the device (physics-aware training, Wright et al., Nature 601, 549, 2022), or straight through the ideal
product.
"""

import hashlib
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho import ste
from mho.crossbar.array import full_scale
from mho.errors import ConversionError, NonFiniteError
from mho.lab.columns import ByTile, ColumnStream
from mho.lab.log import EventLog
from mho.lab.placement import Patch, Placement, targets, unit_uA
from mho.lab.protocol import Device, ProgramReport
from mho.lab.vectors import from_vectors, matrix, to_vectors
from mho.nn.site import Programmed, Site, Substrate
from mho.nn.surrogate import refuse_unknown_ranges


def digest(*tensors: Tensor, extra: str = "") -> str:
    """A name for contents: the same numbers have the same name, in any process."""
    found = hashlib.blake2b(extra.encode(), digest_size=8)
    for t in tensors:
        found.update(t.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Correction:
    """Digital repair of a site's outputs: y <- scale y + shift + (x down) up.

    ``scale``, ``shift`` [outputs]; ``down`` [inputs, rank], ``up`` [rank, outputs]: a path beside the array, or none.
    """

    scale: Tensor
    shift: Tensor
    down: Tensor | None = None
    up: Tensor | None = None

    @staticmethod
    def identity(outputs: int) -> "Correction":
        """Nothing to repair."""
        return Correction(torch.ones(outputs), torch.zeros(outputs))

    def after(self, first: "Correction") -> "Correction":
        """This scale and shift on what ``first`` gives, as one correction."""
        up = None if first.up is None else first.up * self.scale
        return Correction(self.scale * first.scale, self.scale * first.shift + self.shift, first.down, up)

    def apply(self, y: Tensor, vectors: Tensor) -> Tensor:
        """[n, outputs] from currents and the [n, inputs] that drove them."""
        y = y * self.scale + self.shift
        return y if self.down is None or self.up is None else y + (vectors @ self.down) @ self.up


@dataclass(frozen=True, eq=False)
class Held:
    """What a site's tiles hold: the name of its contents, its full scale."""

    name: str
    w_max: float


@final
class OnDevice:
    """Answers products with a device, and gives them the gradient of a twin.

    Weights are written when they have changed. Every call is named after its contents, so that a run that is resumed
    asks for the same operations by the same names. ``salt`` enters the names of products: another salt is another read.
    ``twin``: what the gradient runs through (any substrate); ``None``: the ideal product. ``stream``: is told every
    pair of expected and measured currents, and so learns the columns from products that are paid for anyway.

    A product of which numbers did not come, after all retries of the session, raises
    :class:`~mho.errors.NonFiniteError`: the step is skipped by ``mho.fit``, and counted.
    """

    simulated = False

    def __init__(
        self,
        device: Device,
        placement: Placement,
        *,
        twin: Substrate | None = None,
        repeats: int = 1,
        log: EventLog | None = None,
        stream: ColumnStream | None = None,
    ) -> None:
        self.device = device
        self.placement = placement
        self.log = log or EventLog()
        self.stream = stream
        self.twin = twin
        self.repeats = repeats
        self.salt = ""
        self.frozen = False
        """Whether weights do not change any more and need not be looked at."""
        self.corrections: dict[str, Correction] = {}
        self.columns: ByTile = {}
        """Gains and offsets that are divided out of the currents digitally."""
        self._held: dict[str, Held] = {}
        self._expected: dict[int, Tensor] = {}
        self.reports: dict[int, ProgramReport] = {}
        self._unit_uA = unit_uA(placement.can)

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
        """y = x W^T + bias as the device computes it, with the gradient of the twin."""
        refuse_unknown_ranges(site, ranges)
        with torch.no_grad():
            y = self.read(site, x.detach(), weight.detach(), ranges, bound)
            if bias is not None:
                y = y + site.op.over_columns(bias).to(y.dtype)
        if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
            return y
        if self.twin is None:
            model = site.op.apply(x, weight, bias)
        else:
            model = self.twin.mvm(site, x, weight, bias, ranges, bound, False, programmed)
        return ste.straight_through(y, model)

    def write(self, site: Site, weight: Tensor, bound: Tensor | None) -> Held:
        """Bring the weight to its tiles, unless they hold it already.

        Told by the contents: a fused optimiser changes a weight without counting its version up.
        """
        held = self._held.get(site.name)
        if held is not None and self.frozen:
            return held
        _refuse_columns(site)
        top = float(full_scale(weight, site.hw, bound))
        w_hat = (matrix(weight) / top).clamp(-1.0, 1.0)
        name = digest(w_hat, extra=site.name)
        if held is None or held.name != name:
            for patch in self._patches(site):
                g = targets(patch, w_hat, self.placement.can)
                self._expected[patch.tile] = g
                operation = f"{site.name}/{patch.tile}/{name}"
                self.reports[patch.tile] = self.device.program(patch.tile, g, operation=operation)
        self._held[site.name] = Held(name, top)
        return self._held[site.name]

    def read(self, site: Site, x: Tensor, weight: Tensor, ranges: Tensor, bound: Tensor | None) -> Tensor:
        """The product alone, corrected, without bias. Raises :class:`NonFiniteError` where numbers are missing."""
        held = self.write(site, weight, bound)
        can = self.placement.can
        r_in, r_out = ranges.tolist()
        # Without a DAC (or ADC) in the description nothing has set a range: the batch's own maximum is used.
        r_in = r_in if r_in > 0 else max(float(x.abs().max()), torch.finfo(torch.float32).tiny)
        full_uA = can.i_max_uA if r_out <= 0 else r_out / (held.w_max * r_in) * self._unit_uA
        full_uA = min(max(full_uA, can.i_min_uA), can.i_max_uA)
        volts = (to_vectors(x, site.op).float() / r_in).clamp(-1.0, 1.0) * can.v_max_V
        name = f"{site.name}/{held.name}/{digest(volts, extra=f'{full_uA!r} {self.repeats} {self.salt}')}"
        y = torch.zeros(len(volts), weight.shape[0])
        for patch in self._patches(site):
            currents = self._currents(patch, volts, f"{name}/{patch.tile}", full_uA)
            y[:, patch.outputs[0] : patch.outputs[1]] += currents
        y *= r_in * held.w_max / self._unit_uA
        missing = int((~torch.isfinite(y)).sum())
        if missing:
            self.log.write("skipped", name, f"{missing} of {y.numel()} outputs have no valid number")
            raise NonFiniteError(
                f"{site.name}: {missing} of {y.numel()} outputs of the device did not come, after all retries. The"
                " step "
                "is skipped. Way out: look at the log; dead lines are left out by placement."
            )
        correction = self.corrections.get(site.name)
        if correction is not None:
            y = correction.apply(y, to_vectors(x, site.op).float())
        return from_vectors(y, x, site.op).to(x.dtype)

    def target(self, tile: int) -> Tensor:
        """Conductances [rows, cols] in uS that a tile in use should have."""
        return self._expected[tile]

    def holds(self, tile: int) -> bool:
        """Whether the tile has been written."""
        return tile in self._expected

    def rewrite(self, tile: int, reason: str) -> None:
        """Write a tile again, as a new operation."""
        before = self.reports[tile].operation.partition("#")[0]
        operation = f"{before}#{reason}"
        self.reports[tile] = self.device.program(tile, self._expected[tile], operation=operation)

    def _patches(self, site: Site) -> tuple[Patch, ...]:
        return self.placement.patches[site.name]

    def _currents(self, patch: Patch, volts: Tensor, operation: str, full_uA: float) -> Tensor:
        """[n, outputs] in uA of one patch; NaN where no repeat was valid."""
        driven = torch.zeros(len(volts), self.placement.can.rows)
        driven[:, patch.rows] = volts[:, patch.inputs[0] : patch.inputs[1]]
        answer = self.device.mvm(patch.tile, driven, operation=operation, full_scale_uA=full_uA, repeats=self.repeats)
        mean, _ = answer.mean_uA()
        if self.stream is not None:
            expected = driven @ self._expected[patch.tile]
            self.stream.add(patch.tile, expected / full_uA, mean / full_uA)
        known = self.columns.get(patch.tile)
        if known is not None:
            mean = (mean - known.offset * full_uA) / known.gain
        return mean[:, patch.plus] if patch.minus is None else mean[:, patch.plus] - mean[:, patch.minus]


def _refuse_columns(site: Site) -> None:
    if site.hw.mapping.per_column:
        raise ConversionError(
            f"{site.name}: mapping.per_column has a full scale for each output, a tile of a device has one. Way out: "
            "convert with hw.replace(mapping=replace(hw.mapping, per_column=False))."
        )
