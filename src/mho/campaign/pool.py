"""Workers on this machine: processes that live for the whole campaign, one pipe each."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from mho.campaign.cells import Cell, Work, answer
from mho.campaign.crew import Event, Hand
from mho.errors import InputError

ENDING_S = 5.0


@dataclass(frozen=True, eq=False)
class _Process:
    process: SpawnProcess
    pipe: Connection


class Pool:
    """A :class:`~mho.campaign.crew.Crew` of ``size`` processes.

    Processes are spawned, not forked (torch's threads do not survive a fork). They end when their driver does,
    even by ``kill -9``: nothing of a dead campaign goes on in the background.
    """

    def __init__(self, work: Work, size: int) -> None:
        if size < 1:
            raise InputError(f"campaign: workers = {size}: must be 1 or more.")
        self.work, self.size = work, size
        self.all: list[_Process] = []

    def hire(self) -> Hand:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self.work), daemon=True)
        with _interrupt_held_back():  # Ctrl-C reaches all processes of a terminal: only the driver is to hear it.
            process.start()
        theirs.close()  # Else a dead worker's pipe would never end.
        hired = _Process(process, ours)
        self.all.append(hired)
        return hired

    def give(self, hand: Hand, cell: Cell) -> None:
        try:
            _own(hand).pipe.send(cell)
        except OSError:
            return  # It died meanwhile; wait() says so.

    def wait(self, hands: Collection[Hand], timeout_s: float) -> list[Event]:
        waiting = [_own(hand) for hand in hands]
        wait([w.pipe for w in waiting] + [w.process.sentinel for w in waiting], timeout_s)
        return [event for hand in waiting if (event := self._event(hand)) is not None]

    def _event(self, hand: _Process) -> Event | None:
        # The pipe first: an answer that was sent before a death counts.
        try:
            if hand.pipe.poll():
                what, content = hand.pipe.recv()
                return self._death(hand, content) if what == "broken" else Event(hand=hand, what=what, reply=content)
        except (EOFError, OSError):
            return self._death(hand)
        return None if hand.process.is_alive() else self._death(hand)

    def _death(self, hand: _Process, why: str = "") -> Event:
        hand.process.join(ENDING_S)
        hand.pipe.close()
        self.all.remove(hand)
        return Event(hand=hand, what="died", why=why or _why(hand.process.exitcode))

    def close(self) -> None:
        for hired in self.all:
            hired.pipe.close()
            hired.process.terminate()
        for hired in self.all:
            hired.process.join(ENDING_S)
            if hired.process.is_alive():
                hired.process.kill()
                hired.process.join(ENDING_S)
        self.all.clear()


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Block SIGINT for as long as a child is made: the child keeps it blocked, for the driver it comes afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own(hand: Hand) -> _Process:
    return cast(_Process, hand)


def _why(code: int | None) -> str:
    if code is None or code >= 0:
        return f"the worker ended with code {code}"
    hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"the worker was killed by signal {-code} ({signal.Signals(-code).name}){hint}"


def serve(pipe: Connection, work: Work) -> None:
    """The life of a worker: make ready, then one answer a cell until the driver closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_driver, daemon=True).start()
    try:
        do = work()
    except Exception as error:
        pipe.send(("broken", f"{type(error).__name__}: {error}"))
        return
    try:
        pipe.send(("ready", None))
        while True:
            cell: Cell = pipe.recv()
            pipe.send(("answer", answer(do, cell)))
    except (EOFError, OSError):
        return


def _die_with_driver() -> None:
    driver: Any = multiprocessing.parent_process()
    wait([driver.sentinel])
    os._exit(1)
