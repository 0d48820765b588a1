"""A device whose physics is ngspice's: every read is a job of the circuit simulator."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from mho.errors import RangeError
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
from mho.lab.spice.access import Access, AccessMosfet
from mho.lab.spice.netlist import check_wire, options
from mho.lab.spice.referee import noise_density, noise_reads, solve_columns, solve_superposition
from mho.lab.spice.run import COMMAND, version
from mho.lab.tiles import Tiles
from mho.physics.converters import quantize
from mho.physics.thermal import boxcar_bandwidth_Hz
from mho.rng import normals

MAX_BATCH = 256
MAX_REPEATS = {".noise": 1024, "trnoise": 64}
"""A transient takes time for every read, a spectrum once a programming."""


@dataclass(eq=False)
class _TileState:
    """What one tile holds, and what ngspice has said about it so far."""

    targets_uS: Tensor
    report: ProgramReport
    effective_uS: Tensor | None = None
    sigma_uA: Tensor | None = None


@final
class SpiceDevice:
    """``tiles`` tiles of ohmic cells behind wires and access devices, solved by ngspice.

    Cells take the conductance asked for exactly; what deviates from ``v @ g`` are the wires, the access devices, the
    thermal noise and the converters. ``signed``: a cell is a pair, one cell in each of two arrays of their own wires
    that are driven alike and whose currents are subtracted; both are solved at once, in two processes.

    ``noise``: thermal noise of a read. ``noise_by = ".noise"``: sigma^2 = S / (2 t_read_s) with S from ``.noise`` at
    rest, asked for at the first read of what was written; columns are taken as independent; draws come from ``seed``
    and the name of the operation. ``noise_by = "trnoise"``: a transient for every call, with a noisy source beside each
    resistor and each read a mean over t_read_s; what columns share is in it, and a call that is repeated under its name
    gets other noise, as of silicon, for ngspice cannot be given a seed. For small arrays.

    ``solve``: ``"each"`` vector as an operating point of its own, or by ``"superposition"`` of unit vectors, solved
    once a programming; the latter only where all elements are linear. Converters: ``input_bits`` at v_max_V,
    ``output_bits`` at the full scale of the call; ``None``: a clip at that range alone.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        *,
        g_max_uS: float,
        v_max_V: float,
        g_min_uS: float = 0.0,
        signed: bool = False,
        tiles: int = 1,
        wire_ohm: float = 0.0,
        access: Access | None = None,
        noise: bool = True,
        noise_by: Literal[".noise", "trnoise"] = ".noise",
        t_read_s: float = 128e-9,
        temperature_K: float = 300.0,
        input_bits: int | None = None,
        output_bits: int | None = None,
        solve: Literal["each", "superposition"] = "each",
        seed: int = 0,
        boot: str = "0",
        timeout_s: float = 120.0,
        command: str = COMMAND,
    ) -> None:
        if solve not in ("each", "superposition"):
            raise RangeError(f"SpiceDevice: solve = {solve!r}. Fix: 'each' or 'superposition'.")
        if noise_by not in MAX_REPEATS:
            raise RangeError(f"SpiceDevice: noise_by = {noise_by!r}. Fix: '.noise' or 'trnoise'.")
        check_wire(wire_ohm)
        options(temperature_K)
        if isinstance(access, AccessMosfet) and (noise or solve == "superposition"):
            raise RangeError(
                "SpiceDevice: access = AccessMosfet with noise or solve = 'superposition'. Cause: ngspice 39 has no "
                "noise of a channel at rest, and a transistor is not linear. Fix: noise=False and solve='each', or "
                "AccessResistor."
            )
        self._wire_ohm, self._access, self._temperature_K = wire_ohm, access, temperature_K
        self._noise, self._noise_by = noise, noise_by
        self._t_read_s, self._solve, self._seed = t_read_s, solve, seed
        self._bandwidth_Hz = boxcar_bandwidth_Hz(t_read_s)
        self._boot, self._timeout_s, self._command = boot, timeout_s, command
        self._tiles: Tiles[_TileState] = Tiles("spice device")
        self._clock_s = 0.0
        worst_uA = rows * v_max_V * g_max_uS
        self._capabilities = Capabilities(
            vendor="ngspice",
            model=f"{'pairs of resistors' if signed else 'resistors'}, {wire_ohm:g} ohm a segment",
            serial=f"{seed}",
            firmware=version(command),
            tiles=tiles,
            rows=rows,
            cols=cols,
            g_min_uS=g_min_uS,
            g_max_uS=g_max_uS,
            signed=signed,
            v_max_V=v_max_V,
            input_bits=input_bits,
            i_min_uA=worst_uA * 1e-6,
            i_max_uA=worst_uA,
            output_bits=output_bits,
            max_batch=MAX_BATCH,
            max_repeats=MAX_REPEATS[noise_by],
            timeout_s=2.0 * timeout_s,  # the first read is two jobs: currents and noise
        )

    def capabilities(self) -> Capabilities:
        """What this device can do."""
        self._tiles.open()
        return self._capabilities

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Put the cells of a tile in place; nothing is simulated yet."""
        self._tiles.open()
        checks.program(self._capabilities, tile, targets_uS, mask)
        done = self._tiles.repeated(tile, operation)
        if done is not None:
            return done
        before = self._tiles.before(tile, mask)
        # The clamp takes away what the slack of the limits let through: a cell of -1e-9 uS is no resistor.
        targets = targets_uS.detach().float().clamp(self._capabilities.lowest_uS, self._capabilities.g_max_uS)
        status = torch.full(targets.shape, int(CellStatus.OK), dtype=torch.uint8)
        if mask is not None and before is not None:
            targets = torch.where(mask, targets, before.targets_uS)
            status[~mask] = int(CellStatus.SKIPPED)
        report = ProgramReport(operation, targets.clone(), status, time_s=self._clock_s)
        return self._tiles.put(tile, _TileState(targets, report))

    def read(self, tile: int) -> Conductances:
        """The conductances of the resistors: what is in the netlist."""
        self._tiles.open()
        checks.tile_number(self._capabilities, tile)
        g_uS = self._tiles.get(tile).targets_uS.clone()
        return Conductances(g_uS, torch.ones_like(g_uS, dtype=torch.bool), self._clock_s)

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """All columns for every input vector, ``repeats`` times with fresh noise on one solution."""
        self._tiles.open()
        can = self._capabilities
        checks.mvm(can, tile, inputs_V, full_scale_uA, repeats)
        state = self._tiles.get(tile)
        driven_V = quantize(inputs_V.detach().double(), can.v_max_V, can.input_bits)
        currents_uA = self._currents(state, driven_V).expand(repeats, -1, -1)
        if self._noise:
            currents_uA = currents_uA + self._fresh(state, tuple(currents_uA.shape), tile, operation)
        answer_uA = quantize(currents_uA, full_scale_uA, can.output_bits).float()
        self._clock_s += self._t_read_s * len(inputs_V) * repeats
        return Readout(
            operation=operation,
            currents_uA=answer_uA.contiguous(),
            valid=torch.ones_like(answer_uA, dtype=torch.bool),
            time_s=self._clock_s,
            temperature_K=self._temperature_K,
            flags=("saturated",) if bool((currents_uA.abs() > full_scale_uA).any()) else (),
        )

    def calibrate(self) -> Calibration:
        """Nothing moves in this device, so that nothing is left to calibrate."""
        self._tiles.open()
        return Calibration(
            identity=f"{self._capabilities.firmware}@{self._clock_s:.6g}",
            time_s=self._clock_s,
            temperature_K=self._temperature_K,
            residual=0.0,
        )

    def health(self) -> Health:
        """Well as long as the command answers."""
        self._tiles.open()
        return Health(
            ok=version(self._command) == self._capabilities.firmware,
            boot=self._boot,
            time_s=self._clock_s,
            temperature_K=self._temperature_K,
            programmed_tiles=self._tiles.numbers(),
        )

    def close(self) -> None:
        """Let go; what was written is forgotten."""
        self._tiles.close()

    def _currents(self, state: _TileState, inputs_V: Tensor) -> Tensor:
        if self._solve == "each":
            plus, *minus = self._arrays(state, lambda g_uS: self._columns(g_uS, inputs_V))
            return plus - minus[0] if minus else plus
        if state.effective_uS is None:
            plus, *minus = self._arrays(state, self._superposition)
            state.effective_uS = plus - minus[0] if minus else plus
        return inputs_V @ state.effective_uS

    def _fresh(self, state: _TileState, shape: tuple[int, ...], tile: int, operation: str) -> Tensor:
        """Noise of every read, uA, of ``shape`` [repeats, n, cols]."""
        if self._noise_by == ".noise":
            return self._sigma(state) * normals(shape, self._seed, "mvm", tile, operation)
        plus, *minus = self._arrays(state, lambda g_uS: self._reads(g_uS, shape[0] * shape[1]))
        return (plus - minus[0] if minus else plus).reshape(shape)

    def _sigma(self, state: _TileState) -> Tensor:
        """Standard deviation of the noise of one read, uA, [cols]; the two arrays of a pair add in variance."""
        if state.sigma_uA is None:
            variance_A2 = torch.stack(self._arrays(state, self._density)).sum(0) * self._bandwidth_Hz
            state.sigma_uA = variance_A2.sqrt() * 1e6
        return state.sigma_uA

    def _arrays(self, state: _TileState, job: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """``job`` of the array, or of the two of a signed tile at the same time; g_min is 0 where signed."""
        g_uS = state.targets_uS.double()
        if not self._capabilities.signed:
            return [job(g_uS)]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(job, (g_uS.clamp_min(0.0), (-g_uS).clamp_min(0.0))))

    def _columns(self, g_uS: Tensor, inputs_V: Tensor) -> Tensor:
        return solve_columns(
            g_uS,
            inputs_V,
            wire_ohm=self._wire_ohm,
            access=self._access,
            temperature_K=self._temperature_K,
            timeout_s=self._timeout_s,
            command=self._command,
        )

    def _superposition(self, g_uS: Tensor) -> Tensor:
        return solve_superposition(
            g_uS, wire_ohm=self._wire_ohm, access=self._access, timeout_s=self._timeout_s, command=self._command
        )

    def _density(self, g_uS: Tensor) -> Tensor:
        return noise_density(
            g_uS,
            wire_ohm=self._wire_ohm,
            access=self._access,
            temperature_K=self._temperature_K,
            timeout_s=self._timeout_s,
            command=self._command,
        )

    def _reads(self, g_uS: Tensor, reads: int) -> Tensor:
        return noise_reads(
            g_uS,
            reads,
            t_read_s=self._t_read_s,
            wire_ohm=self._wire_ohm,
            access=self._access,
            temperature_K=self._temperature_K,
            timeout_s=self._timeout_s,
            command=self._command,
        )
