"""Workers on a Ray cluster: actors that live for the whole campaign, one core each."""

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from mho.campaign.cells import Answer, Cell, Do, Work, answer
from mho.campaign.crew import Event, Hand
from mho.campaign.errors import CampaignError

LOCAL = "local"
ANSWER_S = 10.0
STARTS = 3


@dataclass(eq=False)
class _Actor:
    actor: Any
    due: Any
    """The reference to its next event; None while it has nothing to do."""
    ready: bool = False


class RayWorker:
    """What runs as an actor: imports, data and networks once, then one answer a cell."""

    def __init__(self, work: Work) -> None:
        self.do: Do = work()

    def ready(self) -> None:
        """Answers when the worker is made."""

    def answer(self, cell: Cell) -> Answer:
        """See :func:`mho.campaign.cells.answer`."""
        return answer(self.do, cell)


class RayCrew:
    """A :class:`~mho.campaign.crew.Crew` on the cluster at ``address`` ("host:port", "auto"; "local": one of its own).

    ``size``: how many actors (None: one for each core of the cluster). The machines need this version of mho, and the
    campaign's folder and data under the same paths. Actors end with their driver.

    A process that has joined a cluster already can join no other: its session is used where ``address`` means it
    ("local" and "auto": any), and stays after :meth:`close`. Raises :class:`CampaignError` where Ray is not installed,
    no cluster answers, it has no core, or this process has joined another one.
    """

    def __init__(self, work: Work, address: str, size: int | None = None) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise CampaignError(
                f"--ray {address}: Ray is not installed ({error}). Fix: pip install 'mho[ray]', or leave --ray out."
            ) from error
        self.ray: Any = ray
        self.joined = not ray.is_initialized()
        """Whether the session is ours to end."""
        self.actors: list[Any] = []
        where: dict[str, Any] = {}
        if address == LOCAL:
            where = {"num_cpus": size, "include_dashboard": False}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # A cluster of ours tells nobody of itself.
        if self.joined:
            _must_answer(address)
            _join(ray, address, where)
        else:
            _must_be(address, ray.get_runtime_context().gcs_address)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < 1:
            self.close()
            raise CampaignError(f"--ray {address}: the cluster has no core. Fix: start it with --num-cpus.")
        self.size = cores if size is None else min(size, cores)
        self.make = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
        self.work = work

    def hire(self) -> Hand:
        actor = self.make.remote(self.work)
        self.actors.append(actor)
        return _Actor(actor, actor.ready.remote())

    def give(self, hand: Hand, cell: Cell) -> None:
        own = _own(hand)
        own.due = own.actor.answer.remote(cell)

    def wait(self, hands: Collection[Hand], timeout_s: float) -> list[Event]:
        due = {own.due: own for own in map(_own, hands) if own.due is not None}
        if not due:
            return []
        came, _ = self.ray.wait(list(due), num_returns=1, timeout=timeout_s)
        if came:  # All others that are there by now, without waiting.
            came, _ = self.ray.wait(list(due), num_returns=len(due), timeout=0)
        return [self._event(due[reference]) for reference in came]

    def _event(self, own: _Actor) -> Event:
        reference, own.due = own.due, None
        try:
            reply = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self.ray.kill(own.actor)
            return Event(hand=own, what="died", why=f"the actor died: {str(error).strip().splitlines()[-1]}")
        if own.ready:
            return Event(hand=own, what="answer", reply=reply)
        own.ready = True
        return Event(hand=own, what="ready")

    def close(self) -> None:
        if self.joined:
            self.ray.shutdown()
        else:
            for actor in self.actors:
                self.ray.kill(actor)


def _join(ray: Any, address: str, where: dict[str, Any]) -> None:
    """Join the cluster. One of its own is tried again: on a busy machine Ray's servers start too slowly for itself."""
    left = STARTS if address == LOCAL else 1
    while True:
        left -= 1
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **where)
            return
        except (ConnectionError, RuntimeError, ValueError) as error:
            ray.shutdown()
            if not left:
                raise _nobody(address, error) from error


def _own(hand: Hand) -> _Actor:
    return cast(_Actor, hand)


def _must_answer(address: str) -> None:
    """Ray itself tries an address for minutes before it says that nobody is there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "local", "auto" and the like
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        raise _nobody(address, error) from error


def _must_be(address: str, here: str) -> None:
    if address not in (LOCAL, "auto", here):
        raise CampaignError(
            f"--ray {address}: this process has joined the cluster at {here} already. Fix: ray.shutdown() before, or "
            "that address."
        )


def _nobody(address: str, error: BaseException) -> CampaignError:
    cause = error
    while cause.__cause__ is not None:  # Ray's own reason (a missing token, say) is at the bottom.
        cause = cause.__cause__
    reason = f"{error}" if cause is error else f"{error} ({str(cause).strip().splitlines()[-1][:300]})"
    return CampaignError(
        f"--ray {address}: no cluster answers there: {reason}. Fix: 'ray start --head' and its address, or --ray local."
    )
