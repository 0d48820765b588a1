"""What a driver in this process keeps of its tiles, and the rules of the protocol for it."""

from dataclasses import replace
from typing import Generic, Protocol, TypeVar, final

from torch import Tensor

from mho.errors import DeviceFault
from mho.lab.protocol import NotProgrammed, ProgramReport


class Written(Protocol):
    """The state of a tile: what was reported when it was written."""

    report: ProgramReport


State = TypeVar("State", bound=Written)


@final
class Tiles(Generic[State]):
    """States of tiles by number. ``device``: how errors call it. Raises :class:`DeviceFault` once it is closed."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._states: dict[int, State] = {}
        self._closed = False

    def open(self) -> None:
        """Refuse calls to a device that was closed."""
        if self._closed:
            raise DeviceFault(f"{self.device}: it was closed. Fix: connect again.")

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._states.clear()

    def numbers(self) -> tuple[int, ...]:
        """The tiles that hold something."""
        return tuple(sorted(self._states))

    def get(self, tile: int) -> State:
        """The state of a tile; :class:`NotProgrammed` where there is none."""
        if tile not in self._states:
            raise NotProgrammed(f"{self.device}, tile {tile}: nothing was written to it. Fix: program it first.")
        return self._states[tile]

    def before(self, tile: int, mask: Tensor | None) -> State | None:
        """What a writing meets; :class:`NotProgrammed` for a mask on a tile that holds nothing."""
        if mask is not None and tile not in self._states:
            raise NotProgrammed(
                f"{self.device}, tile {tile}: a mask, and nothing was written before. Fix: write the whole tile once."
            )
        return self._states.get(tile)

    def put(self, tile: int, state: State) -> ProgramReport:
        """Keep a state; its report as the caller's own copy."""
        self._states[tile] = state
        return own(state.report)

    def repeated(self, tile: int, operation: str) -> ProgramReport | None:
        """The report of the writing that the tile holds, if it was this operation."""
        state = self._states.get(tile)
        if state is None or state.report.operation != operation:
            return None
        return replace(own(state.report), repeated=True)


def own(report: ProgramReport) -> ProgramReport:
    """A copy: what its owner does to it does not change what is remembered."""
    achieved = None if report.achieved_uS is None else report.achieved_uS.clone()
    return replace(report, achieved_uS=achieved, status=report.status.clone())
