"""A dry run: the whole loop without a device, to see what it would ask and what that would take."""

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
    NotProgrammed,
    ProgramReport,
    Readout,
)


@final
class DryRun:
    """Answers with the ideal product of what was written, and counts. Nothing is sent anywhere.

    ``can``: capabilities of the device that is meant (``device.capabilities()``); its limits are enforced.
    """

    def __init__(self, can: Capabilities) -> None:
        self._can = can
        self._tiles: dict[int, Tensor] = {}
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
        old = self._tiles.get(tile)
        if mask is not None and old is None:
            raise NotProgrammed(f"dry run, tile {tile}: a mask, and nothing was written before.")
        whole = targets_uS.float().clone()
        self._tiles[tile] = whole if mask is None or old is None else torch.where(mask, whole, old)
        return ProgramReport(operation, None, torch.full(targets_uS.shape, int(CellStatus.UNKNOWN), dtype=torch.uint8))

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
        return Health(ok=True, boot="dry run", programmed_tiles=tuple(sorted(self._tiles)), message="a dry run")

    def close(self) -> None:
        """Nothing to let go of."""

    def _held(self, tile: int) -> Tensor:
        checks.tile_number(self._can, tile)
        if tile not in self._tiles:
            raise NotProgrammed(f"dry run, tile {tile}: nothing was written to it. Fix: program it first.")
        return self._tiles[tile]
