"""Probe vectors that watch gain, offset and noise of each tile, and what is done when they wander.

A probe drives a tile with vectors of its own and compares the currents with what the targets and the known columns let
expect. Repairs are tried in the order of their price, until the error is back within tolerance:

    compensate (one digital gain a tile) -> refit (gain and offset of each column) -> calibrate (the device itself)
    -> reprogram (the tile is written again)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import InputError
from mho.hardware.fields import Count, Positive, check_fields
from mho.lab.columns import Columns
from mho.lab.substrate import OnDevice
from mho.rng import normals

REPAIRS = ("compensated", "refitted", "calibrated", "reprogrammed")
"""In the order of their price, as the log calls them."""


@dataclass(frozen=True, kw_only=True)
class WatchPolicy:
    """``every``: steps between probes. ``vectors`` random inputs, each read ``repeats`` times, at ``amplitude`` of
    v_max.

    ``tolerance``: how far the relative error of a tile may rise above that of its first probe.
    """

    every: Count = 200
    vectors: Count = 16
    repeats: Count = 4
    amplitude: Positive = 0.5
    tolerance: Positive = 0.02

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Finding:
    """One probe of one tile, relative to the root mean square of the expected currents.

    ``gain``: common gain of the tile against expectation; ``error``: rms of what differs, gain included; ``noise``:
    rms of a single read.
    """

    gain: float
    error: float
    noise: float


@final
class Watch:
    """Watches the tiles of ``substrate`` and repairs them. :meth:`step` after each training step, or :meth:`check`."""

    def __init__(self, substrate: OnDevice, policy: WatchPolicy | None = None) -> None:
        self.substrate = substrate
        self.policy = policy or WatchPolicy()
        self.first: dict[int, Finding] = {}
        self._probes = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What was found first, what is divided out, how often was probed: for a checkpoint."""
        state = {"probes": torch.tensor(self._probes)}
        for tile, f in self.first.items():
            state[f"first.{tile}"] = torch.tensor((f.gain, f.error, f.noise), dtype=torch.float64)
        for tile, c in self.substrate.columns.items():
            state[f"columns.{tile}"] = torch.stack((c.gain, c.offset))
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._probes = int(state["probes"])

        def by_tile(part: str) -> dict[int, Tensor]:
            found = {name.partition(".")[2]: v for name, v in state.items() if name.startswith(f"{part}.")}
            return {int(tile): v for tile, v in found.items()}

        self.first = {tile: Finding(*map(float, v)) for tile, v in by_tile("first").items()}
        self.substrate.columns = {tile: Columns(*v) for tile, v in by_tile("columns").items()}

    def step(self, step: int) -> None:
        """Check all tiles each ``policy.every`` steps."""
        if step % self.policy.every == 0:
            self.check()

    def check(self) -> dict[int, Finding]:
        """Probe every tile, repair what has wandered; what was found at last, by tile."""
        self._probes += 1
        return {tile: self._keep(tile) for tile in self.substrate.placement.tiles if self.substrate.holds(tile)}

    def repair(self, kind: str) -> None:
        """Carry one repair (of :data:`REPAIRS`) out on every tile, whatever probes say: for one that is known to help.

        The first two drive a tile with ``policy.vectors`` times ``policy.repeats`` products; the last two none, one
        calibration of the device and a writing a tile. Raises :class:`~mho.errors.InputError` for another word.
        """
        if kind not in REPAIRS:
            raise InputError(f"watch: repair {kind!r} is not known. Fix: one of {', '.join(REPAIRS)}.")
        held = [tile for tile in self.substrate.placement.tiles if self.substrate.holds(tile)]
        for tile in held[:1] if kind == "calibrated" else held:
            self._repair(kind, tile)
            self.substrate.log.write(kind, f"tile {tile}", "asked for")

    def _repair(self, kind: str, tile: int) -> None:
        {
            "compensated": self._compensate,
            "refitted": self._refit,
            "calibrated": self._calibrate,
            "reprogrammed": self._reprogram,
        }[kind](tile)

    def _keep(self, tile: int) -> Finding:
        log = self.substrate.log
        found = self._probe(tile)
        log.write("probe", f"tile {tile}", f"gain {found.gain:.4f}, error {found.error:.4f}, noise {found.noise:.4f}")
        if tile not in self.first:
            self.first[tile] = found
            return found
        allowed = self.first[tile].error + self.policy.tolerance
        for kind in REPAIRS:
            if found.error <= allowed:
                break
            self._repair(kind, tile)
            after = self._probe(tile)
            log.write(kind, f"tile {tile}", f"error {found.error:.4f} -> {after.error:.4f}, allowed {allowed:.4f}")
            found = after
        return found

    def _measure(self, tile: int) -> tuple[Tensor, Tensor, Tensor, float]:
        """Expected and mean measured currents of the columns in use, the single reads, and the range; in uA."""
        can = self.substrate.placement.can
        self._probes += 1
        v = normals((self.policy.vectors, can.rows), "probe", tile).clamp(-2, 2) / 2
        v = v * (self.policy.amplitude * can.v_max_V)
        ideal = v @ self.substrate.target(tile)
        full = min(max(1.5 * float(ideal.abs().max()), can.i_min_uA), can.i_max_uA)
        answer = self.substrate.device.mvm(
            tile, v, operation=f"probe/{tile}/{self._probes}", full_scale_uA=full, repeats=self.policy.repeats
        )
        mean, _ = answer.mean_uA()
        return ideal, mean, answer.currents_uA, full

    def _probe(self, tile: int) -> Finding:
        ideal, mean, single, full = self._measure(tile)
        columns = self._known(tile)
        expected = columns.gain * ideal + columns.offset * full
        scale = float(expected.square().mean().sqrt()) or 1.0
        good = torch.isfinite(mean)
        e, m = expected[good], mean[good]
        gain = float((e * m).sum() / e.square().sum().clamp_min(1e-30))
        # A number that does not come is as wrong as one that is all error.
        wrong = float((m - e).square().sum()) / scale**2 + float((~good).sum())
        error = (wrong / good.numel()) ** 0.5
        spread = (single - mean).square()
        count = max(self.policy.repeats - 1, 1) * int(good.sum())
        noise = float(torch.nan_to_num(spread).sum() / max(count, 1)) ** 0.5 / scale
        return Finding(gain, error, noise)

    def _known(self, tile: int) -> Columns:
        return self.substrate.columns.get(tile) or Columns.nominal(self.substrate.placement.can.cols)

    def _set(self, tile: int, columns: Columns) -> None:
        self.substrate.columns = {**self.substrate.columns, tile: columns}

    def _compensate(self, tile: int) -> None:
        known, found = self._known(tile), self._probe(tile)
        self._set(tile, Columns(known.gain * found.gain, known.offset))

    def _refit(self, tile: int) -> None:
        """Least squares a column; a column that is not driven keeps what was known."""
        ideal, mean, _, full = self._measure(tile)
        i, m = (ideal / full).double(), (mean / full).double()
        di, dm = i - i.mean(0), m - m.mean(0)
        var = di.square().mean(0)
        known = self._known(tile)
        fits = (var > 1e-12) & torch.isfinite(m).all(0)
        slope = (di * dm).mean(0) / var.clamp_min(1e-30)
        # Few vectors may all fall on one step of the converter: a slope of 0 says nothing, and cannot be divided out.
        fits &= slope != 0
        gain = torch.where(fits, slope, known.gain.double())
        offset = torch.where(fits, m.mean(0) - gain * i.mean(0), known.offset.double())
        self._set(tile, Columns(gain.float(), offset.float()))

    def _calibrate(self, tile: int) -> None:
        """The device's readout is as new: what was compensated for is forgotten, for all tiles."""
        self.substrate.device.calibrate()
        self.substrate.columns = {}

    def _reprogram(self, tile: int) -> None:
        self.substrate.rewrite(tile, f"watch {self._probes}")
