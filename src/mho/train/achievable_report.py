"""What a device can do before training, and what its cells have done since."""

from dataclasses import dataclass

import torch

from mho.errors import HardwareError
from mho.hardware.update import PulsedDevice
from mho.physics.pulses import spread_cells, symmetry_points
from mho.physics.update import asymmetry, number_of_states, symmetry_point
from mho.rng import normals
from mho.train.achievable_cells import Block
from mho.train.achievable_rules import Losses, Writer

_SAMPLE = 10_000


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The four numbers that decide how well a device trains, in its own units; ``None``: there is none.

    ``symmetry_point``: where an up and a down pulse cancel, and its std from cell to cell (over a sample of
    10,000 cells that have one); ``states``: range over the mean step at 0; ``asymmetry``: (f_up - f_down) /
    (f_up + f_down) at w_min / 2, 0 and w_max / 2.
    """

    response: str
    symmetry_point: float | None
    symmetry_point_d2d: float | None
    states: float | None
    asymmetry: tuple[float, float, float]

    def __str__(self) -> str:
        def number(value: float | None) -> str:
            return "none" if value is None else f"{value:.4g}"

        low, middle, high = self.asymmetry
        return (
            f"response {self.response}: symmetry point {number(self.symmetry_point)} "
            f"(std over cells {number(self.symmetry_point_d2d)}), {number(self.states)} states, "
            f"asymmetry {low:.3g} / {middle:.3g} / {high:.3g} at w_min/2, 0, w_max/2"
        )


@dataclass(frozen=True, kw_only=True)
class BlockFacts:
    """One parameter on cells. ``scale``: weight of one unit of the device (the largest over columns).

    ``written``: mean share of its cells that one step writes (NaN before the first); ``energy_uJ``: pulses times
    pulse_energy_pJ (``None``: the price is not known, or the rule counts no pulses).
    """

    name: str
    cells: int
    scale: float
    outside: int
    writes: int
    pulses: int
    most_writes: int
    written: float
    energy_uJ: float | None


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """The device, the parameters on its cells, and those that step digitally; prints as a table.

    ``out_of_reach``: targets that no number of pulses reaches; ``None`` where no cell is read before it is written
    (all but rule "pulses" with count "state-aware"), so that they are not counted.
    """

    rule: str
    steps: int
    device: DeviceFacts
    blocks: tuple[BlockFacts, ...]
    digital: tuple[str, ...]
    capped: int
    lost_pulses: int
    out_of_reach: int | None

    @property
    def writes(self) -> int:
        """Writes of all cells."""
        return sum(block.writes for block in self.blocks)

    @property
    def pulses(self) -> int:
        """Pulses of all cells."""
        return sum(block.pulses for block in self.blocks)

    @property
    def written(self) -> float:
        """Mean share of all cells that one step writes; NaN before the first step."""
        cells = sum(block.cells for block in self.blocks)
        return self.writes / (cells * self.steps) if self.steps else float("nan")

    @property
    def energy_uJ(self) -> float | None:
        """Energy of all writes; ``None`` where it is not known."""
        known = [block.energy_uJ for block in self.blocks if block.energy_uJ is not None]
        return sum(known) if len(known) == len(self.blocks) else None

    def __str__(self) -> str:
        header = ("parameter", "cells", "unit", "outside", "writes", "pulses", "most writes", "a step", "energy")
        body = [
            (
                b.name,
                f"{b.cells:,}",
                f"{b.scale:.4g}",
                f"{b.outside:,}",
                f"{b.writes:,}",
                f"{b.pulses:,}",
                f"{b.most_writes:,}",
                "" if b.written != b.written else f"{100 * b.written:.3g} %",
                "not known" if b.energy_uJ is None else f"{b.energy_uJ:.4g} uJ",
            )
            for b in self.blocks
        ]
        widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
        lines = [f"rule {self.rule}, {self.steps:,} steps", str(self.device)]
        lines += ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (header, *body)]
        away = "not counted" if self.out_of_reach is None else f"{self.out_of_reach:,}"
        lines.append(
            f"cut by the pulse limit: {self.capped:,} updates, {self.lost_pulses:,} pulses; "
            f"targets out of reach: {away}"
        )
        lines.append(f"digital: {', '.join(self.digital) if self.digital else 'none'}")
        return "\n".join(lines)


def device_facts(device: PulsedDevice, seed: int) -> DeviceFacts:
    """The facts of ``device``; the spread is that of a sample of cells under ``seed``."""
    try:
        point: float | None = symmetry_point(device)
    except HardwareError:
        point = None
    try:
        states: float | None = number_of_states(device)
    except HardwareError:
        states = None
    spread: float | None = None
    if device.d2d or device.d2d_asymmetry or device.d2d_bounds:
        found = symmetry_points(device, spread_cells(device, normals((4, _SAMPLE), seed, "achievable", "report")))
        found = found[~found.isnan()]
        spread = float(found.std()) if found.numel() > 1 else None
    elif point is not None:
        spread = 0.0
    where = torch.tensor([0.5 * device.w_min, 0.0, 0.5 * device.w_max], dtype=torch.float64)
    low, middle, high = asymmetry(where, device).tolist()
    return DeviceFacts(
        response=getattr(device.response, "kind", type(device.response).__name__),
        symmetry_point=point,
        symmetry_point_d2d=spread,
        states=states,
        asymmetry=(low, middle, high),
    )


def make_report(
    writer: Writer,
    steps: int,
    device: PulsedDevice,
    seed: int,
    blocks: list[Block],
    digital: tuple[str, ...],
    losses: Losses,
) -> UpdateReport:
    """The report of a wrapper's state."""
    price = device.pulse_energy_pJ if writer.rule != "exact" else None
    rows = []
    for block in blocks:
        writes, pulses = int(block.writes.sum()), int(block.pulses.sum())
        cells = block.parameter.numel()
        rows.append(
            BlockFacts(
                name=block.name,
                cells=cells,
                scale=float(block.scale().max()),
                outside=block.outside,
                writes=writes,
                pulses=pulses,
                most_writes=int(block.writes.max()) if cells else 0,
                written=writes / (cells * steps) if steps and cells else float("nan"),
                energy_uJ=None if price is None else pulses * price * 1e-6,
            )
        )
    return UpdateReport(
        rule=writer.rule,
        steps=steps,
        device=device_facts(device, seed),
        blocks=tuple(rows),
        digital=digital,
        capped=losses.capped,
        lost_pulses=losses.lost_pulses,
        out_of_reach=losses.out_of_reach if writer.reads_state else None,
    )
