"""A device that is a virtual chip: the physics of ``crossbar`` behind the protocol, with a hidden seed.

What a host can see of it is what it could see of silicon: capabilities, read-backs and currents. Its description and
its seed stay inside; they may deviate from the data sheet as far as one likes.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from mho.crossbar import fused
from mho.crossbar.array import Array, program, slice_factors
from mho.crossbar.mvm import has_fresh_noise
from mho.crossbar.noise import Counter, Noise, StaticDraws, draw_static
from mho.crossbar.ops import LinearOp
from mho.hardware.cells import Cell
from mho.hardware.spec import Hardware, Tile
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
from mho.physics import cells
from mho.rng import derive_seed, normals

DEFAULT_SIDE = 256
FIXED_AT_FABRICATION = frozenset({"sram", "photonic"})
"""Technologies whose deviation is a mismatch of parts; in the others each writing is a new draw."""
REWRITTEN = frozenset({"programming"})
LONGEST_WAIT_S = 3.2e8
"""Ten years, the life of a chip."""
LONG_S = 1e6
"""An age at which every law that ages has aged."""


@dataclass(eq=False)
class _TileState:
    """What one tile holds."""

    targets_uS: Tensor
    draws: StaticDraws
    written_s: float
    array: Array
    array_t_s: float
    report: ProgramReport


@final
class VirtualDevice:
    """``tiles`` tiles of ``hardware`` on the chip of ``seed``, signed cells in and currents out.

    A conductance of the protocol is the difference of a pair (or what the mapping of ``hardware`` makes of one weight
    of full scale ``g_max - g_min``). The chip's own parts (gains, offsets, stuck cells, drift exponents) come from
    ``seed`` and the tile's number. What a writing or a read adds comes from the seed and the name of the operation: a
    call that is repeated under its name after a crash gives the same numbers, and needs no memory for it.

    The device's clock moves by ``readout.t_read_s`` a vector, ``seconds_per_write`` a programming, and by :meth:`wait`
    and :meth:`wait_until`. ``fade_per_second``: the readout's gain falls as exp(-fade t) since the last
    :meth:`calibrate`, a deviation that no description has and a host must notice.
    """

    def __init__(
        self,
        hardware: Hardware,
        seed: int = 0,
        *,
        tiles: int = 16,
        rows: int | None = None,
        cols: int | None = None,
        seconds_per_write: float = 1e-3,
        fade_per_second: float = 0.0,
        boot: str = "0",
    ) -> None:
        self._rows = rows or hardware.tile.rows or DEFAULT_SIDE
        self._cols = cols or hardware.tile.cols or DEFAULT_SIDE
        self._hw = hardware.replace(tile=Tile(), mapping=replace(hardware.mapping, per_column=False))
        self._op = LinearOp(self._rows, self._cols)
        self._span_uS = hardware.cell.g_max_uS - hardware.cell.g_min_uS
        self._v_max_V = hardware.readout.v_read_V
        self._seed = seed
        self._seconds_per_write = seconds_per_write
        self._fade_per_second = fade_per_second
        self._boot = boot
        self._tiles: Tiles[_TileState] = Tiles("virtual device")
        self._parts: dict[tuple[int, str], Tensor] = {}
        self._ages = _ages(hardware.cell)
        self._clock_s = 0.0
        self._calibrated_s = 0.0
        worst_uA = self._rows * self._v_max_V * self._span_uS
        self._capabilities = Capabilities(
            vendor="mho",
            model=f"virtual {hardware.name}",
            serial=f"{derive_seed(seed, 'serial') % 10**8:08d}",
            tiles=tiles,
            rows=self._rows,
            cols=self._cols,
            g_max_uS=self._span_uS,
            signed=True,
            v_max_V=self._v_max_V,
            input_bits=None if hardware.dac is None else hardware.dac.bits,
            i_min_uA=worst_uA * 1e-4,
            i_max_uA=worst_uA,
            output_bits=None if hardware.adc is None else hardware.adc.bits,
            max_wait_s=LONGEST_WAIT_S,
        )

    def capabilities(self) -> Capabilities:
        """What this device can do."""
        self._tiles.open()
        return self._capabilities

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Write a tile. The error of each written cell is drawn anew, that of the others stays."""
        self._tiles.open()
        checks.program(self._capabilities, tile, targets_uS, mask)
        done = self._tiles.repeated(tile, operation)
        if done is not None:
            return done
        before = self._tiles.before(tile, mask)
        draws = self._draws(tile, operation)
        targets = targets_uS.detach().float().clone()
        if mask is not None and before is not None:
            targets = torch.where(mask, targets, before.targets_uS)
            old, new = before.draws.programming, draws.programming
            if isinstance(old, Tensor) and isinstance(new, Tensor):
                draws = draws._replace(programming=torch.where(mask.t(), new, old))
        self._clock_s += self._seconds_per_write
        t_s = self._hw.environment.t_s
        array = self._programmed(targets, draws, t_s)
        achieved = self._read(array, derive_seed(self._seed, "verify", tile, operation))
        report = ProgramReport(operation, achieved, self._status(draws, mask), time_s=self._clock_s)
        return self._tiles.put(tile, _TileState(targets, draws, self._clock_s, array, t_s, report))

    def read(self, tile: int) -> Conductances:
        """Conductances now, with the noise of one read each."""
        self._tiles.open()
        checks.tile_number(self._capabilities, tile)
        state = self._tiles.get(tile)
        seed = derive_seed(self._seed, "read back", tile, state.report.operation, repr(self._clock_s))
        return Conductances(
            self._read(self._array(state), seed), torch.ones_like(state.targets_uS, dtype=torch.bool), self._clock_s
        )

    @torch.no_grad()
    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """All columns for every input vector, ``repeats`` times with fresh noise."""
        self._tiles.open()
        checks.mvm(self._capabilities, tile, inputs_V, full_scale_uA, repeats)
        state = self._tiles.get(tile)
        array = self._array(state)
        unit_uA = self._v_max_V * self._span_uS
        fade = math.exp(-self._fade_per_second * (self._clock_s - self._calibrated_s))
        x = (inputs_V.detach().float() / self._v_max_V).expand(repeats, *inputs_V.shape).reshape(-1, self._rows)
        r = full_scale_uA / unit_uA
        fresh = Counter(derive_seed(self._seed, "mvm", tile, operation)) if has_fresh_noise(self._hw, array) else None
        # The readout's gain sits in front of the converter: a gain on the currents is one on the inverse range.
        ranges = torch.tensor([1.0, r / fade])
        y, _ = fused.product(x.contiguous(), array, self._op, self._hw, Noise(fresh), ranges, None)
        currents = (y * (unit_uA * fade)).reshape(repeats, len(inputs_V), self._cols)
        self._clock_s += self._hw.readout.t_read_s * len(x)
        flags = ("saturated",) if bool((currents.abs() >= full_scale_uA * (1 - 1e-6)).any()) else ()
        return Readout(
            operation=operation,
            currents_uA=currents,
            valid=torch.ones_like(currents, dtype=torch.bool),
            time_s=self._clock_s,
            temperature_K=self._hw.environment.temperature_K,
            flags=flags,
        )

    def calibrate(self) -> Calibration:
        """Bring the readout's gain back to what it was when the device was new."""
        self._tiles.open()
        self._calibrated_s = self._clock_s
        return Calibration(
            identity=f"{self._capabilities.serial}@{self._clock_s:.6g}",
            time_s=self._clock_s,
            temperature_K=self._hw.environment.temperature_K,
            residual=0.0,
        )

    def health(self) -> Health:
        """Always well; what is broken on this chip it does not know itself."""
        self._tiles.open()
        return Health(
            ok=True,
            boot=self._boot,
            time_s=self._clock_s,
            temperature_K=self._hw.environment.temperature_K,
            programmed_tiles=self._tiles.numbers(),
        )

    def wait_until(self, time_s: float) -> Health:
        """Let the device's clock run on to ``time_s``: what was written ages."""
        self._tiles.open()
        checks.wait(self._capabilities, self._clock_s, time_s)
        self._clock_s = max(self._clock_s, time_s)
        return self.health()

    def wait(self, seconds: float) -> None:
        """:meth:`wait_until` so many seconds from now."""
        self.wait_until(self._clock_s + seconds)

    def close(self) -> None:
        """Let go; what was written is forgotten."""
        self._tiles.close()

    def _draws(self, tile: int, operation: str) -> StaticDraws:
        fresh = frozenset() if self._hw.cell.technology in FIXED_AT_FABRICATION else REWRITTEN

        def source(shape: tuple[int, ...], label: str) -> Tensor:
            if label in fresh:
                return normals(shape, self._seed, "tile", tile, label, operation)
            # Of the chip itself: drawn at the first writing, and kept.
            key = tile, label
            if key not in self._parts:
                self._parts[key] = normals(shape, self._seed, "tile", tile, label)
            return self._parts[key]

        return draw_static(self._op, self._hw, torch.Size((self._cols, self._rows)), source) or StaticDraws()

    def _programmed(self, targets_uS: Tensor, draws: StaticDraws, t_s: float) -> Array:
        w = (targets_uS / self._span_uS).t().contiguous()
        return program(w, self._op, self._hw, draws, t_s=t_s, bound=torch.tensor(1.0))

    def _array(self, state: _TileState) -> Array:
        """What the tile holds now."""
        t_s = self._hw.environment.t_s + (self._clock_s - state.written_s if self._ages else 0.0)
        if t_s != state.array_t_s:
            state.array, state.array_t_s = self._programmed(state.targets_uS, state.draws, t_s), t_s
        return state.array

    def _read(self, array: Array, seed: int) -> Tensor:
        """Conductances [rows, cols] in uS with the noise of one read."""
        factors = slice_factors(self._hw)
        g = torch.stack([f * w for f, w in zip(factors, array.weights, strict=True)]).sum(0)
        if array.read_var is not None:
            var = torch.stack([f * f * v.expand_as(g) for f, v in zip(factors, array.read_var, strict=True)]).sum(0)
            g = g + var.sqrt() * normals(tuple(g.shape), seed)
        return (g * self._span_uS).t().contiguous()

    def _status(self, draws: StaticDraws, mask: Tensor | None) -> Tensor:
        status = torch.full((self._rows, self._cols), int(CellStatus.OK), dtype=torch.uint8)
        if mask is not None:
            status[~mask] = int(CellStatus.SKIPPED)
        if draws.stuck is not None:
            stuck = (draws.stuck < self._hw.faults.stuck_on + self._hw.faults.stuck_off).any(0).t()
            status[stuck] = int(CellStatus.STUCK)
        return status


def _ages(cell: Cell) -> bool:
    """Whether what was written changes with time: asked of the law itself, at the middle of the range."""
    g = torch.tensor([(cell.g_min_uS + cell.g_max_uS) / 2])
    return not torch.equal(cells.age(cell, g, g, LONG_S, torch.ones(1)), g)
