"""A dry run: the whole loop without a device, to see what it would ask and what that would take."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.lab import checks
from mho.lab.protocol import (
    Calibration,
    Capabilities,
    CellStatus,
    Conductances,
    Health,
    ProgramReport,
    Readout,
)
from mho.lab.tiles import Tiles


@dataclass(eq=False)
class _TileState:
    targets_uS: Tensor
    report: ProgramReport


@final
class DryRun:
    """Answers with the ideal product of what was written, and counts. Nothing is sent anywhere.

    ``can``: capabilities of the device that is meant (``device.capabilities()``); its limits are enforced.
    """

    def __init__(self, can: Capabilities) -> None:
        self._can = can
        self._tiles: Tiles[_TileState] = Tiles("dry run")
        self._clock_s = 0.0
        self.programs = 0
        self.mvms = 0
        self.vectors = 0

    @property
    def estimated_s(self) -> float:
        """Calls times the device's typical latency."""
        return (self.programs + self.mvms) * self._can.latency_s

    def capabilities(self) -> Capabilities:
        """Those of the device that is meant."""
        return self._can

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Note the targets."""
        checks.program(self._can, tile, targets_uS, mask)
        self.programs += 1
        before = self._tiles.before(tile, mask)
        targets = targets_uS.float().clone()
        if mask is not None and before is not None:
            targets = torch.where(mask, targets, before.targets_uS)
        unknown = torch.full(targets.shape, int(CellStatus.UNKNOWN), dtype=torch.uint8)
        return self._tiles.put(tile, _TileState(targets, ProgramReport(operation, None, unknown)))

    def read(self, tile: int) -> Conductances:
        """The targets."""
        g = self._held(tile)
        return Conductances(g.clone(), torch.ones_like(g, dtype=torch.bool))

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """The ideal currents, clipped at full scale."""
        checks.mvm(self._can, tile, inputs_V, full_scale_uA, repeats)
        currents = (inputs_V.float() @ self._held(tile)).clamp(-full_scale_uA, full_scale_uA)
        self.mvms += 1
        self.vectors += len(inputs_V) * repeats
        whole = currents.expand(repeats, *currents.shape).clone()
        return Readout(operation, whole, torch.ones_like(whole, dtype=torch.bool))

    def calibrate(self) -> Calibration:
        """Nothing to do."""
        return Calibration(identity="dry run", time_s=0.0)

    def health(self) -> Health:
        """Well."""
        return Health(
            ok=True, boot="dry run", time_s=self._clock_s, programmed_tiles=self._tiles.numbers(), message="a dry run"
        )

    def wait_until(self, time_s: float) -> Health:
        """Nothing ages; the clock is that of the waits alone."""
        checks.wait(self._can, self._clock_s, time_s)
        self._clock_s = max(self._clock_s, time_s)
        return self.health()

    def close(self) -> None:
        """Nothing to let go of."""

    def _held(self, tile: int) -> Tensor:
        checks.tile_number(self._can, tile)
        return self._tiles.get(tile).targets_uS
