"""Put a trained network on a device, verify what was written, run it, and correct it digitally."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from mho.errors import InputError
from mho.lab.columns import ByTile
from mho.lab.log import EventLog
from mho.lab.placement import Lines, Patch, Placement, place
from mho.lab.policy import Budget, Policy
from mho.lab.protocol import CellStatus, Device
from mho.lab.session import Session
from mho.lab.substrate import OnDevice
from mho.lab.training import connect_session
from mho.nn.site import BOUND, AnalogLayer, Site, analog_layers
from mho.nn.surrogate import NewChip
from mho.nn.watch import FirstForward, remove_hooks


@dataclass(frozen=True, eq=False)
class CellErrors:
    """Read-back minus target of one patch: ``error_uS`` and ``status`` [inputs, lines]; NaN without read-back.

    ``plus`` columns first, then ``minus`` where an output takes two.
    """

    site: str
    tile: int
    error_uS: Tensor
    status: Tensor

    @property
    def rms_uS(self) -> float:
        return float(self.error_uS.square().mean().sqrt())

    @property
    def share_not_ok(self) -> float:
        return float((self.status > int(CellStatus.OK)).float().mean())


@final
class Deployed(nn.Module):
    """A network on a device: an ordinary module in eval mode, whose products are the device's answers."""

    def __init__(self, model: nn.Module, substrate: OnDevice) -> None:
        super().__init__()
        self.model = model
        self.substrate = substrate
        for _, layer in analog_layers(model):
            layer.substrate = substrate

    def train(self, mode: bool = True) -> "Deployed":
        """Stays in eval mode: what is deployed does not train (see ``fit_in_the_loop``)."""
        self.training = False
        return self

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        """The network's output by the device."""
        return self.model(*args)

    def again(self, salt: str) -> "Deployed":
        """Reads from now on are others than before, also for inputs that were seen."""
        self.substrate.salt = salt
        return self

    def errors(self) -> tuple[CellErrors, ...]:
        """What the device read back when it was written, cell by cell."""
        return tuple(
            _errors(patch, self.substrate) for patches in self.substrate.placement.patches.values() for patch in patches
        )


def deploy(
    model: nn.Module,
    device: Device,
    *,
    rewrites: int = 0,
    tolerance: float = 0.05,
    dead: Mapping[int, tuple[Lines, Lines]] | None = None,
    columns: ByTile | None = None,
    repeats: int = 1,
    policy: Policy | None = None,
    budget: Budget | None = None,
    log: EventLog | None = None,
) -> Deployed:
    """Program a converted network and return it as a module that runs on ``device``.

    ``rewrites``: how often cells whose read-back is more than ``tolerance`` (of the range of conductances) off are
    written again (write and verify; needs read-back and masks). ``columns``: known gains and offsets, divided out
    digitally. The model itself is not touched. Raises as :func:`fit_in_the_loop`.
    """
    session = connect_session(device, policy, budget, log)
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    remove_hooks(twin, NewChip, FirstForward)
    placement = place(twin, session.capabilities(), dead=dead)
    substrate = OnDevice(session, placement, repeats=repeats, log=session.log)
    for site, layer, key in _sites(twin):
        substrate.write(site, getattr(layer, key).detach(), getattr(layer, key + BOUND, None))
    for attempt in range(rewrites):
        if not _rewrite(session, substrate, placement, tolerance, attempt):
            break
    substrate.columns = columns or {}
    substrate.frozen = True
    return Deployed(twin, substrate)


def _sites(model: nn.Module) -> Iterable[tuple[Site, AnalogLayer, str]]:
    for _, layer in analog_layers(model):
        for key, site in layer.sites.items():
            yield site, layer, key


def _rewrite(session: Session, substrate: OnDevice, placement: Placement, tolerance: float, attempt: int) -> int:
    """Write the cells that are too far off again; how many there were."""
    can = session.capabilities()
    if not (can.partial and can.read_back):
        raise InputError("deploy: rewrites need a device with read-back and masks. Fix: rewrites = 0.")
    limit = tolerance * (can.g_max_uS - can.g_min_uS)
    written = 0
    for tile in placement.tiles:
        target = substrate.target(tile)
        report = substrate.reports[tile]
        assert report.achieved_uS is not None
        off = (report.achieved_uS - target).abs() > limit
        off &= report.status != int(CellStatus.STUCK)
        if not bool(off.any()):
            continue
        again = session.program(tile, target, operation=f"{report.operation}/rewrite {attempt}", mask=off)
        stuck = report.status == int(CellStatus.STUCK)
        status = torch.where(stuck, report.status, torch.where(off, again.status, report.status))
        substrate.reports[tile] = type(report)(report.operation, again.achieved_uS, status, time_s=again.time_s)
        written += int(off.sum())
    return written


def _errors(patch: Patch, substrate: OnDevice) -> CellErrors:
    report, target = substrate.reports[patch.tile], substrate.target(patch.tile)
    lines = patch.plus if patch.minus is None else torch.cat([patch.plus, patch.minus])
    rows = patch.rows.unsqueeze(1)
    error = torch.full_like(target, torch.nan) if report.achieved_uS is None else report.achieved_uS - target
    return CellErrors(patch.site, patch.tile, error[rows, lines], report.status[rows, lines])
